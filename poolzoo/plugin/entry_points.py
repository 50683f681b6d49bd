"""The entry points of the group `poolzoo` that installed distributions declare.

Importing `importlib.metadata`, and letting it read what every distribution declares, takes longer than all else that a
short command does. So the files are searched for the group's name first, and those that have it are read here. What
lies elsewhere than in a `.dist-info` directory, such as in a zip file, is left to `importlib.metadata`.

The format is that of https://packaging.python.org/en/latest/specifications/entry-points/.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from importlib import metadata

GROUP: Final = "poolzoo"


@dataclass(frozen=True)
class EntryPoint:
    """What a distribution declares.

    Attributes:
        name: The plugin's name.
        value: Where it is: "package.module" or "package.module:attribute".
        dist: The name of the distribution; that of the plugin where its metadata is damaged.
        version: Its version; None where its metadata is damaged.
    """

    name: str
    value: str
    dist: str
    version: str | None

    @property
    def target(self) -> str:
        """`value` without the extras that it needs."""
        return self.value.partition("[")[0].strip()

    def load(self) -> object:
        """Imports the module, and gives it or its attribute."""
        module, _, attributes = self.target.partition(":")
        names = filter(None, attributes.strip().split("."))
        return reduce(getattr, names, importlib.import_module(module.strip()))


def entry_points() -> list[EntryPoint]:
    """Those of the group, each once, without what is damaged in other packages."""
    folders = _declaring_folders()
    if folders is None:
        return list(dict.fromkeys(_by_metadata()))
    found: list[EntryPoint] = []
    for folder in folders:
        with suppress(Exception):  # it is damaged
            found += _declared_in(folder)
    return list(dict.fromkeys(found))


def _declaring_folders() -> list[str] | None:
    """The `.dist-info` directories that may declare the group, none that another one hides; None to read elsewhere."""
    from importlib.machinery import PathFinder

    if any(hasattr(finder, "find_distributions") and finder is not PathFinder for finder in sys.meta_path):
        return None  # it may search anywhere
    folders = []
    seen: set[str] = set()
    for place in sys.path:
        if not isinstance(place, str | os.PathLike):
            continue
        try:
            names = os.listdir(place or ".")
        except NotADirectoryError:  # a zip file, for example
            return None
        except (OSError, ValueError):
            continue
        for name in names:
            if not name.lower().endswith((".dist-info", "egg-info")):
                continue
            folder = os.path.join(place, name)
            declares = _names_group(os.path.join(folder, "entry_points.txt"))
            if declares and not name.endswith(".dist-info"):
                return None
            if (key := _distribution(name)) not in seen and declares:
                folders.append(folder)
            seen.add(key)
    return folders


def _names_group(file: str) -> bool:
    """Whether the file may have a section `[poolzoo]`: it occurs in it, however the line is spaced."""
    try:
        with open(file, "rb") as opened:
            return f"{GROUP}]".encode() in opened.read()
    except OSError:
        return False


def _distribution(folder: str) -> str:
    """The name of a distribution in the one spelling that all others mean, from that of its directory."""
    stem = os.path.splitext(folder)[0].partition("-")[0]
    return re.sub(r"[-_.]+", "-", stem).lower()


def _declared_in(folder: str) -> Iterator[EntryPoint]:
    """What one distribution declares.

    Raises:
        OSError, ValueError: Its entry points cannot be read.
    """
    pairs = list(_pairs(_read(os.path.join(folder, "entry_points.txt"))))
    dist = version = None
    with suppress(OSError, ValueError):
        head = _read(os.path.join(folder, "METADATA")).partition("\n\n")[0]
        headers = (line.partition(":") for line in head.splitlines())
        texts = {name.lower(): value.strip() for name, _, value in reversed(list(headers))}  # the first counts
        dist, version = texts.get("name"), texts.get("version")
    for section, name, value in pairs:
        if section == GROUP:
            yield EntryPoint(name, value, dist or name, version)


def _read(file: str) -> str:
    with open(file, encoding="utf-8") as opened:
        return opened.read()


def _pairs(text: str) -> Iterator[tuple[str, str, str]]:
    """Section, name and value of each line of `entry_points.txt`.

    Raises:
        ValueError: A line is none.
    """
    section = ""
    for line in map(str.strip, text.splitlines()):
        if not line or line.startswith("#"):
            continue
        if line.startswith("[") and line.endswith("]"):
            section = line.strip("[]")
            continue
        name, equals, value = line.partition("=")
        if section and not equals:
            raise ValueError(f"{line!r} has no =")
        yield section, name.strip(), value.strip()


def _by_metadata() -> Iterator[EntryPoint]:
    from importlib import metadata

    try:
        found = list(metadata.entry_points(group=GROUP))
    except Exception:  # one package's file cannot be read, and all of them are out of reach
        found = []
        for dist in metadata.distributions():
            with suppress(Exception):
                found += dist.entry_points.select(group=GROUP)
    for point in found:
        yield EntryPoint(point.name, point.value, *_release(point.name, point.dist))


def _release(name: str, dist: metadata.Distribution | None) -> tuple[str, str | None]:
    try:
        return (dist.name or name, dist.version) if dist is not None else (name, None)
    except Exception:  # damaged metadata
        return name, None
