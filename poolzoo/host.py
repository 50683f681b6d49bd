"""Finds plugins, loads each in isolation, and turns names into what they stand for.

What goes wrong with one plugin becomes a `Problem` and stops nothing else. No heavy package is imported here: a build
given as a string is imported only when somebody resolves it.
"""

from __future__ import annotations

import copy
import fnmatch
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Literal, TypeVar

import pluggy

from poolzoo import options as grammar
from poolzoo import output, spec
from poolzoo.errors import PluginError, PluginFailed, UsageError

BUILT_IN: Final = ("poolzoo.poolings", "poolzoo.backbones", "poolzoo.data")
MAX_ITEMS: Final = 1000  # of one hook of one plugin; an endless generator ends here
TIERS: Final = ("file", "directory", "installed", "built-in")  # in order of precedence

Item = spec.Pooling | spec.Backbone | spec.BackboneFamily | spec.Dataset
ItemT = TypeVar("ItemT", bound=Item)

_HOOKS: Final[dict[str, tuple[type, ...]]] = {
    "poolzoo_poolings": (spec.Pooling,),
    "poolzoo_backbones": (spec.Backbone, spec.BackboneFamily),
    "poolzoo_datasets": (spec.Dataset,),
}
_EVENTS: Final = ("poolzoo_run_started", "poolzoo_epoch_finished", "poolzoo_run_finished", "poolzoo_exported")


@dataclass(frozen=True)
class Source:
    """Who provides an item: a distribution, its version, and how it was found."""

    dist: str
    version: str | None
    tier: str
    path: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if key != "path" or value is not None}

    def sha256(self) -> str | None:
        """The hash of the plugin's file, where it is a file."""
        return hashlib.sha256(Path(self.path).read_bytes()).hexdigest() if self.path else None


@dataclass(frozen=True)
class Problem:
    """What went wrong with one plugin, at which stage, and what to do about it."""

    plugin: str
    dist: str
    version: str | None
    stage: str
    error: str
    hint: str

    def __str__(self) -> str:
        release = f"{self.dist} {self.version}" if self.version else self.dist
        return f"plugin {self.plugin} ({release}) failed at {self.stage}: {self.error}"


@dataclass(frozen=True)
class Entry:
    """An item and its source."""

    item: Item
    source: Source


@dataclass(frozen=True)
class Resolved:
    """A name with options, looked up: the item, its imported build, and the options as values."""

    spec: grammar.Spec
    entry: Entry
    build: Callable[..., Any]
    options: dict[str, Any]

    @property
    def item(self) -> Any:
        return self.entry.item


@dataclass(frozen=True)
class Candidate:
    """A plugin that was found and not yet imported."""

    name: str
    source: Source
    load: Callable[[], object]


