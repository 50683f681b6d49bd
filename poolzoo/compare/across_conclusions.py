"""What several comparisons say together, in sentences; gains in points, hundredths of the accuracy."""

from __future__ import annotations

from typing import Final

from poolzoo.compare import ranks
from poolzoo.report.across_results import AcrossGroup, AcrossVariant
from poolzoo.report.results import Delta

_VERDICTS: Final = ("better", "worse", "depends", "not tested")


def conclusions(group: AcrossGroup, alpha: float) -> list[str]:
    """Who wins on these test sets, who loses, whose order depends on the data, and what that says about other data."""
    count = len(group.aggregated)
    over = f"Over {count} comparisons on {_count(group.test_sets, 'test set')}"
    by_verdict = {verdict: [row for row in group.variants if row.verdict == verdict] for verdict in _VERDICTS}
    lines = [f"{over}, {_win(row, group)}" for row in by_verdict["better"]]
    if not lines and len(by_verdict["not tested"]) < len(group.variants) - 1:
        lines = [f"{over}, nothing beats {group.baseline} beyond seed variance and sampling variance."]
    if worse := by_verdict["worse"][::-1]:
        lines.append(f"Worse than {group.baseline} in the mean: {', '.join(map(_loss, worse))}.")
    if depends := by_verdict["depends"]:
        named = ", ".join(row.name for row in depends)
        lines.append(
            f"Dependent on the data, and so neither winner nor loser: {named}. A significant difference in one "
            "comparison is contradicted by another, or by the mean."
        )
    if untested := [row.name for row in by_verdict["not tested"]]:
        lines.append(f"Not tested, two seeds in every comparison are needed: {', '.join(untested)}.")
    return [*lines, *_other_data(group, alpha)]


def _win(row: AcrossVariant, group: AcrossGroup) -> str:
    gain = row.gain or Delta()
    mean, low, high = (100 * (x or 0.0) for x in (gain.mean, gain.low, gain.high))
    p = "p < 0.001" if (gain.p_adjusted or 0.0) < 0.001 else f"p = {gain.p_adjusted:.3f}"
    each = sorted(100 * one.cells[row.name].gain for one in group.aggregated)
    rests = f" It rests on {row.rests_on}: without it, the mean is not significant." if row.rests_on else ""
    return (
        f"{row.name} beats {group.baseline} by {mean:.2f} points in the mean ({low:.2f} to {high:.2f}, adjusted {p}). "
        f"Single comparisons have {each[0]:+.2f} to {each[-1]:+.2f}, significant in {row.better_in} of {len(each)}."
        f"{rests}"
    )


def _loss(row: AcrossVariant) -> str:
    gain = row.gain or Delta()
    rests = f" (not significantly without {row.rests_on})" if row.rests_on else ""
    return f"{row.name} by {-100 * (gain.mean or 0.0):.2f} points{rests}"


def _other_data(group: AcrossGroup, alpha: float) -> list[str]:
    """What the test sets, each one observation, say about other data."""
    sets, m = group.test_sets, len(group.variants) - 1
    if sets == 1:
        return ["All of this is about one test set; it says nothing about other data."]
    least = ranks.smallest_p(sets)
    if m * least >= alpha:
        needed = ranks.needed_test_sets(m, alpha)
        return [
            f"All of this is about these {sets} test sets. Of other data they can say nothing: the smallest p of a "
            f"signed-rank test is {least:.2g}, before the correction for {_count(m, 'comparison')}. "
            f"It takes {needed} test sets."
        ]
    sure = [row for row in group.variants if row.elsewhere_p is not None and row.elsewhere_p < alpha]
    level = next(row.accuracy for row in group.variants if row.name == group.baseline)
    ahead = [row.name for row in sure if row.accuracy > level]
    behind = [row.name for row in sure if row.name not in ahead]
    start = f"Taking the {sets} test sets as a sample of others (signed-rank test, Holm)"
    if not sure:
        return [f"{start}, no difference from {group.baseline} is significant."]
    parts = [f"{', '.join(names)} {verb}" for names, verb in ((ahead, "above"), (behind, "below")) if names]
    return [f"{start}, significant are {' and '.join(parts)} {group.baseline}."]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
