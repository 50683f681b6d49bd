"""The learning curves of a run: losses and accuracies over its epochs, the best epoch marked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from poolzoo.common import files, output
from poolzoo.report import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT, DPI = 10.0, 4.5, 100  # inches and dots per inch: 1000 × 450 pixels
# Two colors that color-blind people tell apart: Okabe and Ito, Color Universal Design, 2008.
TRAINING, VALIDATION = "#0072B2", "#D55E00"
INK, PALE, GRID = "#262626", "#6b6b6b", "#e4e4e4"
FEW: Final = 20  # epochs up to which every one of them gets a dot
NARROWEST: Final = 0.05  # of an axis of accuracies, so that noise does not look like progress
LONGEST_TITLE: Final = 80  # characters that fit


def draw(lines: Sequence[dict[str, Any]], path: Path, title: str) -> None:
    """Writes the learning curves as a PNG of 1000 × 450 pixels: the same bytes for the same lines.

    Args:
        lines: The objects of `metrics.jsonl`, with `epoch`, `loss`, `train_accuracy` and `val_accuracy`, and `val_loss`
            where it was measured. What is missing, None, NaN or infinite leaves a gap.
        path: The file, replaced if it exists.
        title: What was trained on what; shown as it is, on one line.

    Raises:
        EnvironmentProblem: matplotlib cannot be loaded.
        OSError: The file cannot be written.
    """
    with canvas.matplotlib_at_its_defaults():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, facecolor="white")
        shown = output.one_line(title, LONGEST_TITLE)
        figure.text(0.06, 0.93, shown, size=12.5, weight="bold", color=INK, va="center", parse_math=False)
        left, right = figure.subplots(1, 2, gridspec_kw={"wspace": 0.16})
        figure.subplots_adjust(left=0.06, right=0.98, bottom=0.12, top=0.8)
        _losses(left, lines)
        _accuracies(right, lines)
        content = canvas.png(figure)
    files.write_atomically(path, content)


def _losses(axes: Axes, lines: Sequence[dict[str, Any]]) -> None:
    values = _lines(axes, lines, "Loss", "loss", "val_loss")
    if values:
        axes.set_ylim(min(0.0, 1.06 * min(values)), 1.06 * max(values) or 1.0)


def _accuracies(axes: Axes, lines: Sequence[dict[str, Any]]) -> None:
    values = _lines(axes, lines, "Accuracy", "train_accuracy", "val_accuracy")
    if not values:
        return
    low, high = min(values), max(values)
    span = max(high - low, NARROWEST)
    axes.set_ylim(max(high - 1.25 * span, -0.02), min(high + 0.08 * span, 1.02))  # below is room for the label
    validation = [(value, -epoch) for epoch, value in _points(lines, "val_accuracy") if math.isfinite(value)]
    if validation:
        best, epoch = max(validation)  # the first of equal ones, as the run chooses
        _mark(axes, -epoch, best)


def _mark(axes: Axes, epoch: float, accuracy: float) -> None:
    """A ring around the best epoch, and at the foot of a thin line from it what it reached."""
    axes.plot([epoch, epoch], [axes.get_ylim()[0], accuracy], color=VALIDATION, linewidth=0.8, linestyle=(0, (2, 2)))
    axes.plot([epoch], [accuracy], "o", markersize=9, color="white", markeredgecolor=VALIDATION, markeredgewidth=2)
    first, last = axes.get_xlim()
    late = epoch > (first + last) / 2
    axes.annotate(
        f"best epoch {epoch:g}\nvalidation {accuracy:.4f}",
        (epoch, 0.04),
        xycoords=("data", "axes fraction"),
        xytext=(-6 if late else 6, 0),
        textcoords="offset points",
        ha="right" if late else "left",
        color=VALIDATION,
        size=9.5,
        linespacing=1.3,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5, "alpha": 0.85},
    )


def _lines(axes: Axes, lines: Sequence[dict[str, Any]], name: str, *keys: str) -> list[float]:
    """Draws the training and the validation line of a panel and its frame; gives all finite values in it."""
    found = []
    for label, key, color in zip(("training", "validation"), keys, (TRAINING, VALIDATION), strict=True):
        points = _points(lines, key)
        finite = [value for _, value in points if math.isfinite(value)]
        if finite:
            dot = 5 if len(points) <= FEW else 2  # 2 hides in the line, but shows a point between two gaps
            style: dict[str, Any] = {
                "linewidth": 1.8,
                "marker": "o",
                "markersize": dot,
                "markeredgewidth": 0,
                "clip_on": False,
            }
            axes.plot(*zip(*points, strict=True), color=color, label=label, **style)
        found += finite
    _frame(axes, name, [line["epoch"] for line in lines])
    if not found:
        axes.text(0.5, 0.5, "no finite values", transform=axes.transAxes, ha="center", va="center", color=PALE)
        axes.set_yticks([])
        axes.grid(visible=False)
    return found


def _points(lines: Sequence[dict[str, Any]], key: str) -> list[tuple[float, float]]:
    """(epoch, value) of every line, NaN where there is no finite value."""
    values = [float(math.nan if line.get(key) is None else line[key]) for line in lines]
    return [(line["epoch"], v if math.isfinite(v) else math.nan) for line, v in zip(lines, values, strict=True)]


def _frame(axes: Axes, name: str, epochs: Sequence[int]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title(name, loc="left", size=11, color=INK, pad=9)
    axes.set_xlabel("epoch", size=9.5, color=PALE)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    axes.tick_params(length=0, labelsize=9.5, labelcolor=PALE)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    first, last = min(epochs, default=1), max(epochs, default=1)
    air = max(0.03 * (last - first), 0.25)
    axes.set_xlim(first - air, last + air)
    if axes.lines:
        axes.legend(
            loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, frameon=False, fontsize=9.5, borderaxespad=0.3
        )
