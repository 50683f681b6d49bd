"""`python -m poolzoo`, and the program `poolzoo`: Ctrl-C while it starts is one line, too.

`python -m` puts the current folder first among the places of modules, so that a `json.py` or a `torch.py` there would
be run. It is left out, unless poolzoo itself comes from it. `python -P -m poolzoo` and `poolzoo` never have it.
"""

import gc
import os
import sys

COLLECT_AFTER = 50_000  # new objects; Python's 700 are reached hundreds of times while packages are imported


def main() -> None:
    """Imports the command line and runs it."""
    gc.set_threshold(COLLECT_AFTER)
    from poolzoo.common import ending, stopping

    ending.prepare()
    stopping.handle(stopping.end_at_once)
    from poolzoo import cli

    cli.main()


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
    main()
