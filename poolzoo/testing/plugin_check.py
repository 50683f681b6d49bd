"""`poolzoo plugin check`: loads one plugin alone and runs the conformance checks on everything that it provides."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from poolzoo.common.errors import PoolzooError, UsageError
from poolzoo.plugin import grammar, loader
from poolzoo.plugin.catalog import Entry
from poolzoo.plugin.discovery import Candidate, find
from poolzoo.plugin.health import health_of
from poolzoo.plugin.problems import Problem
from poolzoo.testing import kinds, project_file, selection
from poolzoo.testing.base import Failure
from poolzoo.testing.expected import ExpectedFailures
from poolzoo.testing.outcome import Outcome

Advance = Callable[[str], None]


@dataclass(frozen=True)
class CheckedItem:
    """The outcomes for one item of a plugin, such as a pooling.

    Attributes:
        name: Of the item.
        kind: What it is, as `kinds.kind_of` says.
        outcomes: One for each check that was selected.
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
        """Whether the plugin loads, and every check is as it should be."""
        return not self.problems and all(outcome.is_good for item in self.items for outcome in item.outcomes)

    def to_json(self) -> dict[str, object]:
        return {
            "plugin": self.plugin,
            "passed": self.passed,
            "problems": [problem.to_json() for problem in self.problems],
            "items": [item.to_json() for item in self.items],
        }


def check_plugin(
    target: str,
    advance: Advance = lambda text: None,
    *,
    select: selection.Selection | None = None,
    expected: ExpectedFailures | None = None,
) -> PluginReport:
    """Checks one plugin.

    Args:
        target: The path of a plugin's file, the name of an installed distribution, or the folder of its project.
        advance: Called before each check with its name.
        select: Which checks to run; None for all.
        expected: Checks that are expected to fail, beside those that the plugin's `pyproject.toml` states.

    Raises:
        UsageError: There is no such file, plugin or check.
    """
    chosen, project = _find(target)
    catalog = loader.load([*find(installed=False), *chosen])
    loader.use(catalog)
    problems = tuple(fault for health in health_of(catalog, chosen) for fault in health.faults)
    names = {(candidate.source.dist, candidate.source.path) for candidate in chosen}
    entries = [entry for entry in catalog.entries if (entry.source.dist, entry.source.path) in names]
    items = [entry.item.name for entry in entries]
    stated = project_file.expected_failures(project)
    all_expected = (stated.of_items(items) if Path(target).is_file() else stated) | (expected or ExpectedFailures())
    if not problems:  # else an item may be missing that is there when they are fixed
        all_expected.require_known(kinds.all_ids(), items)
    chosen_checks = select or selection.everything()
    checked = [
        CheckedItem(
            entry.item.name,
            kinds.kind_of(entry.item),
            tuple(_outcomes(entry, chosen_checks, all_expected, advance)),
        )
        for entry in entries
    ]
    if chosen_checks.text and not problems:
        chosen_checks.require_some(sum(len(item.outcomes) for item in checked), kinds.all_ids())
    return PluginReport(target, problems, tuple(item for item in checked if item.outcomes))


def _find(target: str) -> tuple[list[Candidate], Path | None]:
    """The plugins that a target means, and the project file that speaks of them."""
    path = Path(target)
    if path.suffix == ".py" or path.is_file():
        files = [candidate for candidate in find([path], installed=False) if candidate.source.tier == "file"]
        return files, project_file.of_file(path)
    name = target
    is_project = path.is_dir() and (path / project_file.NAME).is_file()
    if is_project:
        declared = project_file.read(path / project_file.NAME).get("project")
        name = str(declared.get("name", "")) if isinstance(declared, dict) else ""
    external = [candidate for candidate in loader.candidates() if candidate.source.tier != "built-in"]
    found = [candidate for candidate in external if candidate.answers_to(name)]
    if found:
        return found, project_file.of_distribution(found[0].source.dist)
    if is_project:
        raise UsageError(f"{target} is not installed", f"pip install -e {target}, or check it with --release")
    names = sorted({candidate.source.dist for candidate in external})
    listing = f"there are: {', '.join(names)}" if names else "give the path of a plugin's file"
    raise UsageError(f"no plugin is called {target!r}", grammar.suggest(target, names) or listing)


def _outcomes(
    entry: Entry, select: selection.Selection, expected: ExpectedFailures, advance: Advance
) -> Iterator[Outcome]:
    """The outcome of each selected check of one item."""
    name, kind = entry.item.name, kinds.kind_of(entry.item)
    try:
        checks, checked = kinds.checks_of(entry)
    except PoolzooError as error:
        (check,) = kinds.build_checks
        yield Outcome(check.id, Failure(check.id, error.message, check.expected, error.hint))
        return
    for check in checks:
        if select(name, kind, check.id):
            advance(f"{name}: {check.id}")
            yield Outcome(check.id, checks.failure(check, checked), expected.reason(name, check.id))
