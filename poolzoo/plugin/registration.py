"""Loads one plugin, stage by stage: imports it, checks its hooks, registers it, and takes over what it provides."""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import islice
from typing import Any, Final, NoReturn

from poolzoo.plugin import grammar, isolation, spec, values
from poolzoo.plugin.catalog import Catalog, Entry
from poolzoo.plugin.discovery import Candidate
from poolzoo.plugin.events import EVENTS
from poolzoo.plugin.imports import points_nowhere
from poolzoo.plugin.problems import Source, problem_of, short_repr
from poolzoo.plugin.values import Item

MAX_ENTRIES: Final = 1000  # of one hook of one plugin; an endless generator ends here
HOOKS: Final[dict[str, tuple[type[Item], ...]]] = {
    "poolzoo_poolings": (spec.Pooling,),
    "poolzoo_backbones": (spec.Backbone, spec.BackboneFamily),
    "poolzoo_datasets": (spec.Dataset, spec.DatasetSource),
    "poolzoo_runtimes": (spec.Runtime,),
}


_Call = Callable[..., tuple[Any, BaseException | None]]  # of other people's code, see `isolation.call`


def register(catalog: Catalog, candidate: Candidate) -> None:
    """Adds to the catalog what a plugin provides, and what went wrong with it; third-party code runs isolated."""
    if candidate.source.tier == "built-in":
        _Registration(catalog, candidate, isolation.call_unlimited).run()
        return
    with _contained(catalog, candidate), isolation.Limits() as limits:
        _Registration(catalog, candidate, limits.call).run()


@contextmanager
def _contained(catalog: Catalog, candidate: Candidate) -> Iterator[None]:
    """Within it a plugin may print, warn and change global state: the first goes to stderr, the last is undone."""
    state = isolation.GlobalState()
    with warnings.catch_warnings(record=True) as warned, isolation.printing_little(candidate.where):
        yield
    for first in warned[:1]:  # it may have warned a thousand times
        with suppress(Exception):  # filters that make it an error, a class of its own that raises
            warnings.warn_explicit(values.text(str(first.message)), first.category, first.filename, first.lineno)
    if changed := state.restore():
        hint = f"{candidate.where} must not do that when it is imported; the change was undone"
        text = f"changed {', '.join(changed)}"
        catalog.problems.append(problem_of(candidate.name, candidate.source, "global state", text, hint))


class _Failed(Exception):
    """A stage that ends the loading of a plugin; why is noted."""


class _WrongEntry(Exception):
    """What a hook gave is nothing that it may give."""


