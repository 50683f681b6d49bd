"""The reliability diagram: how often predictions of each confidence are right, before and after calibration."""

from __future__ import annotations

from typing import Final

from poolzoo.metrics.reliability import Reliability, ReliabilityChange
from poolzoo.report import canvas
from poolzoo.report.curves import GRID, INK, PALE, TRAINING

WIDTH, HEIGHT = 4.2, 4.8  # inches; the axes are square
DPI: Final = 120
SMALLEST, LARGEST = 12.0, 160.0  # areas of a point in square points, by the share of the images in its bin


def draw(found: ReliabilityChange, *, several: bool) -> bytes:
    """A PNG, bitwise reproducible. A point is a bin; its area grows with the number of images in it.

    Args:
        found: The bins.
        several: Whether an image has several labels, so that a probability is that of a label.

    Raises:
        EnvironmentProblem: matplotlib cannot be loaded.
    """
    with canvas.matplotlib_at_its_defaults():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, facecolor="white")
        axes = figure.subplots()
        figure.subplots_adjust(left=0.14, right=0.97, bottom=0.12, top=0.846)
        axes.plot((0, 1), (0, 1), color=PALE, linewidth=1, linestyle=(0, (4, 3)), label="right as often as it says")

        def add(side: Reliability, color: str, name: str) -> None:
            x, y = [one.confidence for one in side.bins], [one.accuracy for one in side.bins]
            total = sum(one.count for one in side.bins)
            areas = [SMALLEST + (LARGEST - SMALLEST) * one.count / total for one in side.bins]
            axes.plot(x, y, color=color, linewidth=1.4, label=f"{name}: ECE {side.ece.value:.4f}")
            axes.scatter(x, y, areas, color=color, linewidths=0, zorder=3)

        if found.after is not None:
            add(found.before, PALE, "plain")
        add(found.now, TRAINING, "plain" if found.after is None else "calibrated")
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
        axes.set_xlabel("probability of a label" if several else "probability of the prediction", size=9.5, color=INK)
        axes.set_ylabel("share of images with it" if several else "share of right predictions", size=9.5, color=INK)
        axes.tick_params(colors=PALE, labelsize=8.5, length=0)
        axes.grid(color=GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[:].set_visible(False)
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), frameon=False, fontsize=8.5, labelcolor=INK)
        return canvas.png(figure)
