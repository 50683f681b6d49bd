"""The charts of several comparisons as SVG, which need no script: average ranks, and the performance profile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil, floor
from typing import Final, TypeAlias

from poolzoo.report.across_results import AcrossGroup
from poolzoo.report.pieces import Safe, element
from poolzoo.report.plots import SHORT
from poolzoo.report.variants import HUES

Scale: TypeAlias = Callable[[float], float]  # from a value to its place on an axis

WIDTH: Final = 760  # user units of both charts
ROW: Final = 17  # of a name beside the axis of ranks
MARGIN: Final = 190  # on both sides of that axis, for the names
DRAWN: Final = 6  # lines of a performance profile
HEIGHT: Final = 240  # of its axes
LEFT: Final = 46  # of them


def ranks(group: AcrossGroup) -> Safe:
    """The critical-difference diagram of Demšar (2006): average ranks on an axis, the best on the left.

    A bar joins variants of which no two differ significantly.
    """
    rows = sorted(group.variants, key=lambda row: row.average_rank)
    count = len(rows)
    half = ceil(count / 2)
    low, high = 1.0, float(max(count, 2))

    def at(rank: float) -> float:
        return MARGIN + (WIDTH - 2 * MARGIN) * (rank - low) / (high - low)

    axis = 34.0
    drawn = [_line("axis", at(low), axis, at(high), axis)]
    step = max(1, ceil(count / 12))
    for tick in range(1, count + 1, step):
        drawn += [_line("axis", at(tick), axis - 5, at(tick), axis), _text(at(tick), axis - 10, str(tick), "middle")]
    below = axis + 14 + 8 * len(group.joined)
    for place, row in enumerate(rows):
        left = place < half
        y = below + ROW * (1 + (place if left else count - 1 - place))
        x = MARGIN - 8 if left else WIDTH - MARGIN + 8
        kind = "baseline" if row.name == group.baseline else "name"
        points = f"{at(row.average_rank):.1f},{axis:.1f} {at(row.average_rank):.1f},{y - 4:.1f} {x:.1f},{y - 4:.1f}"
        drawn.append(Safe(f'<polyline class="{kind}" points="{points}"/>'))
        label = f"{_short(row.name)}  {row.average_rank:.1f}"
        drawn.append(_text(x - 4 if left else x + 4, y, label, "end" if left else "start", kind))
    for number, (first, last) in enumerate(group.joined):
        y = axis + 10 + 8 * number
        drawn.append(_line("joined", at(rows[first].average_rank) - 3, y, at(rows[last].average_rank) + 3, y))
    return _svg(drawn, below + ROW * (half + 0.5), "ranks")


def profile(group: AcrossGroup) -> Safe:
    """The performance profile of Dolan and Moré (2002), as in Agarwal et al. (2021): runs above each gain.

    It shows the baseline's place, zero, and the variants with the highest mean gain.
    """
    names = _drawn(group)
    gains = {name: [100 * gain for gain in group.profile[name]] for name in names}
    every = [gain for of in gains.values() for gain in of]
    low, high = floor(min([*every, 0.0])), ceil(max([*every, 0.0]))
    high = high if high > low else low + 1

    def x(gain: float) -> float:
        return LEFT + (WIDTH - LEFT - 10) * (gain - low) / (high - low)

    def y(share: float) -> float:
        return 10 + HEIGHT * (1 - share)

    drawn = [_line("axis", LEFT, y(share), WIDTH - 10, y(share)) for share in (0.0, 0.5, 1.0)]
    drawn += [_text(LEFT - 6, y(share) + 4, f"{share:g}", "end") for share in (0.0, 0.5, 1.0)]
    drawn.append(_line("zero", x(0), y(0), x(0), y(1)))
    step = max(1, ceil((high - low) / 10))
    first = ceil(low / step) * step
    drawn += [
        _text(x(tick), y(0) + 16, f"{tick:g}".replace("-", "−"), "middle") for tick in range(first, high + 1, step)
    ]
    drawn.append(_text((LEFT + WIDTH) / 2, y(0) + 34, "gain over the baseline, points", "middle"))
    drawn += [_steps(gains[name], number, (low, high), x, y) for number, name in enumerate(names)]
    return _svg(drawn, HEIGHT + 50, "profile")


def _steps(gains: Sequence[float], number: int, ends: tuple[float, float], x: Scale, y: Scale) -> Safe:
    """The share of runs with at least each gain, from the left end of the axis to the right one."""
    points = [(x(ends[0]), y(1.0))]
    for place, gain in enumerate(gains):
        points += [(x(gain), y(1 - place / len(gains))), (x(gain), y(1 - (place + 1) / len(gains)))]
    points.append((x(ends[1]), y(0.0)))
    shown = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
    return Safe(f'<polyline class="run" style="--hue: var(--hue-{number % HUES})" points="{shown}"/>')


def _drawn(group: AcrossGroup) -> list[str]:
    """The variants of the performance profile."""
    return [row.name for row in group.variants if row.name in group.profile][:DRAWN]


def legend(group: AcrossGroup) -> Safe:
    """The variants of the performance profile with their colors."""
    entries = [
        element("li", element("span", class_="swatch solid", style=f"--hue: var(--hue-{number % HUES})"), name)
        for number, name in enumerate(_drawn(group))
    ]
    return element("ul", *entries, class_="legend")


def shade(gain: float, scale: float) -> str:
    """The style of a cell with a gain: green above the baseline, red below, stronger for more."""
    share = min(1.0, abs(gain) / scale) if scale else 0.0
    return f"--hue: var({'--good' if gain > 0 else '--bad'}); --shade: {share:.3f}"


def scale_of(gains: Sequence[float], share: float) -> float:
    """The size that a share of all gains is below, so that a failure does not pale the rest."""
    every = sorted(map(abs, gains))
    return every[min(len(every) - 1, int(share * len(every)))] if every else 0.0


def _svg(parts: Sequence[Safe], height: float, kind: str) -> Safe:
    """A chart; tables beside it have its figures for those who do not see it."""
    box = f"0 0 {WIDTH} {height:.0f}"
    return element("svg", *parts, viewBox=box, class_=kind, width="100%", aria_hidden="true")


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> Safe:
    return Safe(f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')


def _text(x: float, y: float, content: str, anchor: str, kind: str = "tick") -> Safe:
    return element("text", content, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor, class_=kind)


def _short(name: str) -> str:
    return name if len(name) <= SHORT else name[: SHORT - 1] + "…"
