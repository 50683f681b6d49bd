"""Finds plugins, loads each in isolation, and keeps the process's catalog.

What goes wrong with one plugin becomes a `Problem` and stops nothing else.
"""

from __future__ import annotations

import inspect
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Final, NoReturn

import pluggy

from poolzoo.common import output
from poolzoo.common.errors import PluginError, UsageError
from poolzoo.plugin import grammar, isolation, spec, values
from poolzoo.plugin.catalog import EVENTS, Catalog, Entry, Failure, Resolved, points_nowhere
from poolzoo.plugin.discovery import Candidate, admitted, duplicates, find
from poolzoo.plugin.problems import Source, problem_of, shown, told
from poolzoo.plugin.settings import settings
from poolzoo.plugin.values import Item

MAX_ITEMS: Final = 1000  # of one hook of one plugin; an endless generator ends here

HOOKS: Final[dict[str, tuple[type[Item], ...]]] = {
    "poolzoo_poolings": (spec.Pooling,),
    "poolzoo_backbones": (spec.Backbone, spec.BackboneFamily),
    "poolzoo_datasets": (spec.Dataset,),
}


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
    everything = list(candidates)
    same = duplicates(everything)
    for candidate, twin in same.items():
        catalog.join(candidate.name, candidate.source, twin.source)
    for candidate in everything:
        if candidate.source.tier == "built-in":
            _Loading(catalog, candidate).run()
        elif candidate not in same:
            with _contained(catalog, candidate):
                _Loading(catalog, candidate).run()
    return catalog


@contextmanager
def _contained(catalog: Catalog, candidate: Candidate) -> Iterator[None]:
    """Within it a plugin may print, warn and change global state: the first goes to stderr, the last is undone."""
    state = isolation.GlobalState()
    with warnings.catch_warnings(record=True) as warned, isolation.stdout_to_stderr():
        yield
    for first in warned[:1]:  # it may have warned a thousand times
        with suppress(Exception):  # filters that make it an error, a class of its own that raises
            warnings.warn_explicit(values.text(str(first.message)), first.category, first.filename, first.lineno)
    if changed := state.put_back():
        hint = f"{candidate.where} must not do that when it is imported; it was put back"
        text = f"changed {', '.join(changed)}"
        catalog.problems.append(problem_of(candidate.name, candidate.source, "global state", text, hint))


class _Failed(Exception):
    """A stage that ends the loading of a plugin; why is noted."""


class _NoItemError(Exception):
    """What a hook gave is nothing that it may give."""


