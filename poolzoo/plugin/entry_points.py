"""The entry points of the group `poolzoo` that installed distributions declare.

Reading metadata takes longer than all else that a short command does, and most machines have no plugin installed.
So the files are searched for the group's name first, and `importlib.metadata` is imported only where it occurs.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP: Final = "poolzoo"


def entry_points() -> list[EntryPoint]:
    """Those of the group, each once, without what is damaged in other packages."""
    if not _are_declared():
        return []
    from importlib import metadata

    try:
        found = list(metadata.entry_points(group=GROUP))
    except Exception:  # one package's file cannot be read, and all of them are out of reach
        found = []
        for dist in metadata.distributions():
            with suppress(Exception):
                found += dist.entry_points.select(group=GROUP)
    return list({(p.name, p.value, getattr(p.dist, "_path", None)): p for p in found}.values())


def _are_declared() -> bool:
    """Whether there may be any: False only where no place that `importlib.metadata` searches names the group."""
    from importlib.machinery import PathFinder

    if any(hasattr(finder, "find_distributions") and finder is not PathFinder for finder in sys.meta_path):
        return True  # it may search anywhere
    return any(_declares(place) for place in sys.path if isinstance(place, str | os.PathLike))


def _declares(place: str | os.PathLike[str]) -> bool:
    try:
        names = os.listdir(place or ".")
    except NotADirectoryError:  # a zip file, for example
        return True
    except (OSError, ValueError):
        return False
    infos = (name for name in names if name.lower().endswith((".dist-info", "egg-info")))
    return any(_names_group(os.path.join(place, name, "entry_points.txt")) for name in infos)


def _names_group(file: str) -> bool:
    """Whether the file may have a section `[poolzoo]`: it occurs in it, however the line is spaced."""
    try:
        with open(file, "rb") as opened:
            return f"{GROUP}]".encode() in opened.read()
    except OSError:
        return False
