"""Finds plugins, loads each in isolation, and keeps the process's catalog.

What goes wrong with one plugin becomes a `Problem` and stops nothing else.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Literal

import pluggy

from poolzoo import options as grammar
from poolzoo import output, spec
from poolzoo.catalog import EVENTS, Catalog, Entry, Failure, Item, Resolved, Source, problem_of
from poolzoo.errors import PluginError, UsageError

BUILT_IN: Final = ("poolzoo.poolings", "poolzoo.backbones", "poolzoo.data")
MAX_ITEMS: Final = 1000  # of one hook of one plugin; an endless generator ends here
TIERS: Final = ("file", "directory", "installed", "built-in")  # in order of precedence

_HOOKS: Final[dict[str, tuple[type, ...]]] = {
    "poolzoo_poolings": (spec.Pooling,),
    "poolzoo_backbones": (spec.Backbone, spec.BackboneFamily),
    "poolzoo_datasets": (spec.Dataset,),
}


@dataclass(frozen=True)
class Candidate:
    """A plugin that was found and not yet imported."""

    name: str
    source: Source
    load: Callable[[], object]


# --- Finding -------------------------------------------------------------------------------------------------------


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
    source = Source(dist.name if dist else entry_point.name, dist.version if dist else None, "installed")
    return Candidate(entry_point.name, source, entry_point.load)


def _from_module(name: str) -> Candidate:
    from poolzoo._version import __version__

    return Candidate(name, Source("poolzoo", __version__, "built-in"), lambda: importlib.import_module(name))


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
    named = dict.fromkeys(path.resolve() for path in files)
    beside = dict.fromkeys(p.resolve() for folder in directories for p in folder.glob("*.py") if p.name[0] not in "._")
    found = [_from_file(path, "file") for path in named]
    found += [_from_file(path, "directory") for path in beside if path not in named]
    if installed:
        found += [_from_entry_point(one) for one in importlib.metadata.entry_points(group=spec.PROJECT)]
    found.sort(key=lambda candidate: (TIERS.index(candidate.source.tier), candidate.source.dist, candidate.name))
    return [*(_from_module(name) for name in BUILT_IN), *found]


# --- Loading -------------------------------------------------------------------------------------------------------


def load(candidates: Iterable[Candidate]) -> Catalog:
    """Imports and registers each candidate alone, and collects what they offer."""
    manager = pluggy.PluginManager(spec.PROJECT)
    manager.add_hookspecs(spec)
    catalog = Catalog(manager)
    for candidate in candidates:
        with redirect_stdout(sys.stderr):  # stdout carries data; a plugin that prints must not spoil it
            _load_one(catalog, candidate)
    return catalog


def _load_one(catalog: Catalog, candidate: Candidate) -> None:
    source = candidate.source
    key = f"{source.tier}:{source.dist}:{source.path or candidate.name}"

    def fail(stage: str, error: BaseException | str, hint: str) -> None:
        catalog.problems.append(problem_of(candidate.name, source, stage, error, hint))

    where = source.path or source.dist
    try:
        plugin = candidate.load()
    except Failure as error:
        return fail("import", error, f"mend {where}, or leave it out (--no-plugins)")
    version = getattr(plugin, "POOLZOO_API", 1)
    if not isinstance(version, int) or not 1 <= version <= spec.API_VERSION:
        hint = "update poolzoo" if isinstance(version, int) else "POOLZOO_API must be a whole number"
        return fail("API version", f"POOLZOO_API = {version!r}, this poolzoo speaks {spec.API_VERSION}", hint)
    misspelt = [name for name in _hookimpl_names(plugin) if name not in (*_HOOKS, *EVENTS)]
    if misspelt:
        near = grammar.suggest(misspelt[0], (*_HOOKS, *EVENTS))
        return fail(
            "hook names", f"there is no hook {misspelt[0]!r}", near or f"hooks: {', '.join((*_HOOKS, *EVENTS))}"
        )
    try:
        catalog.manager.register(plugin, name=key)
    except Failure as error:
        if catalog.manager.get_plugin(key) is plugin:  # pluggy leaves a plugin registered whose hooks it refused
            catalog.manager.unregister(name=key)
        return fail("register", error, f"mend {where}: its hooks' arguments must be those of the documentation")
    catalog.sources[key] = source
    for hook, types in _HOOKS.items():
        for implementation in getattr(catalog.manager.hook, hook).get_hookimpls():
            if implementation.plugin_name == key:
                for stage, reason in _collect(catalog, source, hook, implementation.function, types):
                    fail(
                        stage, reason, f"mend {where}: {hook} returns {' or '.join(t.__name__ for t in types)} objects"
                    )
    return None


def _hookimpl_names(plugin: object) -> list[str]:
    members = inspect.getmembers(plugin, callable)
    return [name for name, member in members if hasattr(member, f"{spec.PROJECT}_impl")]


def _collect(
    catalog: Catalog, source: Source, hook: str, function: Callable[[], Any], types: tuple[type, ...]
) -> Iterator[tuple[Literal["call", "item type", "item name"], BaseException | str]]:
    """Takes the items of one hook over; yields the stage and the error of everything that could not be taken."""
    items: list[object] = []
    try:
        for item in islice(iter(function()), MAX_ITEMS + 1):
            items.append(item)
    except Failure as error:
        yield "call", error
    if len(items) > MAX_ITEMS:
        yield "call", f"{hook} yields more than {MAX_ITEMS} items; the rest is left out"
        del items[MAX_ITEMS:]
    for item in items:
        if not isinstance(item, types):
            yield "item type", f"{hook} gave {type(item).__name__} {item!r:.80}"
            continue
        assert isinstance(item, spec.Pooling | spec.Backbone | spec.BackboneFamily | spec.Dataset)
        same = [e for e in catalog.entries if _clash(e.item, item)]
        if any(e.source.dist == source.dist for e in same):
            yield "item name", f"{item.name!r} is offered twice by {source.dist}"
            continue
        if same:
            first = same[0].source.dist
            yield "item name", f"{item.name!r} is {first}'s; this one is reachable as {source.dist}:{item.name}"
        catalog.entries.append(Entry(item, source))


def _clash(one: Item, other: Item) -> bool:
    """Whether a name could mean either of two items."""
    if isinstance(one, spec.Pooling) and isinstance(other, spec.Pooling):
        return (one.name, one.kind) == (other.name, other.kind)
    if isinstance(one, spec.BackboneFamily) and isinstance(other, spec.Backbone):
        return one.prefix == other.name.partition("/")[0]
    return type(one) is type(other) and one.name == other.name


# --- The process's catalog -----------------------------------------------------------------------------------------


@dataclass
class Settings:
    """What the command line says about plugins."""

    files: list[Path] = field(default_factory=list)
    directories: list[Path] = field(default_factory=list)
    installed: bool = True
    third_party: bool = True
    strict: bool = False


settings = Settings()
_catalog: Catalog | None = None


def catalog() -> Catalog:
    """The catalog of this process, loaded on first use; problems are reported once, on stderr.

    Raises:
        PluginError: A plugin failed and `--strict` was given.
    """
    global _catalog
    if _catalog is None:
        directories = list(settings.directories)
        if named := os.environ.get("POOLZOO_PLUGINS_DIR"):
            if not Path(named).is_dir():
                raise UsageError(
                    f"POOLZOO_PLUGINS_DIR names no directory: {named!r}", "unset it, or make the directory"
                )
            directories.append(Path(named))
        found = find(settings.files, directories, settings.installed) if settings.third_party else find(installed=False)
        _catalog = load(found)
        for problem in _catalog.problems[1 if settings.strict else 0 :]:  # a strict error says the first itself
            output.warn(str(problem), problem.hint)
    if settings.strict and _catalog.problems:
        first = _catalog.problems[0]
        raise PluginError(str(first), first.hint)
    return _catalog


def load_plugins(*files: str | os.PathLike[str], installed: bool = True) -> Catalog:
    """Loads plugins from Python: the files given and, unless told not to, the installed ones.

    Returns:
        The catalog, which `create_pooling`, `create_model` and the rest use from then on. Its `problems` say what
        could not be loaded.
    """
    global _catalog
    settings.files = [Path(file) for file in files]
    settings.installed = installed
    _catalog = None
    return catalog()


def forget() -> None:
    """Drops the loaded catalog and the settings, so that the next call starts anew."""
    global _catalog, settings
    _catalog = None
    settings = Settings()


__all__ = ["Catalog", "Entry", "Failure", "Resolved", "Source", "catalog", "forget", "load_plugins", "settings"]
