"""The poolings, backbones, data sets and runtimes that there are: names looked up, and who provides what.

No heavy package is imported here: a build given as a string is imported only when somebody resolves it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

import pluggy

from poolzoo.common import output
from poolzoo.common.errors import PluginFailed, PoolzooError, UsageError, reason
from poolzoo.common.text import one_line
from poolzoo.plugin import grammar, spec, values
from poolzoo.plugin.events import EVENTS, Emitter, function_key
from poolzoo.plugin.imports import import_build
from poolzoo.plugin.problems import Problem, Source
from poolzoo.plugin.values import Item, ItemT

MAX_NAMES: Final = 100_000  # of a family of backbones
MAX_LISTED: Final = 60  # names that an error lists
MAX_BROKEN: Final = 5  # plugins that did not load, of those that an error names
Failure = (Exception, SystemExit)  # what a plugin may throw at us; Ctrl-C is the user's


class Entry(NamedTuple):
    """What a plugin provides (a pooling, backbone, family, data set or runtime), and where that plugin comes from."""

    item: Item
    source: Source


class Resolved(NamedTuple):
    """A name with options, looked up: the item, its imported build, and the options as values."""

    spec: grammar.Spec
    entry: Entry
    build: Callable[..., Any]
    options: dict[str, Any]

    @property
    def item(self) -> Any:
        return self.entry.item


Plugin = tuple[str, Source]  # its name and where it comes from
_Key = tuple[type, str, str | None]


def _key(item: Item) -> _Key:
    """What two items that one name could mean have in common."""
    if isinstance(item, spec.Pooling):
        return spec.Pooling, item.name, item.kind
    if isinstance(item, spec.BackboneFamily):
        return spec.BackboneFamily, item.prefix, None
    return type(item), item.name, None


class Catalog:
    """Everything that is available, in one order that does not depend on the order of loading.

    Attributes:
        manager: pluggy's, which holds the registered plugins.
        prefer: Distributions whose entries a bare name means where others have them too.
        entries: What the plugins provide.
        problems: What went wrong while they were loaded, or listened to events.
        sources: Where each registered plugin comes from, by the manager's name of it.
        hooks: The functions of each plugin that was loaded.
        duplicates: Plugins that are another one's module once more, with the distribution of that one.
    """

    def __init__(self, manager: pluggy.PluginManager, prefer: Sequence[str] = ()) -> None:
        self.manager = manager
        self.prefer = tuple(prefer)
        self.entries: list[Entry] = []
        self.problems: list[Problem] = []
        self.sources: dict[str, Source] = {}
        self.hooks: dict[Plugin, Mapping[str, Callable[..., Any]]] = {}
        self.duplicates: dict[Plugin, str] = {}
        self._emitter = Emitter(manager, self.sources, self.problems)
        self._by_name: dict[_Key, list[Entry]] = {}
        self._owners: dict[tuple[int, int], Plugin] = {}

    def emit(self, event: str, **arguments: Any) -> None:
        """Calls every plugin that listens to an event of a run; see `events.Emitter.emit`."""
        self._emitter.emit(event, **arguments)

    def report_failures(self) -> None:
        """Warns, at the end of a command, of each plugin that failed at an event more than once."""
        self._emitter.report_failures()

    def add(self, entry: Entry) -> None:
        """Adds an entry."""
        self.entries.append(entry)
        self._by_name.setdefault(_key(entry.item), []).append(entry)

    def owner(self, function: Callable[..., Any]) -> Plugin | None:
        """The first plugin that has the very function `function` as a hook; a package may repeat a module's."""
        return self._owners.get(function_key(function))

    def add_hooks(self, plugin: Plugin, hooks: Mapping[str, Callable[..., Any]]) -> None:
        """Notes the functions of a plugin that was loaded."""
        self.hooks[plugin] = hooks  # which also keeps them alive: their keys are addresses
        for function in hooks.values():
            self._owners.setdefault(function_key(function), plugin)

    def add_duplicate(self, plugin: str, source: Source, original: Source) -> None:
        """Notes a plugin that is another one's module once more: there is nothing to load, its name is as good."""
        self.duplicates[plugin, source] = original.dist
        output.detail(f"plugin {plugin} ({source.dist}) is the same module as {original.dist}'s and counts once")

    def matches(self, dist: str | None, source: Source) -> bool:
        """Whether `source` is the distribution that a reference names, which may be that of a duplicate."""
        if dist in (None, source.dist):
            return True
        return any(other.dist == dist and original == source.dist for (_, other), original in self.duplicates.items())

    def is_preferred(self, source: Source) -> bool:
        """Whether bare names mean the entries of this plugin where others have them too."""
        return any(self.matches(dist, source) for dist in self.prefer)

    def same_name(self, item: Item) -> list[Entry]:
        """The entries that the name of `item` could mean as well."""
        found = list(self._by_name.get(_key(item), ()))
        if isinstance(item, spec.Backbone):
            found += self._by_name.get((spec.BackboneFamily, item.name.partition("/")[0], None), ())
        return found

    def select(self, kind: type[ItemT] | tuple[type[ItemT], ...], filter: str | None = None) -> list[Entry]:
        """The entries of one type, those whose name matches the glob `filter`."""
        found = [entry for entry in self.entries if isinstance(entry.item, kind)]
        if filter is None:
            return found
        import fnmatch

        return [e for e in found if fnmatch.fnmatchcase(e.item.name, filter)]

    def family(self, prefix: str, dist: str | None = None) -> Entry | None:
        """The family of backbones that a prefix means: with `dist` that one's, else the first in precedence."""
        found = [e for e in self.select(spec.BackboneFamily) if getattr(e.item, "prefix", "") == prefix]
        return next((e for e in found if self.matches(dist, e.source)), None)

    def pooling(self, text: str, kind: spec.Kind) -> Resolved:
        """Looks a pooling up: `gem:p=4`, `acme:gem`.

        Raises:
            UsageError: The name or an option is unknown, or there is none of that kind.
        """
        return self._resolve(grammar.parse_spec(text), self.find_pooling(text, kind))

    def find_pooling(self, text: str, kind: spec.Kind) -> Entry:
        """The entry that a pooling names; its build is not imported, and its options are not checked.

        Raises:
            UsageError: The name is unknown, or there is none of that kind.
        """
        entries = [e for e in self.select(spec.Pooling) if _is_pooling(e.item, kind)]
        return self._find(f"{kind} pooling", grammar.parse_spec(text), entries)

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
            found = self._from_family(family, rest)
            if found is None and named is None:
                raise self._unknown_in_family(family, rest, wanted.name)
            try:
                if found is not None:
                    return self._resolve(wanted, found)
            except UsageError:
                if named is None:
                    raise
        return self._resolve(wanted, self._find("backbone", wanted, entries))

    def _from_family(self, entry: Entry, name: str) -> Entry | None:
        """One backbone of a family; None where it has none of that name.

        Raises:
            PluginFailed: The family's own code raised something else than KeyError.
        """
        assert isinstance(entry.item, spec.BackboneFamily)
        family = entry.item
        try:
            found = family.get(name)
        except KeyError:
            return None
        except PoolzooError:
            raise
        except Failure as error:
            raise _failed(entry, error) from error
        if not isinstance(found, spec.Backbone):
            raise PluginFailed(f"family {family.name} gave a {type(found).__name__} for {name}", "fix its plugin")
        try:
            return Entry(found if entry.source.tier == "built-in" else values.item(found), entry.source)
        except Failure as error:
            raise _failed(entry, error) from error

    def _unknown_in_family(self, entry: Entry, name: str, typed: str) -> UsageError:
        """That neither a family nor another plugin has a backbone, with names that are near."""
        prefix = cast(spec.BackboneFamily, entry.item).prefix
        own = [one.item.name for one in self.select(spec.Backbone)]
        everything = own + [f"{prefix}/{one}" for one in self.family_names(entry)]
        near = grammar.suggest(typed, everything) or grammar.suggest(f"{prefix}/{name}", everything)
        hint = near or f"poolzoo list backbones --filter '{prefix}/*' shows what there is"
        return UsageError(f"no backbone is called {typed!r}", self.with_problems(hint))

    def family_names(self, entry: Entry) -> list[str]:
        """The names that a family gives, without its prefix; no more than `MAX_NAMES`.

        Raises:
            PluginFailed: Its code raised.
        """
        assert isinstance(entry.item, spec.BackboneFamily)
        try:
            names = values.texts(entry.item.names, MAX_NAMES + 1)
        except PoolzooError:
            raise
        except Failure as error:
            raise _failed(entry, error) from error
        if len(names) > MAX_NAMES:
            output.warn(f"family {entry.item.name} gives more than {MAX_NAMES:,} names; the rest is left out")
        return names[:MAX_NAMES]

    def identity(self, entry: Entry) -> str:
        """The reference that names an entry in files and tables, whatever is preferred.

        It is the bare name of a built-in one and, where there is none, of the first one; else "DIST:NAME".
        """
        rivals = self._by_name.get(_key(entry.item), [])
        first = next((one for one in rivals if one.source.tier == "built-in"), rivals[0] if rivals else entry)
        own = first.source == entry.source or not entry.source.dist  # which a Runtime that no plugin provides lacks
        return entry.item.name if own else f"{entry.source.dist}:{entry.item.name}"

    def dataset(self, text: str) -> Entry:
        """Looks a data set up by name.

        Raises:
            UsageError: The name is unknown.
        """
        prefix, colon, _ = text.partition(":")
        sources = [getattr(e.item, "prefix", "") for e in self.select(spec.DatasetSource)]
        if text in sources:
            raise UsageError(f"{text}: is a source of data, and no data set", f"poolzoo show {text} says what to type")
        if colon and (near := grammar.suggest(prefix, sources)):
            raise UsageError(f"no source of data is called {prefix + ':'!r}", self.with_problems(near))
        wanted = grammar.parse_spec(text)
        if wanted.options:
            raise UsageError(f"data set {wanted.name!r} takes no options", "leave them out")
        return self._find("data set", wanted, self.select(spec.Dataset))

    def source(self, text: str) -> Entry | None:
        """The source that `csv:photos.csv` names by its prefix; None where no source has it."""
        prefix, colon, _ = text.partition(":")
        found = [e for e in self.select(spec.DatasetSource) if getattr(e.item, "prefix", "") == prefix]
        preferred = [e for dist in self.prefer for e in found if self.matches(dist, e.source)]
        own = [e for e in found if e.source.tier == "built-in"]
        return next(iter(preferred or own or found), None) if colon else None

    def runtime(self, text: str) -> Entry:
        """Looks a runtime up by name, whether it is installed or not.

        Raises:
            UsageError: The name is unknown.
        """
        wanted = grammar.parse_spec(text)
        if wanted.options:
            raise UsageError(f"runtime {wanted.name!r} takes no options", "leave them out")
        return self._find("runtime", wanted, self.select(spec.Runtime))

    def _find(self, what: str, wanted: grammar.Spec, entries: Sequence[Entry]) -> Entry:
        entry = self._pick(wanted, entries)
        if entry is not None:
            return entry
        typed = f"{wanted.dist}:{wanted.name}" if wanted.dist else wanted.name
        names = sorted({e.item.name for e in entries})
        near = grammar.suggest(wanted.name, names)
        if any(wanted.dist == name for name in names):  # it was to be an option
            near = f"an option is written {wanted.dist}:{wanted.name}=VALUE"
        if not near and what.endswith("pooling") and any(e.item.name == wanted.name for e in self.select(spec.Pooling)):
            near = f"it exists as the other kind; the {what}s are: {', '.join(names)}"
        listing = f"there are: {', '.join(names)}" if len(names) <= MAX_LISTED else f"poolzoo list {what.split()[-1]}s"
        raise UsageError(f"no {what} is called {typed!r}", self.with_problems(near or listing))

    def _pick(self, wanted: grammar.Spec, entries: Sequence[Entry]) -> Entry | None:
        """The entry that a name means: with DIST that one's, else the preferred, the built-in, the first one's."""
        found = [e for e in entries if e.item.name == wanted.name and self.matches(wanted.dist, e.source)]
        preferred = [e for dist in self.prefer for e in found if self.matches(dist, e.source)]
        own = [e for e in found if e.source.tier == "built-in"]
        return next(iter(preferred or own or found), None)

    def pinned(self, text: str, what: type[Item]) -> str:
        """The reference with its distribution, where the bare name means that one's only because it is preferred."""
        wanted = grammar.parse_spec(text)
        entry = self._pick(wanted, self.select(what))
        chosen = wanted.dist is None and entry is not None and self.is_preferred(entry.source)
        return f"{entry.source.dist}:{text}" if chosen and entry is not None else text

    def with_problems(self, hint: str) -> str:
        """A hint for an unknown name, and the plugins that did not load: one of them may have had it."""
        broken: dict[str, str] = {}
        for problem in self.problems:
            if not problem.clash and problem.stage not in EVENTS:
                broken.setdefault(problem.plugin, f"{problem.plugin} did not load ({one_line(problem.error, 200)})")
        failed = "; ".join(list(broken.values())[:MAX_BROKEN])
        more = f" and {len(broken) - MAX_BROKEN} more" if len(broken) > MAX_BROKEN else ""
        return f"{hint} — also: {failed}{more}" if failed else hint

    def _resolve(self, wanted: grammar.Spec, entry: Entry) -> Resolved:
        item = entry.item
        assert isinstance(item, spec.Pooling | spec.Backbone)
        build = import_build(item.build, item.name, entry.source)
        try:
            options = grammar.read_options(item.name, build, wanted.options)
        except PoolzooError:
            raise
        except Failure as error:
            text = f"the arguments of build of {item.name!r} ({entry.source.dist}) cannot be read: {reason(error)}"
            raise PluginFailed(text, f"fix the plugin {entry.source.dist}, or use another one") from error
        return Resolved(wanted, entry, build, options)


def _failed(entry: Entry, error: BaseException) -> PluginFailed:
    text = f"family {entry.item.name} ({entry.source.dist}) failed: {reason(error)}"
    return PluginFailed(text, "fix its plugin, or use another backbone")


def _is_pooling(item: Item, kind: spec.Kind) -> bool:
    return isinstance(item, spec.Pooling) and item.kind == kind
