"""The status of every plugin that is found: what `poolzoo plugin list` shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from poolzoo.plugin import loader
from poolzoo.plugin.discovery import Candidate, duplicates, why_excluded
from poolzoo.plugin.health import health_of
from poolzoo.plugin.problems import Problem, Source, by_stage


@dataclass(frozen=True)
class PluginStatus:
    """What is known of one plugin.

    Attributes:
        name: Its name.
        source: Where it comes from.
        hooks: The hooks that it implements.
        status: "enabled", or why it is not loaded.
        problem: What its source shows to be wrong with it, or "".
        problems: What went wrong when it was loaded; None where it was not loaded.
        notes: What is not wrong but good to know.
    """

    name: str
    source: Source
    hooks: tuple[str, ...]
    status: str
    problem: str
    problems: tuple[Problem, ...] | None
    notes: tuple[str, ...]

    @property
    def trouble(self) -> str:
        """What is wrong with it, in one line; "" where nothing is."""
        return self.problem or by_stage(self.problems or ())

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "version": self.source.version,
            "source": self.source.to_json(),
            "hooks": list(self.hooks),
            "status": self.status,
            "problem": self.problem or None,
            "problems": None if self.problems is None else [one.to_json() for one in self.problems],
            "notes": list(self.notes),
        }


def plugin_statuses(found: Sequence[Candidate], disabled: Sequence[str], *, load: bool) -> list[PluginStatus]:
    """The status of each candidate.

    Args:
        found: The plugins.
        disabled: The names that the user has disabled.
        load: Whether to load every plugin that is not excluded; else only what is built in, or named as a file.
    """
    excluded = {candidate: why_excluded(candidate, disabled) for candidate in found}
    admitted = [one for one in found if not excluded[one] and (load or one.source.tier in ("built-in", "file"))]
    catalog = loader.load(admitted)
    health = {(one.plugin, one.source): one for one in health_of(catalog, admitted)}
    originals = duplicates(one for one in found if not excluded[one])
    statuses = []
    for one in found:
        plugin = one.name, one.source
        hooks, problem = _look(one, tuple(catalog.hooks.get(plugin, ())))
        known, original = health.get(plugin), originals.get(one)
        faults = known.faults if known else () if one in admitted else None
        status = excluded[one] or (f"the same module as {original.source.dist}'s" if original else "enabled")
        notes = known.notes if known else ()
        statuses.append(PluginStatus(*plugin, hooks, status, problem, faults, notes))
    return statuses


def _look(candidate: Candidate, hooks: tuple[str, ...]) -> tuple[tuple[str, ...], str]:
    """The hooks of a plugin and what is plainly wrong with it; of a built-in one, `hooks` and nothing."""
    if candidate.source.tier == "built-in":
        return hooks, ""
    from poolzoo.plugin.inspection import inspect

    seen = inspect(candidate)
    return seen.hooks, seen.problem
