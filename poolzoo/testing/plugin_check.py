"""`poolzoo plugin check`: loads one plugin alone and runs the conformance checks on everything that it provides."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from poolzoo.common.errors import PoolzooError, UsageError, reason
from poolzoo.plugin import grammar, loader, spec
from poolzoo.plugin.catalog import Entry, Resolved
from poolzoo.plugin.discovery import Candidate, find
from poolzoo.plugin.health import health_of
from poolzoo.plugin.imports import import_build
from poolzoo.plugin.modules import missing_of
from poolzoo.plugin.problems import Problem
from poolzoo.testing import backbones, datasets, poolings, runtimes
from poolzoo.testing.base import Checks, Failure
from poolzoo.testing.checked_pooling import CheckedPooling


@dataclass(frozen=True)
class Outcome:
    """The outcome of one check: passed where there is no failure."""

    check: str
    failure: Failure | None = None

    def to_json(self) -> dict[str, object]:
        if self.failure is None:
            return {"check": self.check, "passed": True}
        failure = self.failure
        return {
            "check": self.check,
            "passed": False,
            "found": failure.found,
            "expected": failure.expected,
            "hint": failure.hint,
        }


@dataclass(frozen=True)
class CheckedItem:
    """The outcomes for one item of a plugin, such as a pooling.

    Attributes:
        name: Of the item.
        kind: "global pooling", "local pooling", "backbone", "family of backbones", "data set", "source of data" or
            "runtime".
        outcomes: One for each check.
    """

    name: str
    kind: str
    outcomes: tuple[Outcome, ...]

    def to_json(self) -> dict[str, object]:
        return {"name": self.name, "kind": self.kind, "checks": [outcome.to_json() for outcome in self.outcomes]}


@dataclass(frozen=True)
class PluginReport:
    """What checking a plugin found.

    Attributes:
        plugin: The path or the name that was given.
        problems: What went wrong when it was loaded.
        items: The outcomes for each item that it provides.
    """

    plugin: str
    problems: tuple[Problem, ...]
    items: tuple[CheckedItem, ...]

    @property
    def passed(self) -> bool:
        """Whether the plugin loads and every check passes."""
        failed = any(outcome.failure for item in self.items for outcome in item.outcomes)
        return not self.problems and not failed

    def to_json(self) -> dict[str, object]:
        return {
            "plugin": self.plugin,
            "passed": self.passed,
            "problems": [problem.to_json() for problem in self.problems],
            "items": [item.to_json() for item in self.items],
        }


def check_plugin(target: str, advance: Callable[[str], None] = lambda text: None) -> PluginReport:
    """Checks one plugin.

    Args:
        target: The path of a plugin's file, or the name of an installed distribution.
        advance: Called before each check with its name.

    Raises:
        UsageError: There is no such file or plugin.
    """
    chosen = _candidates(target)
    catalog = loader.load([*find(installed=False), *chosen])
    loader.use(catalog)
    problems = [fault for health in health_of(catalog, chosen) for fault in health.faults]
    names = {(candidate.source.dist, candidate.source.path) for candidate in chosen}
    items = [
        CheckedItem(entry.item.name, _kind(entry.item), tuple(check_entry(entry, advance)))
        for entry in catalog.entries
        if (entry.source.dist, entry.source.path) in names
    ]
    return PluginReport(target, tuple(problems), tuple(items))


def _candidates(target: str) -> list[Candidate]:
    if Path(target).suffix == ".py" or Path(target).is_file():
        return [candidate for candidate in find([Path(target)], installed=False) if candidate.source.tier == "file"]
    external = [candidate for candidate in loader.candidates() if candidate.source.tier != "built-in"]
    found = [candidate for candidate in external if candidate.answers_to(target)]
    if not found:
        names = sorted({candidate.source.dist for candidate in external})
        listing = f"there are: {', '.join(names)}" if names else "give the path of a plugin's file"
        raise UsageError(f"no plugin is called {target!r}", grammar.suggest(target, names) or listing)
    return found


def _kind(item: object) -> str:
    if isinstance(item, spec.Pooling):
        return f"{item.kind} pooling"
    if isinstance(item, spec.Backbone):
        return "backbone"
    if isinstance(item, spec.Runtime):
        return "runtime"
    if isinstance(item, spec.DatasetSource):
        return "source of data"
    return "family of backbones" if isinstance(item, spec.BackboneFamily) else "data set"


def check_entry(entry: Entry, advance: Callable[[str], None]) -> Iterable[Outcome]:
    """The outcome of each check of one item."""
    if isinstance(entry.item, spec.BackboneFamily):
        return [_check_family(entry, entry.item)]
    if isinstance(entry.item, spec.DatasetSource):
        return [_check_source(entry, entry.item)]
    try:
        checks, checked = _to_check(entry)
    except PoolzooError as error:
        failure = Failure("build", error.message, "build can be imported", error.hint)
        return [Outcome("build", failure)]
    return _run(checks, checked, lambda check: advance(f"{entry.item.name}: {check}"))


def _run(checks: Checks[Any], checked: object, advance: Callable[[str], None]) -> Iterator[Outcome]:
    for check in checks:
        advance(check.id)
        yield Outcome(check.id, checks.failure(check, checked))


def _to_check(entry: Entry) -> tuple[Checks[Any], object]:
    """The checks for an item, and the item as they take it.

    Raises:
        PoolzooError: Its build cannot be imported.
    """
    item = entry.item
    if isinstance(item, spec.Dataset):
        return datasets.checks_of(item)
    if isinstance(item, spec.Runtime):
        return runtimes.checks, runtimes.CheckedRuntime(entry)
    assert isinstance(item, spec.Pooling | spec.Backbone)
    make = import_build(item.build, item.name, entry.source)
    if isinstance(item, spec.Pooling):
        return poolings.checks, CheckedPooling(item, make, {})
    return backbones.checks, backbones.CheckedBackbone(Resolved(grammar.parse_spec(item.name), entry, make, {}))


def _check_family(entry: Entry, family: spec.BackboneFamily) -> Outcome:
    """A family lists names, and gives a backbone for one of them."""
    try:
        names = loader.catalog().family_names(entry)
        provided = family.get(names[0]) if names else None
    except loader.Failure as error:
        found = reason(error)
    else:
        if isinstance(provided, spec.Backbone):
            return Outcome("names_and_get")
        found = f"{len(names)} names, get gives {provided!r:.80}"
    expected = "names() gives at least one name, get(name) a Backbone for it"
    return Outcome("names_and_get", Failure("names_and_get", found, expected, "fix names() or get()"))


def _check_source(entry: Entry, source: spec.DatasetSource) -> Outcome:
    """A source refuses a place that is not there in one line; its data sets are for its author's tests."""
    expected = "open(place, splits=…, multilabel=…) raises poolzoo.UsageError where there is no such place"
    hint = "fix open(); check data sets that it gives with poolzoo.testing.check_dataset"
    if missing := missing_of(source.modules):
        found = f"{', '.join(missing)} is not installed"
        return Outcome("open", Failure("open", found, "what it needs is installed", source.install or "install it"))
    try:
        open_source = import_build(source.open, source.name, entry.source, "open")
        given = open_source("no/such/place", splits=("train", "test", "val"), multilabel=False)
    except PoolzooError:
        return Outcome("open")
    except loader.Failure as error:
        found = reason(error)
    else:
        found = f"open('no/such/place') gives {given!r:.80}"
    return Outcome("open", Failure("open", found, expected, hint))
