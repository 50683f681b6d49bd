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
class PluginHealth:
    """What loading one plugin has shown.

    Attributes:
        plugin: Its name.
        source: Where it comes from.
        faults: What is wrong with it; it is broken where there is any.
        notes: What is not wrong but good to know: names that others provide too, another plugin's module.
    """

    plugin: str
    source: Source
    faults: tuple[Problem, ...]
    notes: tuple[str, ...]


def health_of(catalog: Catalog, candidates: Iterable[Candidate]) -> list[PluginHealth]:
    """The health of each candidate that `catalog` was loaded from, the built-in ones left out."""
    return [_health(catalog, one.name, one.source) for one in candidates if one.source.tier != "built-in"]


def _health(catalog: Catalog, plugin: str, source: Source) -> PluginHealth:
    own = [problem for problem in catalog.problems if (problem.plugin, problem.source) == (plugin, source)]
    faults = [problem for problem in own if not problem.clash]
    notes = [problem.error for problem in own if problem.clash]
    original = catalog.duplicates.get((plugin, source))
    if original is not None:
        notes.append(f"the same module as {original}'s")
    elif not faults and not catalog.hooks.get((plugin, source)):
        faults.append(problem_of(plugin, source, "hook names", NO_HOOK, "see docs/how-to/plugins.md"))
    return PluginHealth(plugin, source, tuple(faults), tuple(notes))
