"""`python -m poolzoo`: the command line, without the current folder among the places of modules.

Python puts that folder first, so that a `json.py` or a `torch.py` there would be run. It stays where poolzoo itself
comes from it. `python -P -m poolzoo` and the command `poolzoo` never have it.
"""

import os
import sys


def _leave_current_folder_out() -> None:
    try:
        current = os.getcwd()
    except OSError:  # it is gone
        current = ""
    own = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    if not sys.flags.safe_path and sys.path[0] in ("", current) and current != own:
        del sys.path[0]


if __name__ == "__main__":
    _leave_current_folder_out()
    from poolzoo.cli import main

    main()