class _Registration:
    """One plugin on its way into the catalog; each stage is caught alone."""

    def __init__(self, catalog: Catalog, candidate: Candidate, call: _Call) -> None:
        self.catalog = catalog
        self.candidate = candidate
        self._call = call

    def run(self) -> None:
        with suppress(_Failed):
            self._read()
            plugin = self._try("import", self.candidate.load, f"fix {self.where}")
            self._note_file()
            self._check_version(plugin)
            hooks = self._hooks(plugin)
            owners = [self.catalog.owner(function) for function in hooks.values()]
            if owners and (first := owners[0]) is not None and None not in owners:
                self.catalog.add_duplicate(*self.plugin, first[1])
                return
            self._register(hooks)
            self.catalog.add_hooks(self.plugin, hooks)
            for hook, types in HOOKS.items():
                if hook in hooks and self.catalog.owner(hooks[hook]) == self.plugin:
                    self._collect(hook, hooks[hook], types)

    @property
    def plugin(self) -> tuple[str, Source]:
        return self.candidate.name, self.candidate.source

    @property
    def where(self) -> str:
        return self.candidate.where

    @property
    def key(self) -> str:
        """The plugin's name for pluggy."""
        source = self.candidate.source
        return f"{source.tier}:{source.dist}:{source.path or self.candidate.name}"

    def _note(self, stage: str, error: BaseException | str, hint: str, *, clash: bool = False) -> None:
        self.catalog.problems.append(problem_of(*self.plugin, stage, error, hint, clash=clash))

    def _fail(self, stage: str, error: BaseException | str, hint: str) -> NoReturn:
        self._note(stage, error, hint)
        raise _Failed

    def _try(self, stage: str, function: Callable[[], Any], hint: str) -> Any:
        """The result of the plugin's code; what it throws ends the loading."""
        result, error = self._call(function)
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
            self.candidate = replace(self.candidate, source=replace(self.candidate.source, module_file=file))

    def _check_version(self, plugin: object) -> None:
        version = self._try("API version", lambda: getattr(plugin, "POOLZOO_API", 1), f"fix {self.where}")
        if type(version) is not int or version < 1:
            hint = "POOLZOO_API must be a whole number, 1 or above"
            self._fail("API version", f"POOLZOO_API = {short_repr(version)}", hint)
        if version > spec.API_VERSION:
            text = f"it is made for version {version} of the plugin API, this poolzoo has {spec.API_VERSION}"
            self._fail("API version", text, "update poolzoo, or install an older version of the plugin")

    def _hooks(self, plugin: object) -> dict[str, Callable[..., Any]]:
        """The plugin's hooks by name."""
        known = (*HOOKS, *EVENTS)
        found: dict[str, Callable[..., Any]] = self._try("hook names", lambda: _hookimpls(plugin), f"fix {self.where}")
        for name in found:
            if name not in known:
                near = grammar.suggest(name, known)
                self._fail("hook names", f"there is no hook {name!r}", near or f"hooks: {', '.join(known)}")
        return found

    def _register(self, hooks: Mapping[str, Callable[..., Any]]) -> None:
        manager = self.catalog.manager
        plugin = _Hooks(hooks)
        with warnings.catch_warnings(record=True) as deprecated:
            warnings.simplefilter("always", DeprecationWarning)  # pluggy's, where a hook is marked warn_on_impl
            result, error = self._call(manager.register, plugin, self.key)
        if error is not None or result is None:
            if manager.get_plugin(self.key) is plugin:  # pluggy leaves a plugin registered whose hooks it refused
                manager.unregister(name=self.key)
            hint = f"fix {self.where}: a hook's arguments must be some of those in docs/how-to/plugins.md"
            self._fail("register", error or "pluggy refused it", hint)
        self.catalog.sources[self.key] = self.candidate.source
        for warning in deprecated if self.candidate.source.tier != "built-in" else ():
            self._note("deprecated", str(warning.message), f"{self.where} works today and should be brought up to date")

    def _collect(self, hook: str, function: Callable[..., Any], types: tuple[type[Item], ...]) -> None:
        """Takes over what one hook provides, where it is what it should be."""
        hint = f"fix {self.where}: {hook} returns {' or '.join(kind.__name__ for kind in types)} objects"
        items: list[object] = []
        _, error = self._call(_extend, items, function)
        if error is not None:
            self._note("call", error, hint)
        if len(items) > MAX_ENTRIES:
            text = f"{hook} yields more than {MAX_ENTRIES} entries; the rest is left out"
            self._note("call", text, "yield fewer")
        for item in items[:MAX_ENTRIES]:
            _, error = self._call(self._add, item, types)  # one may do anything when it is read
            if error is not None:
                found = f"{hook} {error}" if isinstance(error, _WrongEntry) else error
                self._note("item type", found, hint)

    def _add(self, given: Any, types: tuple[type[Item], ...]) -> None:
        """Adds an entry, unless the same plugin has provided one of that name, or its build points nowhere."""
        if not isinstance(given, types):
            raise _WrongEntry(f"gave {type(given).__name__} {short_repr(given)}")
        source = self.candidate.source
        item: Item = given if source.tier == "built-in" else values.item(given)
        same = self.catalog.same_name(item)
        if any(e.source.dist == source.dist and e.source.path == source.path for e in same):
            self._note("item name", f"{item.name!r} is provided twice by {source.dist}", "provide each name once")
            return
        for part in ("build", "network", "open", "convert") if source.tier != "built-in" else ():
            target = getattr(item, part, None)
            if isinstance(target, str) and (why := points_nowhere(target)):
                hint = f"fix {self.where}, or install its package first"
                self._note("build", f"{part} of {item.name!r}: {why}", hint)
                return
        if same and not self.catalog.is_preferred(source):
            first = same[0].source.dist
            text = f"{item.name!r} is {first}'s; this one is reachable as {source.dist}:{item.name}"
            hint = f"write {source.dist}:{item.name}, or --prefer {source.dist}"
            self._note("item name", text, hint, clash=True)
        self.catalog.add(Entry(item, source))


class _Hooks:
    """What pluggy sees of a plugin: its hooks alone. It would read every attribute, and what a module imports too."""

    def __init__(self, hooks: Mapping[str, Callable[..., Any]]) -> None:
        vars(self).update(hooks)

    def __dir__(self) -> list[str]:
        return list(vars(self))


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _extend(items: list[object], hook: Callable[[], Iterable[object]]) -> None:
    items.extend(islice(hook(), MAX_ENTRIES + 1))


def _hookimpls(plugin: object) -> dict[str, Callable[..., Any]]:
    members = inspect.getmembers(plugin, callable)
    return {name: member for name, member in members if hasattr(member, f"{spec.PROJECT}_impl")}
