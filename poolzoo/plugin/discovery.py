"""Finds plugins: built-in modules, files, directories and installed entry points; imports none of them."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Final

from poolzoo.common.errors import UsageError
from poolzoo.plugin import disabled, spec
from poolzoo.plugin.problems import Source

BUILT_IN: Final = ("poolzoo.poolings", "poolzoo.backbones", "poolzoo.datasets")
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
        """What there is to mend."""
        return self.source.path or self.source.dist

    def answers_to(self, name: str) -> bool:
        """Whether a user means this plugin by `name`: its distribution's or its own."""
        same = {re.sub(r"[-_.]+", "-", one).lower() for one in (self.source.dist, self.name)}
        return bool(name) and re.sub(r"[-_.]+", "-", name).lower() in same


def _load_file(path: Path) -> ModuleType:
    module_spec = importlib.util.spec_from_file_location(
        f"poolzoo_plugin_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}", path
    )
    if module_spec is None or module_spec.loader is None:
        raise ImportError(f"{path.name} is not a Python file")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[module_spec.name] = module
    try:
        module_spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_spec.name]
        raise
    return module


def _from_file(path: Path, tier: str) -> Candidate:
    return Candidate(path.stem, Source(path.stem, None, tier, str(path)), lambda: _load_file(path))


def _from_entry_point(entry_point: importlib.metadata.EntryPoint) -> Candidate:
    dist = entry_point.dist
    try:
        name, version = (str(dist.name), str(dist.version)) if dist else (entry_point.name, None)
    except Exception:  # damaged metadata
        name, version = entry_point.name, None
    module = entry_point.value.partition("[")[0].strip()  # without what it needs installed
    return Candidate(entry_point.name, Source(name, version, "installed"), entry_point.load, module)


def _entry_points() -> list[importlib.metadata.EntryPoint]:
    """Those of the group `poolzoo`, without what is damaged in other packages."""
    try:
        found = list(importlib.metadata.entry_points(group=spec.PROJECT))
    except Exception:  # one package's file cannot be read, and all of them are out of reach
        found = []
        for dist in importlib.metadata.distributions():
            with suppress(Exception):
                found += dist.entry_points.select(group=spec.PROJECT)
    return list({(p.name, p.value, getattr(p.dist, "_path", None)): p for p in found}.values())


def _from_module(name: str) -> Candidate:
    from poolzoo._version import __version__

    return Candidate(name, Source("poolzoo", __version__, "built-in"), lambda: importlib.import_module(name), name)


def find(files: Sequence[Path] = (), directories: Sequence[Path] = (), installed: bool = True) -> list[Candidate]:
    """Every plugin there is, in order of precedence and then of name; imports none of them.

    Raises:
        UsageError: A file or directory that was named does not exist.
    """
    for path in files:
        if not path.is_file():
            raise UsageError(f"plugin file {str(path)!r} does not exist", "give the path of a Python file")
    for directory in directories:
        if not directory.is_dir():
            raise UsageError(f"plugin directory {str(directory)!r} does not exist", "give the path of a directory")
    named = dict.fromkeys(Path(os.path.abspath(path)) for path in files)
    beside = dict.fromkeys(
        Path(os.path.abspath(p)) for folder in directories for p in folder.glob("*.py") if p.name[0] not in "._"
    )
    found = [_from_file(path, "file") for path in named]
    found += [_from_file(path, "directory") for path in beside if path not in named]
    if installed:
        found += [_from_entry_point(point) for point in _entry_points()]
    found.sort(key=lambda candidate: (TIERS.index(candidate.source.tier), candidate.source.dist, candidate.name))
    return [*(_from_module(name) for name in BUILT_IN), *found]


def source_file(candidate: Candidate) -> Path | None:
    """The file of a plugin's module, found without importing it or a package that it is in."""
    if candidate.source.path is not None:
        return Path(candidate.source.path)
    package, *rest = candidate.module.partition(":")[0].split(".")
    try:
        found = importlib.util.find_spec(package)  # of a top-level name: imports nothing
    except (ImportError, ValueError):
        return None
    if found is None or found.origin is None:
        return None
    place = Path(found.origin)
    for name in rest:
        folder = place.parent if place.name == "__init__.py" else place.with_suffix("")
        place = next((p for p in (folder / name / "__init__.py", folder / f"{name}.py") if p.exists()), Path())
        if not place.name:
            return None
    return place


def twins(candidates: Iterable[Candidate]) -> dict[Candidate, Candidate]:
    """Those that are the same object of the same file as an earlier one, with that one: a project that was renamed and
    is installed under both names, or a file that is named and installed too."""
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
    """Those that are to be loaded: what is built in or named as a file, and the rest unless it is shut out.

    `POOLZOO_PLUGINS=a,b` admits those alone ("" none), `poolzoo plugin disable` shuts one out.
    """
    off = disabled.read()
    return [candidate for candidate in candidates if not shut_out(candidate, off)]


def shut_out(candidate: Candidate, off: Sequence[str]) -> str:
    """Why a plugin is not to be loaded, or ""; `off` are the names that the user has disabled."""
    if candidate.source.tier in ("built-in", "file"):
        return ""
    allowed = os.environ.get("POOLZOO_PLUGINS")
    if allowed is not None and not any(candidate.answers_to(name.strip()) for name in allowed.split(",")):
        return "not in POOLZOO_PLUGINS"
    return "disabled" if any(candidate.answers_to(name) for name in off) else ""
