"""What the statistics of a comparison say, in sentences; differences in points, hundredths of the accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from poolzoo.compare.racing import Stopped
from poolzoo.compare.statistics import POWER, Statistics
from poolzoo.report.results import Delta


def conclusions(found: Statistics) -> list[str]:
    """The differences that were found, what could not be tested, and the smallest difference that would be found."""
    deltas = {name: variant.delta for name, variant in found.variants.items() if variant.delta}
    lines = [_finding(name, "beats", found.baseline, delta, 1) for name, delta in deltas.items() if delta.better]
    if not lines:
        lines = [f"Nothing beats {found.baseline} beyond seed variance and sampling variance."]
    lines += [
        _finding(name, "is worse than", found.baseline, delta, -1) for name, delta in deltas.items() if delta.worse
    ]
    if untested := [name for name, delta in deltas.items() if delta.p is None]:
        names = ", ".join(untested)
        lines.append(f"Too few seeds to compare with {found.baseline}, two in common are needed: {names}.")
    if found.detectable:
        m = found.comparisons
        seen = f"a true difference of {100 * found.detectable:.2f} points is found with a power of {POWER:g}"
        if found.detectable >= 1:
            seen = f"no true difference is found with a power of {POWER:g}"
        lines.append(
            f"With {found.seeds} seeds, {found.images} images and {m} comparison{'s' * (m > 1)}, {seen} at level "
            f"{found.alpha:g}."
        )
    return lines


def race_summary(stopped: Mapping[str, Stopped], seeds: int, seconds: Mapping[str, Sequence[float]]) -> str:
    """How many variants a race stopped, and about how much training that saved.

    Args:
        stopped: By name.
        seeds: S, of the comparison.
        seconds: Training seconds of the finished trials of each variant.
    """
    if not stopped:
        return (
            f"The race stopped none of {len(seconds)} variants: none is worse than another beyond chance early enough."
        )
    saved = sum(fmean(seconds[name]) * (seeds - len(seconds[name])) for name in stopped)
    total = saved + sum(map(sum, seconds.values()))
    left_open = [name for name, one in stopped.items() if not one.decided]
    share = 100 * saved / max(total, 1e-9)
    line = f"The race stopped {len(stopped)} of {len(seconds)} variants: about {share:.0f} % less training."
    if left_open:
        line += f" It left open whether these differ from the baseline: {', '.join(left_open)}."
    return line


def _finding(name: str, verb: str, baseline: str, delta: Delta, sign: int) -> str:
    mean, low, high = (100 * sign * (x or 0.0) for x in (delta.mean, delta.low, delta.high))
    least, most = sorted((low, high))
    p = "p < 0.001" if (delta.p_adjusted or 0.0) < 0.001 else f"p = {delta.p_adjusted:.3f}"
    return f"{name} {verb} {baseline} by {mean:.2f} points ({least:.2f} to {most:.2f}, adjusted {p})."
