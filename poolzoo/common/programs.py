"""Programs by their names: they are looked for in the folders of PATH, and never in the current one."""

from __future__ import annotations

import os
import shutil


def find_program(name: str) -> str | None:
    """The path of an installed program; None where there is none.

    An entry of PATH that is relative or empty means the current folder, and is left out. Windows searches the current
    folder before all others, which does not count either.
    """
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        if os.path.isabs(folder) and (found := shutil.which(name, path=folder)) and os.path.isabs(found):
            return found
    return None
