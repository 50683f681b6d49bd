"""The plot of a learning rate range test: the loss over the rate, and the rate that it suggests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from poolzoo.common import files
from poolzoo.common.text import one_line
from poolzoo.report import canvas
from poolzoo.report.curves import GRID, INK, LONGEST_TITLE, PALE, TRAINING, VALIDATION

WIDTH: Final = 7.0  # inches
HEIGHT: Final = 4.0


@dataclass(frozen=True)
class LrCurve:
    """What is drawn: rate and loss of each step, the smoothed losses, and the suggested rate if there is one."""

    rates: Sequence[float]
    losses: Sequence[float]
    smooth: Sequence[float]
    suggestion: float | None


def draw(curve: LrCurve, path: Path, title: str) -> None:
    """Writes the plot as SVG. The file is bitwise reproducible.

    Args:
        curve: The test.
        path: The file, replaced if it exists.
        title: What was trained on what; shown as it is, on one line.

    Raises:
        EnvironmentProblem: matplotlib cannot be loaded.
        OSError: The file cannot be written.
    """
    with canvas.matplotlib_at_its_defaults():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(WIDTH, HEIGHT), facecolor="white")
        axes = figure.subplots()
        figure.subplots_adjust(left=0.1, right=0.97, bottom=0.14, top=0.86)
        axes.set_title(one_line(title, LONGEST_TITLE), loc="left", size=11, color=INK, pad=9, parse_math=False)
        axes.plot(curve.rates, curve.losses, "o", markersize=2.5, color=PALE, markeredgewidth=0, label="loss of a step")
        axes.plot(curve.rates, curve.smooth, color=TRAINING, linewidth=1.8, label="smoothed")
        if curve.suggestion is not None:
            axes.axvline(curve.suggestion, color=VALIDATION, linewidth=1.2, linestyle=(0, (2, 2)))
            axes.annotate(
                f" {curve.suggestion:.2g}",
                (curve.suggestion, 0.02),
                xycoords=("data", "axes fraction"),
                color=VALIDATION,
                size=10,
            )
        low, start = min(curve.smooth), curve.smooth[0]
        axes.set_ylim(low - 0.1 * (start - low + 0.1), start + 0.6 * (start - low + 0.1))  # divergence leaves the plot
        axes.set_xscale("log")
        axes.set_xlabel("learning rate", size=9.5, color=PALE)
        axes.set_ylabel("training loss", size=9.5, color=PALE)
        axes.grid(color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(GRID)
        axes.tick_params(which="both", length=0, labelsize=9.5, labelcolor=PALE)
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, frameon=False, fontsize=9.5)
        content = canvas.svg(figure)
    files.write_atomically(path, content)
