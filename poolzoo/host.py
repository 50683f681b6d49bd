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
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NoReturn

import pluggy

from poolzoo import disabled, guard, output, spec
from poolzoo import options as grammar
from poolzoo.catalog import EVENTS, Catalog, Entry, Failure, Item, Resolved, Source, points_nowhere, problem_of, shown
from poolzoo.errors import PluginError, UsageError

BUILT_IN: Final = ("poolzoo.poolings", "poolzoo.backbones", "poolzoo.data")
MAX_ITEMS: Final = 1000  # of one hook of one plugin; an endless generator ends here
TIERS: Final = ("file", "directory", "installed", "built-in")  # in order of precedence

HOOKS: Final[dict[str, tuple[type, ...]]] = {
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
    module: str = ""  # of an installed one, as "package.module" or "package.module:attribute"

    @property
    def where(self) -> str:
        """What there is to mend."""
        return self.source.path or self.source.dist

    def answers_to(self, name: str) -> bool:
        """Whether a user means this plugin by `name`: its distribution's or its own."""
        same = {re.sub(r"[-_.]+", "-", one).lower() for one in (self.source.dist, self.name)}
        return bool(name) and re.sub(r"[-_.]+", "-", name).lower() in same


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
    try:
        name, version = (str(dist.name), str(dist.version)) if dist else (entry_point.name, None)
    except Exception:  # damaged metadata
        name, version = entry_point.name, None
    return Candidate(entry_point.name, Source(name, version, "installed"), entry_point.load, entry_point.value)


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
        points = {(p.name, p.value): p for p in importlib.metadata.entry_points(group=spec.PROJECT)}
        found += [_from_entry_point(point) for point in points.values()]
    found.sort(key=lambda candidate: (TIERS.index(candidate.source.tier), candidate.source.dist, candidate.name))
    return [*(_from_module(name) for name in BUILT_IN), *found]


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


# --- Loading -------------------------------------------------------------------------------------------------------


def load(candidates: Iterable[Candidate], prefer: Sequence[str] = ()) -> Catalog:
    """Imports and registers each candidate alone, and collects what they offer.

    Args:
        candidates: What was found, in order of precedence.
        prefer: Distributions whose items a bare name means where others have it too.
    """
    manager = pluggy.PluginManager(spec.PROJECT)
    manager.add_hookspecs(spec)
    catalog = Catalog(manager, tuple(prefer))
    for candidate in candidates:
        if candidate.source.tier == "built-in":
            _Loading(catalog, candidate).run()
            continue
        state = guard.GlobalState()
        with guard.stdout_to_stderr():
            _Loading(catalog, candidate).run()
        if changed := state.put_back():
            hint = f"{candidate.where} must not do that when it is imported; it was put back"
            text = f"changed {', '.join(changed)}"
            catalog.problems.append(problem_of(candidate.name, candidate.source, "global state", text, hint))
    return catalog


class _Failed(Exception):
    """A stage that ends the loading of a plugin; its problem is noted."""


@dataclass
class _Loading:
    """One plugin on its way into the catalog, stage by stage; each is caught alone."""

    catalog: Catalog
    candidate: Candidate

    def run(self) -> None:
        with suppress(_Failed):
            self._read()
            plugin = self._try("import", self.candidate.load, f"mend {self.where}, or leave it out (--no-plugins)")
            self._note_file()
            self._check_version(plugin)
            self._check_hook_names(plugin)
            self._register(plugin)
            for hook, types in HOOKS.items():
                self._collect(hook, types)

    @property
    def where(self) -> str:
        return self.candidate.where

    @property
    def key(self) -> str:
        source = self.candidate.source
        return f"{source.tier}:{source.dist}:{source.path or self.candidate.name}"

    def _note(self, stage: str, error: BaseException | str, hint: str) -> None:
        self.catalog.problems.append(problem_of(self.candidate.name, self.candidate.source, stage, error, hint))

    def _fail(self, stage: str, error: BaseException | str, hint: str) -> NoReturn:
        self._note(stage, error, hint)
        raise _Failed

    def _try(self, stage: str, function: Callable[[], Any], hint: str) -> Any:
        """The result of other people's code; what it throws ends the loading."""
        result, error = guard.attempt(function)
        if isinstance(error, guard.OutOfTime):
            hint = f"{self.where} must not do long work there; import heavy packages inside build"
        if error is not None:
            self._fail(stage, error, hint)
        return result

    def _read(self) -> None:
        if self.candidate.source.path is not None:
            path = Path(self.candidate.source.path)
            self._try("read", path.read_bytes, "a plugin is a Python file that you may read")

    def _note_file(self) -> None:
        """Adds the file of an installed plugin's module to its source, for provenance."""
        if self.candidate.source.tier == "installed":
            module = sys.modules.get(self.candidate.module.partition(":")[0])
            file = getattr(module, "__file__", None)
            source = replace(self.candidate.source, module_file=file)
            self.candidate = replace(self.candidate, source=source)

    def _check_version(self, plugin: object) -> None:
        version = self._try("API version", lambda: getattr(plugin, "POOLZOO_API", 1), f"mend {self.where}")
        if type(version) is not int or version < 1:
            self._fail(
                "API version", f"POOLZOO_API = {version!r:.80}", "POOLZOO_API must be a whole number, 1 or above"
            )
        if version > spec.API_VERSION:
            text = f"it is made for version {version} of the plugin API, this poolzoo speaks {spec.API_VERSION}"
            self._fail("API version", text, "update poolzoo, or install an older version of the plugin")

    def _check_hook_names(self, plugin: object) -> None:
        known = (*HOOKS, *EVENTS)
        names = self._try("hook names", lambda: _hookimpl_names(plugin), f"mend {self.where}")
        for name in names:
            if name not in known:
                near = grammar.suggest(name, known)
                self._fail("hook names", f"there is no hook {name!r}", near or f"hooks: {', '.join(known)}")

    def _register(self, plugin: object) -> None:
        manager = self.catalog.manager
        with warnings.catch_warnings(record=True) as deprecated:
            warnings.simplefilter("always", DeprecationWarning)  # pluggy's, where a hook is marked warn_on_impl
            result, error = guard.attempt(manager.register, plugin, self.key)
        if error is not None or result is None:
            if manager.get_plugin(self.key) is plugin:  # pluggy leaves a plugin registered whose hooks it refused
                manager.unregister(name=self.key)
            hint = f"mend {self.where}: a hook's arguments must be some of those of its documentation (docs/plugins.md)"
            self._fail("register", error or "pluggy refused it", hint)
        self.catalog.sources[self.key] = self.candidate.source
        for warning in deprecated if self.candidate.source.tier != "built-in" else ():
            self._note("deprecated", str(warning.message), f"{self.where} works today and should be brought up to date")

    def _collect(self, hook: str, types: tuple[type, ...]) -> None:
        """Takes the items of one hook over, those that are what they should be."""
        for implementation in getattr(self.catalog.manager.hook, hook).get_hookimpls():
            if implementation.plugin_name != self.key:
                continue
            kinds = " or ".join(t.__name__ for t in types)
            items: list[object] = []
            _, error = guard.attempt(lambda f=implementation.function, i=items: i.extend(islice(f(), MAX_ITEMS + 1)))
            if error is not None:
                self._note("call", error, f"mend {self.where}: {hook} returns {kinds} objects")
            if len(items) > MAX_ITEMS:
                self._note("call", f"{hook} yields more than {MAX_ITEMS} items; the rest is left out", "yield fewer")
            for item in items[:MAX_ITEMS]:
                text: BaseException | str | None = f"{hook} gave {type(item).__name__} {shown(item)}"
                if isinstance(item, types):
                    _, text = guard.attempt(self._take, item)  # a subclass may do anything when it is read
                if text is not None:
                    self._note("item type", text, f"mend {self.where}: {hook} returns {kinds} objects")

    def _take(self, item: Item) -> None:
        """Adds one item, unless the same plugin has offered it, or its build points nowhere."""
        source = self.candidate.source
        same = self.catalog.named_alike(item)
        if any(e.source.dist == source.dist and e.source.path == source.path for e in same):
            return self._note("item name", f"{item.name!r} is offered twice by {source.dist}", "offer each name once")
        for part in ("build", "network") if source.tier != "built-in" else ():
            target = getattr(item, part, None)
            if isinstance(target, str) and (reason := points_nowhere(target)):
                hint = f"mend {self.where}, or install its package first"
                return self._note("build", f"{part} of {item.name!r}: {reason}", hint)
        if same and source.dist not in self.catalog.prefer:
            first = same[0].source.dist
            text = f"{item.name!r} is {first}'s; this one is reachable as {source.dist}:{item.name}"
            self._note("item name", text, f"write {source.dist}:{item.name}, or --prefer {source.dist}")
        self.catalog.add(Entry(item, source))
        return None


def _hookimpl_names(plugin: object) -> list[str]:
    members = inspect.getmembers(plugin, callable)
    return [name for name, member in members if hasattr(member, f"{spec.PROJECT}_impl")]


# --- The process's catalog -----------------------------------------------------------------------------------------


@dataclass
class Settings:
    """What the command line says about plugins."""

    files: list[Path] = field(default_factory=list)
    directories: list[Path] = field(default_factory=list)
    installed: bool = True
    third_party: bool = True
    strict: bool = False
    prefer: list[str] = field(default_factory=list)


settings = Settings()
_catalog: Catalog | None = None


def catalog() -> Catalog:
    """The catalog of this process, loaded on first use; problems are reported once, on stderr.

    Raises:
        PluginError: A plugin failed and `--strict` was given.
    """
    global _catalog
    if _catalog is None:
        found = candidates()
        if unknown := [name for name in settings.prefer if not any(one.answers_to(name) for one in found)]:
            raise UsageError(f"--prefer {unknown[0]!r}: no such plugin", "poolzoo plugin list shows their names")
        _catalog = load(admitted(found), settings.prefer)
        for problem in _catalog.problems[1 if settings.strict else 0 :]:  # a strict error says the first itself
            output.warn(str(problem), problem.hint)
    if settings.strict and _catalog.problems:
        first = _catalog.problems[0]
        raise PluginError(str(first), first.hint)
    return _catalog


def candidates() -> list[Candidate]:
    """Every plugin that the command line and the environment let in, imported or not, disabled or not.

    Raises:
        UsageError: A file or directory that was named does not exist.
    """
    if not settings.third_party:
        return find(installed=False)
    directories = list(settings.directories)
    if named := os.environ.get("POOLZOO_PLUGINS_DIR"):
        if not Path(named).is_dir():
            raise UsageError(f"POOLZOO_PLUGINS_DIR names no directory: {named!r}", "unset it, or make the directory")
        directories.append(Path(named))
    return find(settings.files, directories, settings.installed)


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


def use(catalog: Catalog) -> None:
    """Makes a catalog the process's own."""
    global _catalog
    _catalog = catalog


def forget() -> None:
    """Drops the loaded catalog and the settings, so that the next call starts anew."""
    global _catalog, settings
    _catalog = None
    settings = Settings()


__all__ = ["Catalog", "Entry", "Failure", "Resolved", "Source", "catalog", "forget", "load_plugins", "settings"]
