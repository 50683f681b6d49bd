"""What there is and who provides it: names turned into items, and everything that went wrong on the way.

No heavy package is imported here: a build given as a string is imported only when somebody resolves it.
"""

from __future__ import annotations

import copy
import fnmatch
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import pluggy

from poolzoo import options as grammar
from poolzoo import output, spec
from poolzoo.errors import PluginFailed, UsageError

EVENTS: Final = ("poolzoo_run_started", "poolzoo_epoch_finished", "poolzoo_run_finished", "poolzoo_exported")
MOST: Final = 1200  # characters of an error, so that the line that tells of it has room for where and what to do
Failure = (Exception, SystemExit)  # what a plugin may throw at us; Ctrl-C is the user's

Item = spec.Pooling | spec.Backbone | spec.BackboneFamily | spec.Dataset
ItemT = TypeVar("ItemT", bound=Item)


@dataclass(frozen=True)
class Source:
    """Who provides an item: a distribution, its version, how it was found, and the file of its module."""

    dist: str
    version: str | None
    tier: str
    path: str | None = None  # of a plugin that was found as a file
    module_file: str | None = None  # of one that was found as an installed module

    def to_json(self) -> dict[str, Any]:
        return {
            key: value
            for key, value in asdict(self).items()
            if key != "module_file" and (key != "path" or value is not None)
        }

    def sha256(self) -> str | None:
        """The hash of the plugin's file; of a package, that of the module with its hooks."""
        file = self.path or self.module_file
        return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else None


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


_Key = tuple[type, str, str | None]


def _key(item: Item) -> _Key:
    """What two items that one name could mean have in common."""
    if isinstance(item, spec.Pooling):
        return spec.Pooling, item.name, item.kind
    if isinstance(item, spec.BackboneFamily):
        return spec.BackboneFamily, item.prefix, None
    return type(item), item.name, None


@dataclass
class Catalog:
    """Everything that is available, in one order that does not depend on the order of loading."""

    manager: pluggy.PluginManager
    prefer: tuple[str, ...] = ()
    entries: list[Entry] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    sources: dict[str, Source] = field(default_factory=dict)
    _by_name: dict[_Key, list[Entry]] = field(default_factory=dict)

    def add(self, entry: Entry) -> None:
        """Takes an item in."""
        self.entries.append(entry)
        self._by_name.setdefault(_key(entry.item), []).append(entry)

    def named_alike(self, item: Item) -> list[Entry]:
        """The entries that a name of this item could mean as well."""
        found = list(self._by_name.get(_key(item), ()))
        if isinstance(item, spec.Backbone):
            found += self._by_name.get((spec.BackboneFamily, item.name.partition("/")[0], None), ())
        return found

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
        named = self._pick(wanted, entries)
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
            raise UsageError(f"no backbone is called {typed!r}", self.with_problems(hint)) from None
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
        entry = self._pick(wanted, entries)
        if entry is not None:
            return entry
        typed = f"{wanted.dist}:{wanted.name}" if wanted.dist else wanted.name
        names = sorted({e.item.name for e in entries})
        near = grammar.suggest(wanted.name, names)
        if not near and what.endswith("pooling") and any(e.item.name == wanted.name for e in self.select(spec.Pooling)):
            near = f"it exists as the other kind; the {what}s are: {', '.join(names)}"
        listing = f"there are: {', '.join(names)}" if len(names) <= 60 else f"poolzoo list {what.split()[-1]}s"
        raise UsageError(f"no {what} is called {typed!r}", self.with_problems(near or listing))

    def _pick(self, wanted: grammar.Spec, entries: Sequence[Entry]) -> Entry | None:
        """The entry that a name means: with DIST that one's, else the preferred, the built-in, the first one's."""
        found = [e for e in entries if e.item.name == wanted.name and wanted.dist in (None, e.source.dist)]
        preferred = [e for dist in self.prefer for e in found if e.source.dist == dist]
        own = [e for e in found if e.source.tier == "built-in"]
        return next(iter(preferred or own or found), None)

    def pinned(self, text: str, what: type[Item]) -> str:
        """The reference with its distribution, where the bare name means that one's only because it is preferred."""
        wanted = grammar.parse_spec(text)
        entry = self._pick(wanted, self.select(what))
        chosen = wanted.dist is None and entry is not None and entry.source.dist in self.prefer
        return f"{entry.source.dist}:{text}" if chosen and entry is not None else text

    def with_problems(self, hint: str) -> str:
        """A hint for an unknown name, and the plugins that did not load: one of them may have had it."""
        broken = [p for p in self.problems if p.stage not in ("item name", *EVENTS)]
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
                problem = problem_of(source.dist, source, event, error, "the run goes on without it")
                self.problems.append(problem)
                output.warn(str(problem), problem.hint)


def _is_pooling(item: Item, kind: spec.Kind) -> bool:
    return isinstance(item, spec.Pooling) and item.kind == kind


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


def points_nowhere(build: str) -> str:
    """Why a `"package.module:attribute"` string cannot be imported, as far as that can be told without importing it."""
    module, _, attribute = build.partition(":")
    if module in sys.modules:
        return "" if hasattr(sys.modules[module], attribute) else f"{module} has no attribute {attribute!r}"
    try:
        found = importlib.util.find_spec(module)
    except Exception as error:
        return f"{build!r} points to nothing ({type(error).__name__}: {error})"
    if found is None:
        return f"{build!r} points to nothing: there is no module {module!r}"
    return ""


def shown(value: object) -> str:
    """A value in a few characters, whatever its `__repr__` does."""
    try:
        return f"{value!r:.80}"
    except Exception as error:
        return f"(its repr raises {type(error).__name__})"


def problem_of(plugin: str, source: Source, stage: str, error: BaseException | str, hint: str) -> Problem:
    try:
        text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    except Exception:  # an exception whose own text raises
        text = type(error).__name__
    return Problem(plugin, source.dist, source.version, stage, output.one_line(text, MOST) or "no reason given", hint)
