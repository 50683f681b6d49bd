"""Which plugins are broken: the one answer that `doctor`, `plugin check` and `plugin list` give."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from poolzoo.plugin.catalog import Catalog
from poolzoo.plugin.discovery import Candidate
from poolzoo.plugin.problems import Problem, Source, problem_of

NO_HOOK: Final = "it has no hook: nothing is marked with @poolzoo.hookimpl"


@dataclass(frozen=True)
class Verdict:
    """What loading one plugin has shown.

    Attributes:
        plugin: Its name.
        source: Where it comes from.
        faults: What is wrong with it; it is broken where there is any.
        notes: What is not wrong but good to know: items whose names others have too, another plugin's module.
    """

    plugin: str
    source: Source
    faults: tuple[Problem, ...]
    notes: tuple[str, ...]


def verdicts(catalog: Catalog, candidates: Iterable[Candidate]) -> list[Verdict]:
    """One for each candidate that `catalog` was loaded from, the built-in ones left out."""
    return [_verdict(catalog, one.name, one.source) for one in candidates if one.source.tier != "built-in"]


def _verdict(catalog: Catalog, plugin: str, source: Source) -> Verdict:
    own = [problem for problem in catalog.problems if (problem.plugin, problem.source) == (plugin, source)]
    faults = [problem for problem in own if not problem.clash]
    notes = [problem.error for problem in own if problem.clash]
    twin = catalog.same.get((plugin, source))
    if twin is not None:
        notes.append(f"the same module as {twin}'s")
    elif not faults and not catalog.hooks.get((plugin, source)):
        faults.append(problem_of(plugin, source, "hook names", NO_HOOK, "see docs/plugins.md"))
    return Verdict(plugin, source, tuple(faults), tuple(notes))