@dataclass
class _Loading:
    """One plugin on its way into the catalog, stage by stage; each is caught alone."""

    catalog: Catalog
    candidate: Candidate

    def run(self) -> None:
        with suppress(_Failed):
            self._read()
            plugin = self._try("import", self.candidate.load, f"mend {self.where}")
            self._note_file()
            self._check_version(plugin)
            hooks = self._hooks(plugin)
            owners = [self.catalog.owner(function) for function in hooks.values()]
            if owners and (first := owners[0]) is not None and None not in owners:
                self.catalog.join(*self.me, first[1])
                raise _Failed
            self._register(plugin)
            self.catalog.hooks[self.me] = hooks
            for hook, types in HOOKS.items():
                self._collect(hook, types)

    @property
    def me(self) -> tuple[str, Source]:
        return self.candidate.name, self.candidate.source

    @property
    def where(self) -> str:
        return self.candidate.where

    @property
    def key(self) -> str:
        source = self.candidate.source
        return f"{source.tier}:{source.dist}:{source.path or self.candidate.name}"

    def _note(self, stage: str, error: BaseException | str, hint: str, *, clash: bool = False) -> None:
        self.catalog.problems.append(problem_of(*self.me, stage, error, hint, clash=clash))

    def _fail(self, stage: str, error: BaseException | str, hint: str) -> NoReturn:
        self._note(stage, error, hint)
        raise _Failed

    def _attempt(self, function: Callable[..., Any], *arguments: Any) -> tuple[Any, BaseException | None]:
        return isolation.attempt(function, *arguments, limited=self.candidate.source.tier != "built-in")

    def _try(self, stage: str, function: Callable[[], Any], hint: str) -> Any:
        """The result of other people's code; what it throws ends the loading."""
        result, error = self._attempt(function)
        if isinstance(error, isolation.OutOfTime):
            hint = f"{self.where} must not do long work there; import heavy packages inside build"
        if error is not None:
            self._fail(stage, error, hint)
        return result

    def _read(self) -> None:
        if (path := self.candidate.source.path) is not None:
            self._try("read", lambda: _read(path), "a plugin is a Python file that you may read")

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
                "API version", f"POOLZOO_API = {shown(version)}", "POOLZOO_API must be a whole number, 1 or above"
            )
        if version > spec.API_VERSION:
            text = f"it is made for version {version} of the plugin API, this poolzoo speaks {spec.API_VERSION}"
            self._fail("API version", text, "update poolzoo, or install an older version of the plugin")

    def _hooks(self, plugin: object) -> dict[str, Callable[..., Any]]:
        """The plugin's hooks by name."""
        known = (*HOOKS, *EVENTS)
        found: dict[str, Callable[..., Any]] = self._try("hook names", lambda: _hookimpls(plugin), f"mend {self.where}")
        for name in found:
            if name not in known:
                near = grammar.suggest(name, known)
                self._fail("hook names", f"there is no hook {name!r}", near or f"hooks: {', '.join(known)}")
        return found

    def _register(self, plugin: object) -> None:
        manager = self.catalog.manager
        with warnings.catch_warnings(record=True) as deprecated:
            warnings.simplefilter("always", DeprecationWarning)  # pluggy's, where a hook is marked warn_on_impl
            result, error = self._attempt(manager.register, plugin, self.key)
        if error is not None or result is None:
            if manager.get_plugin(self.key) is plugin:  # pluggy leaves a plugin registered whose hooks it refused
                manager.unregister(name=self.key)
            hint = f"mend {self.where}: a hook's arguments must be some of those of its documentation (docs/plugins.md)"
            self._fail("register", error or "pluggy refused it", hint)
        self.catalog.sources[self.key] = self.candidate.source
        for warning in deprecated if self.candidate.source.tier != "built-in" else ():
            self._note("deprecated", str(warning.message), f"{self.where} works today and should be brought up to date")

    def _collect(self, hook: str, types: tuple[type[Item], ...]) -> None:
        """Takes the items of one hook over, those that are what they should be."""
        for implementation in getattr(self.catalog.manager.hook, hook).get_hookimpls():
            if implementation.plugin_name != self.key or self.catalog.owner(implementation.function) != self.me:
                continue
            kinds = " or ".join(t.__name__ for t in types)
            items: list[object] = []
            _, error = self._attempt(_extend, items, implementation.function)
            if error is not None:
                self._note("call", error, f"mend {self.where}: {hook} returns {kinds} objects")
            if len(items) > MAX_ITEMS:
                self._note("call", f"{hook} yields more than {MAX_ITEMS} items; the rest is left out", "yield fewer")
            for item in items[:MAX_ITEMS]:
                _, error = self._attempt(self._take, item, types)  # one may do anything when it is read
                if error is not None:
                    text = f"{hook} {error}" if isinstance(error, _NoItemError) else error
                    self._note("item type", text, f"mend {self.where}: {hook} returns {kinds} objects")

    def _take(self, given: Any, types: tuple[type[Item], ...]) -> None:
        """Adds one item, unless the same plugin has offered it, or its build points nowhere."""
        if not isinstance(given, types):
            raise _NoItemError(f"gave {type(given).__name__} {shown(given)}")
        source = self.candidate.source
        item: Item = given if source.tier == "built-in" else values.item(given)
        same = self.catalog.named_alike(item)
        if any(e.source.dist == source.dist and e.source.path == source.path for e in same):
            return self._note("item name", f"{item.name!r} is offered twice by {source.dist}", "offer each name once")
        for part in ("build", "network") if source.tier != "built-in" else ():
            target = getattr(item, part, None)
            if isinstance(target, str) and (why := points_nowhere(target)):
                hint = f"mend {self.where}, or install its package first"
                return self._note("build", f"{part} of {item.name!r}: {why}", hint)
        if same and not self.catalog.prefers(source):
            first = same[0].source.dist
            text = f"{item.name!r} is {first}'s; this one is reachable as {source.dist}:{item.name}"
            hint = f"write {source.dist}:{item.name}, or --prefer {source.dist}"
            self._note("item name", text, hint, clash=True)
        self.catalog.add(Entry(item, source))
        return None


def _extend(items: list[object], hook: Callable[[], Iterable[object]]) -> None:
    items.extend(islice(hook(), MAX_ITEMS + 1))


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _hookimpls(plugin: object) -> dict[str, Callable[..., Any]]:
    members = inspect.getmembers(plugin, callable)
    return {name: member for name, member in members if hasattr(member, f"{spec.PROJECT}_impl")}


# --- The process's catalog -----------------------------------------------------------------------------------------


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
        lines = told(_catalog.problems)
        for text, hint in lines[1:] if settings.strict else lines:  # a strict error says the first itself
            output.warn(text, hint)
    if settings.strict and _catalog.problems:
        raise PluginError(*told(_catalog.problems)[0])
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
        if not os.path.isdir(named):
            raise UsageError(f"POOLZOO_PLUGINS_DIR names no directory: {named!r}", "unset it, or make the directory")
        from pathlib import Path

        directories.append(Path(named))
    return find(settings.files, directories, settings.installed)


def load_plugins(*files: str | os.PathLike[str], installed: bool = True) -> Catalog:
    """Loads plugins from Python: the files given and, unless told not to, the installed ones.

    Returns:
        The catalog, which `create_pooling`, `create_model` and the rest use from then on. Its `problems` say what
        could not be loaded.
    """
    from pathlib import Path

    global _catalog
    settings.files = [Path(file) for file in files]
    settings.installed = installed
    _catalog = None
    return catalog()


def conclude() -> None:
    """Tells, at the end of a command, how often plugins failed at events."""
    if _catalog is not None:
        _catalog.conclude()


def use(catalog: Catalog) -> None:
    """Makes a catalog the process's own."""
    global _catalog
    _catalog = catalog


def forget() -> None:
    """Drops the loaded catalog and the settings, so that the next call starts anew."""
    global _catalog
    _catalog = None
    settings.reset()


__all__ = ["Catalog", "Entry", "Failure", "Resolved", "Source", "catalog", "forget", "load_plugins", "settings"]