@dataclass
class Catalog:
    """Everything that is available, in one order that does not depend on the order of loading."""

    manager: pluggy.PluginManager
    entries: list[Entry] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    sources: dict[str, Source] = field(default_factory=dict)

    def select(self, kind: type[ItemT] | tuple[type[ItemT], ...], filter: str | None = None) -> list[Entry]:
        """The entries of one type, those whose name matches the glob `filter`."""
        found = [entry for entry in self.entries if isinstance(entry.item, kind)]
        return [e for e in found if filter is None or fnmatch.fnmatchcase(e.item.name, filter)]

    def family(self, prefix: str, dist: str | None = None) -> Entry | None:
        """The family of backbones that a prefix means: with `dist` that one's, else the first in precedence."""
        found = [e for e in self.select(spec.BackboneFamily) if getattr(e.item, "prefix", "") == prefix]
        return next((e for e in found if dist in (None, e.source.dist)), None)

    def pooling(self, text: str, kind: spec.Kind) -> Resolved:
        """Looks a pooling up: `gem:p=4`, `acme:gem`.

        Raises:
            UsageError: The name or an option is unknown, or there is none of that kind.
        """
        wanted = grammar.parse_spec(text)
        entries = [e for e in self.select(spec.Pooling) if _is_pooling(e.item, kind)]
        entry = self._find(f"{kind} pooling", wanted, entries)
        return self._resolve(wanted, entry)

    def backbone(self, text: str) -> Resolved:
        """Looks a backbone up: `nano/resnet`, `timm/resnet18`, `resnet18` (timm's), `torchvision/vgg11`.

        Raises:
            UsageError: The name or an option is unknown.
        """
        wanted = grammar.parse_spec(text)
        entries = self.select(spec.Backbone)
        prefix, slash, rest = wanted.name.partition("/")
        prefix, rest = (prefix, rest) if slash else ("timm", wanted.name)
        family = self.family(prefix, wanted.dist)
        named = _pick(wanted, entries)
        own_family = family is not None and family.source.tier == "built-in"
        if family is not None and (named is None or (own_family and named.source.tier != "built-in")):
            try:
                return self._resolve(wanted, self._from_family(family, rest, wanted.name))
            except UsageError:
                if named is None:
                    raise
        return self._resolve(wanted, self._find("backbone", wanted, entries))

    def _from_family(self, entry: Entry, name: str, typed: str) -> Entry:
        """One backbone of a family.

        Raises:
            UsageError: The family has none of that name.
            PluginFailed: The family's own code raised something else than KeyError.
        """
        assert isinstance(entry.item, spec.BackboneFamily)
        family = entry.item
        try:
            found = family.get(name)
        except KeyError:
            own = [one.item.name for one in self.select(spec.Backbone)]
            everything = own + [f"{family.prefix}/{one}" for one in family.names()]
            near = grammar.suggest(typed, everything) or grammar.suggest(f"{family.prefix}/{name}", everything)
            hint = near or f"poolzoo list backbones --filter '{family.prefix}/*' shows what there is"
            raise UsageError(f"no backbone is called {typed!r}", self._with_problems(hint)) from None
        except Exception as error:
            text = f"family {family.name} ({entry.source.dist}) failed: {type(error).__name__}: {error}"
            raise PluginFailed(text, "mend its plugin, or use another backbone") from error
        if not isinstance(found, spec.Backbone):
            raise PluginFailed(f"family {family.name} gave a {type(found).__name__} for {name}", "mend its plugin")
        return Entry(found, entry.source)

    def dataset(self, text: str) -> Entry:
        """Looks a data set up by name.

        Raises:
            UsageError: The name is unknown.
        """
        wanted = grammar.parse_spec(text)
        if wanted.options:
            raise UsageError(f"data set {wanted.name!r} takes no options", "leave them out")
        return self._find("data set", wanted, self.select(spec.Dataset))

    def _find(self, what: str, wanted: grammar.Spec, entries: Sequence[Entry]) -> Entry:
        entry = _pick(wanted, entries)
        if entry is not None:
            return entry
        typed = f"{wanted.dist}:{wanted.name}" if wanted.dist else wanted.name
        names = sorted({e.item.name for e in entries})
        near = grammar.suggest(wanted.name, names)
        if not near and what.endswith("pooling") and any(e.item.name == wanted.name for e in self.select(spec.Pooling)):
            near = f"it exists as the other kind; the {what}s are: {', '.join(names)}"
        listing = f"there are: {', '.join(names)}" if len(names) <= 60 else f"poolzoo list {what.split()[-1]}s"
        raise UsageError(f"no {what} is called {typed!r}", self._with_problems(near or listing))

    def _with_problems(self, hint: str) -> str:
        broken = [p for p in self.problems if p.stage not in ("item name", *_EVENTS)]
        failed = "; ".join(f"{p.plugin} did not load ({p.error})" for p in broken[:5])
        return f"{hint} — also: {failed}" if failed else hint

    def _resolve(self, wanted: grammar.Spec, entry: Entry) -> Resolved:
        item = entry.item
        assert isinstance(item, spec.Pooling | spec.Backbone)
        build = import_build(item.build, item.name, entry.source)
        return Resolved(wanted, entry, build, grammar.read_options(item.name, build, wanted.options))

    def announce(self, event: str, **facts: Any) -> None:
        """Tells every plugin that listens; one that raises is reported and stops nothing."""
        for implementation in getattr(self.manager.hook, event).get_hookimpls():
            told = copy.deepcopy({name: facts[name] for name in implementation.argnames})
            try:
                with redirect_stdout(sys.stderr):
                    implementation.function(**told)
            except Failure as error:
                source = self.sources[implementation.plugin_name]
                problem = _problem(source.dist, source, event, error, "the run goes on without it")
                self.problems.append(problem)
                output.warn(str(problem), problem.hint)


def _is_pooling(item: Item, kind: spec.Kind) -> bool:
    return isinstance(item, spec.Pooling) and item.kind == kind


def _pick(wanted: grammar.Spec, entries: Sequence[Entry]) -> Entry | None:
    """The entry that a name means: with DIST that one's, else the built-in, else the one of highest precedence."""
    found = [e for e in entries if e.item.name == wanted.name and wanted.dist in (None, e.source.dist)]
    own = [e for e in found if e.source.tier == "built-in"]
    return next(iter(own or found), None)


def import_build(build: Callable[..., Any] | str, name: str, source: Source) -> Callable[..., Any]:
    """The callable that `build` is or names.

    Raises:
        PoolzooError: The string points nowhere.
    """
    if callable(build):
        return build
    module, _, attribute = build.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:
        raise PluginFailed(
            f"build of {name!r} ({source.dist}) points to {build!r}: {output.one_line(str(error))}",
            f"mend the plugin {source.dist}, or use another one",
        ) from error
    if not callable(found):
        raise PluginFailed(f"build of {name!r} ({source.dist}): {build!r} is not callable", "mend the plugin")
    return found  # type: ignore[no-any-return]


def _problem(plugin: str, source: Source, stage: str, error: BaseException | str, hint: str) -> Problem:
    text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    return Problem(plugin, source.dist, source.version, stage, output.one_line(text), hint)


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

Failure = (Exception, SystemExit)  # what a plugin may throw at us; Ctrl-C is the user's


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
        catalog.problems.append(_problem(candidate.name, source, stage, error, hint))

    where = source.path or source.dist
    try:
        plugin = candidate.load()
    except Failure as error:
        return fail("import", error, f"mend {where}, or leave it out (--no-plugins)")
    version = getattr(plugin, "POOLZOO_API", 1)
    if not isinstance(version, int) or not 1 <= version <= spec.API_VERSION:
        hint = "update poolzoo" if isinstance(version, int) else "POOLZOO_API must be a whole number"
        return fail("API version", f"POOLZOO_API = {version!r}, this poolzoo speaks {spec.API_VERSION}", hint)
    misspelt = [name for name in _hookimpl_names(plugin) if name not in (*_HOOKS, *_EVENTS)]
    if misspelt:
        near = grammar.suggest(misspelt[0], (*_HOOKS, *_EVENTS))
        return fail(
            "hook names", f"there is no hook {misspelt[0]!r}", near or f"hooks: {', '.join((*_HOOKS, *_EVENTS))}"
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
