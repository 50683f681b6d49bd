"""Finds plugins: built-in modules, files, directories and installed entry points; imports none of them."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Final

from poolzoo.common.errors import UsageError
from poolzoo.common.opening import absence
from poolzoo.plugin import disabled
from poolzoo.plugin.entry_points import EntryPoint, entry_points
from poolzoo.plugin.problems import Source

if TYPE_CHECKING:
    from pathlib import Path

BUILT_IN: Final = ("poolzoo.poolings", "poolzoo.backbones", "poolzoo.datasets", "poolzoo.runtime.builtin")
FILE_MODULE: Final = "poolzoo_plugin_"  # and a hash: the name of the module of a plugin that is a file
TIERS: Final = ("file", "directory", "installed", "built-in")  # in order of precedence


@dataclass(frozen=True, eq=False)
class Candidate:
    """A plugin that was found and not yet imported."""

    name: str
    source: Source
    load: Callable[[], object]
    module: str = ""  # of an installed one, as "package.module" or "package.module:attribute"

    @property
    def where(self) -> str:
        """What there is to fix: the file, or the distribution."""
        return self.source.path or self.source.dist

    def answers_to(self, name: str) -> bool:
        """Whether a user means this plugin by `name`: its distribution's or its own."""
        same = {re.sub(r"[-_.]+", "-", one).lower() for one in (self.source.dist, self.name)}
        return bool(name) and re.sub(r"[-_.]+", "-", name).lower() in same


def find(files: Sequence[Path] = (), directories: Sequence[Path] = (), installed: bool = True) -> list[Candidate]:
    """Every plugin there is, in order of precedence and then of name; imports none of them.

    Raises:
        UsageError: A file or directory that was named does not exist.
    """
    for path in files:
        if not os.path.isfile(path):
            raise UsageError(f"plugin file {str(path)!r} {absence(path)}", "give the path of a Python file")
    for directory in directories:
        if not os.path.isdir(directory):
            raise UsageError(
                f"plugin directory {str(directory)!r} {absence(directory, 'directory')}", "give the path of a directory"
            )
    named = dict.fromkeys(os.path.abspath(path) for path in files)
    beside = dict.fromkeys(file for directory in directories for file in _python_files(directory))
    found = [_from_file(path, "file") for path in named]
    found += [_from_file(path, "directory") for path in beside if path not in named]
    if installed:
        found += [_from_entry_point(point) for point in entry_points()]
    found.sort(key=lambda candidate: (TIERS.index(candidate.source.tier), candidate.source.dist, candidate.name))
    return [*(_from_module(name) for name in BUILT_IN), *found]


def _python_files(directory: Path) -> list[str]:
    names = (name for name in os.listdir(directory) if name.endswith(".py") and name[0] not in "._")
    return [os.path.abspath(os.path.join(directory, name)) for name in names]


def _from_module(name: str) -> Candidate:
    from poolzoo._version import __version__

    source = Source("poolzoo", __version__, "built-in")
    return Candidate(name, source, load=lambda: importlib.import_module(name), module=name)


def _from_file(path: str, tier: str) -> Candidate:
    name = os.path.splitext(os.path.basename(path))[0]
    return Candidate(name, Source(name, None, tier, path), load=lambda: _load_file(path))


def _from_entry_point(point: EntryPoint) -> Candidate:
    return Candidate(point.name, Source(point.dist, point.version, "installed"), load=point.load, module=point.target)


def _load_file(path: str) -> ModuleType:
    import hashlib

    from poolzoo.common import python_file

    digest = hashlib.sha256(path.encode(errors="surrogateescape")).hexdigest()[:12]
    return python_file.load(f"{FILE_MODULE}{digest}", path)


def source_file(candidate: Candidate) -> str | None:
    """The file of a plugin's module, found without importing it or a package that it is in."""
    if candidate.source.path is not None:
        return candidate.source.path
    package, *rest = candidate.module.partition(":")[0].split(".")
    try:
        found = importlib.util.find_spec(package)  # of a top-level name: imports nothing
    except (ImportError, ValueError):
        return None
    if found is None or found.origin is None:
        return None
    place = found.origin
    for name in rest:
        folder, file = os.path.split(place)
        if file != "__init__.py":
            folder = os.path.splitext(place)[0]
        inside = (os.path.join(folder, name, "__init__.py"), os.path.join(folder, f"{name}.py"))
        place = next((path for path in inside if os.path.exists(path)), "")
        if not place:
            return None
    return place


def duplicates(candidates: Iterable[Candidate]) -> dict[Candidate, Candidate]:
    """Those that are the same object of the same file as an earlier one, with that one.

    Such are a project that was renamed and is installed under both names, and a file that is named and installed too.
    """
    first: dict[tuple[str, str], Candidate] = {}
    found = {}
    for candidate in candidates:
        file = source_file(candidate)
        module, _, attribute = candidate.module.partition(":")
        other = first.setdefault((os.path.realpath(file) if file else module, attribute), candidate)
        if other is not candidate:
            found[candidate] = other
    return found


def admitted(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Those that are to be loaded: what is built in or named as a file, and the rest unless it is excluded.

    `POOLZOO_PLUGINS=a,b` admits those alone ("" none), `poolzoo plugin disable` excludes one.
    """
    off = disabled.read()
    return [candidate for candidate in candidates if not why_excluded(candidate, off)]


def why_excluded(candidate: Candidate, off: Sequence[str]) -> str:
    """Why a plugin is not to be loaded, or ""; `off` are the names that the user has disabled."""
    if candidate.source.tier in ("built-in", "file"):
        return ""
    allowed = os.environ.get("POOLZOO_PLUGINS")
    if allowed is not None and not any(candidate.answers_to(name.strip()) for name in allowed.split(",")):
        return "not in POOLZOO_PLUGINS"
    return "disabled" if any(candidate.answers_to(name) for name in off) else ""
