"""The risk–coverage curve as an SVG file, with the share of images that a threshold accepts."""

from __future__ import annotations

import math
from typing import Final

from poolzoo.metrics.abstention import SelectiveMetrics
from poolzoo.metrics.risk_coverage import RiskCoverage
from poolzoo.report.curves import GRID, INK, PALE, TRAINING, VALIDATION

WIDTH, HEIGHT = 504, 324  # CSS pixels
LEFT, RIGHT, TOP, BOTTOM = 62, 486, 34, 276  # of the axes
TICKS: Final = 5  # on the axis of risks, about
STEPS: Final = (1, 2, 5, 10)  # of a tick, times a power of ten


def draw(curve: RiskCoverage, selected: SelectiveMetrics | None) -> str:
    """The SVG.

    Args:
        curve: The curve of test images.
        selected: What a threshold does to these images, which becomes a dot; None where there is none.
    """
    step = _step(max(max(curve.risk), 1e-3))
    highest = step * max(1, math.ceil(max(curve.risk) / step - 1e-9))

    def at(coverage: float, risk: float) -> tuple[float, float]:
        return LEFT + (RIGHT - LEFT) * coverage, BOTTOM - (BOTTOM - TOP) * risk / highest

    drawn = [f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>']
    for index in range(round(highest / step) + 1):
        _, y = at(0, index * step)
        drawn.append(f'<path d="M{LEFT} {y:.1f}H{RIGHT}" stroke="{GRID}"/>')
        drawn.append(_text(LEFT - 8, y + 4, f"{100 * index * step:.4g} %", PALE, "end"))
    for index in range(6):
        x, _ = at(index / 5, 0)
        drawn.append(_text(x, BOTTOM + 18, f"{20 * index} %", PALE, "middle"))
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(at, curve.coverage, curve.risk))
    drawn.append(f'<polyline points="{points}" fill="none" stroke="{TRAINING}" stroke-width="2"/>')
    if selected is not None and selected.accepted:
        x, y = at(selected.coverage, selected.errors / selected.accepted)
        drawn.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{VALIDATION}" stroke="white" stroke-width="1.5"/>')
        drawn.append(_text(RIGHT, TOP - 14, "● accepted images", VALIDATION, "end"))
    drawn.append(_text(LEFT, TOP - 14, f"share of wrong predictions (area {curve.aurc:.4f})", INK, "start"))
    drawn.append(_text((LEFT + RIGHT) / 2, HEIGHT - 10, "share of images, the most certain first", INK, "middle"))
    size = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    style = 'font-family="system-ui, sans-serif" font-size="12.5"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>{"".join(drawn)}</svg>\n'


def _step(largest: float) -> float:
    """A round step that divides an axis up to this value into a few parts."""
    rough = largest / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in STEPS if power * factor >= rough * (1 - 1e-9))


def _text(x: float, y: float, text: str, color: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{color}" text-anchor="{anchor}">{text}</text>'
