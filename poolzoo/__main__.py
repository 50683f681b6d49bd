"""`python -m poolzoo`, and the program `poolzoo`: Ctrl-C while it starts is one line, too."""

from __future__ import annotations

from typing import NoReturn

from poolzoo.common import stopping


def main() -> NoReturn:
    """Imports the command line and runs it."""
    stopping.handle(stopping.end_at_once)
    from poolzoo import cli

    cli.main()


if __name__ == "__main__":
    main()
