"""The learning curves of a run: losses and scores over its epochs, the best epoch marked."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypedDict

from poolzoo.common import files, json_reader
from poolzoo.common.text import one_line
from poolzoo.metrics.tasks import CLASSIFICATION, TASKS, Task
from poolzoo.report import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH: Final = 10.0  # inches
HEIGHT: Final = 4.5
DPI: Final = 100
# Two colors that color-blind people can distinguish: Okabe and Ito, Color Universal Design, 2008.
TRAINING: Final = "#0072B2"
VALIDATION: Final = "#D55E00"
INK: Final = "#262626"
PALE: Final = "#6b6b6b"
GRID: Final = "#e4e4e4"
FEW: Final = 20  # epochs up to which every one of them gets a dot
NARROWEST: Final = 0.05  # range of an axis of accuracies, so that noise does not look like progress
LONGEST_TITLE: Final = 80  # characters that fit
_DRAWING: Final = threading.Lock()  # the defaults of matplotlib are those of all threads


@dataclass(frozen=True)
class CurvePoint:
    """One epoch of a run; what is None leaves a gap in its curve. Scores are 0–1."""

    epoch: float
    loss: float | None = None
    val_loss: float | None = None
    train_score: float | None = None
    val_score: float | None = None
    task: Task = TASKS[CLASSIFICATION]

    @classmethod
    def from_json(cls, line: Mapping[str, object]) -> CurvePoint:
        """Reads a line of `metrics.jsonl`; NaN and infinities are None."""
        task = next((one for one in TASKS.values() if one.val_key in line), TASKS[CLASSIFICATION])
        return cls(
            epoch=json_reader.number(line.get("epoch")) or 0,
            loss=json_reader.number(line.get("loss")),
            val_loss=json_reader.number(line.get("val_loss")),
            train_score=json_reader.number(line.get(task.train_key)),
            val_score=json_reader.number(line.get(task.val_key)),
            task=task,
        )


Value = Callable[[CurvePoint], float | None]


def draw(points: Sequence[CurvePoint], path: Path, title: str) -> None:
    """Writes the learning curves as a PNG of 1000 × 450 pixels. The file is bitwise reproducible.

    Args:
        points: The epochs in their order.
        path: The file, replaced if it exists.
        title: What was trained on what; shown as it is, on one line.

    Raises:
        EnvironmentProblem: matplotlib cannot be loaded.
        OSError: The file cannot be written.
    """
    with _DRAWING, canvas.matplotlib_at_its_defaults():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, facecolor="white")
        shown = one_line(title, LONGEST_TITLE)
        figure.text(0.06, 0.93, shown, size=12.5, weight="bold", color=INK, va="center", parse_math=False)
        left, right = figure.subplots(1, 2, gridspec_kw={"wspace": 0.16})
        figure.subplots_adjust(left=0.06, right=0.98, bottom=0.12, top=0.8)
        _losses(left, points)
        _scores(right, points)
        content = canvas.png(figure)
    files.write_atomically(path, content)


def _losses(axes: Axes, points: Sequence[CurvePoint]) -> None:
    values = _lines(axes, points, "Loss", lambda point: point.loss, lambda point: point.val_loss)
    if values:
        axes.set_ylim(min(0.0, 1.06 * min(values)), 1.06 * max(values) or 1.0)


def _scores(axes: Axes, points: Sequence[CurvePoint]) -> None:
    task = points[0].task if points else TASKS[CLASSIFICATION]
    title = f"{task.train_score} in training, {task.val_score} in validation" if task.is_multilabel else "Accuracy"
    values = _lines(axes, points, title, lambda point: point.train_score, lambda point: point.val_score)
    if not values:
        return
    low, high = min(values), max(values)
    span = max(high - low, NARROWEST)
    axes.set_ylim(max(high - 1.25 * span, -0.02), min(high + 0.08 * span, 1.02))  # with room for the label below
    validation = [(point.val_score, -point.epoch) for point in points if point.val_score is not None]
    if validation:
        best, epoch = max(validation)  # the first of equal ones, as in training
        _mark(axes, -epoch, best)


def _mark(axes: Axes, epoch: float, score: float) -> None:
    """Marks the best epoch with a ring, and with its score at the foot of a thin line."""
    axes.plot([epoch, epoch], [axes.get_ylim()[0], score], color=VALIDATION, linewidth=0.8, linestyle=(0, (2, 2)))
    axes.plot([epoch], [score], "o", markersize=9, color="white", markeredgecolor=VALIDATION, markeredgewidth=2)
    first, last = axes.get_xlim()
    late = epoch > (first + last) / 2
    axes.annotate(
        f"best epoch {epoch:g}\nvalidation {score:.4f}",
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


class _LineStyle(TypedDict):
    """Keyword arguments of `Axes.plot`."""

    linewidth: float
    marker: str
    markersize: float
    markeredgewidth: float
    clip_on: bool


def _lines(axes: Axes, points: Sequence[CurvePoint], name: str, training: Value, validation: Value) -> list[float]:
    """Draws the two lines of a panel and its frame.

    Returns:
        All values in it.
    """
    found: list[float] = []
    epochs = [point.epoch for point in points]
    for label, value, color in (("training", training, TRAINING), ("validation", validation, VALIDATION)):
        values = [value(point) for point in points]
        known = [one for one in values if one is not None]
        if known:
            style: _LineStyle = {
                "linewidth": 1.8,
                "marker": "o",
                "markersize": 5 if len(points) <= FEW else 2,  # 2 hides in the line, but shows a point between two gaps
                "markeredgewidth": 0,
                "clip_on": False,
            }
            drawn = [math.nan if one is None else one for one in values]
            axes.plot(epochs, drawn, color=color, label=label, **style)
        found += known
    _frame(axes, name, epochs)
    if not found:
        axes.text(0.5, 0.5, "no finite values", transform=axes.transAxes, ha="center", va="center", color=PALE)
        axes.set_yticks([])
        axes.grid(visible=False)
    return found


def _frame(axes: Axes, name: str, epochs: Sequence[float]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title(name, loc="left", y=1, size=11, color=INK, pad=9)  # a given y spares a search for room
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
