"""The confusion matrix as a picture: rows are the truth, columns the prediction, shades the share of the row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from poolzoo.common import files
from poolzoo.common.text import one_line
from poolzoo.report import canvas

CELL: Final = 0.3  # inches a class
MARGIN: Final = 1.6  # inches for the names
DPI: Final = 120
SMALLEST: Final = 4.0  # inches of a side
LARGEST: Final = 14.0
INK: Final = "#262626"
PALE: Final = "#6b6b6b"
WITH_NUMBERS: Final = 25  # classes up to which a cell has room for its count
LONGEST_NAME: Final = 16  # characters of a class's name that fit


def draw(matrix: Sequence[Sequence[int]], classes: Sequence[str], path: Path) -> None:
    """Writes the matrix as a square PNG: bitwise reproducible.

    Args:
        matrix: How often each class (row) was predicted as each class (column), `int[classes, classes]`.
        classes: The names of the classes, shown as they are, on one line, shortened where they are long.
        path: The file, replaced if it exists.

    Raises:
        EnvironmentProblem: matplotlib cannot be loaded.
        OSError: The file cannot be written.
    """
    counts = np.asarray(matrix)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    names = [one_line(name, LONGEST_NAME) for name in classes]
    side = min(max(SMALLEST, CELL * len(names) + MARGIN), LARGEST)
    size = min(9.5, 72 * 0.6 * (side - MARGIN) / len(names))  # points, so that neighboring names do not touch
    with canvas.matplotlib_at_its_defaults():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(side, side), dpi=DPI, facecolor="white", layout="constrained")
        axes = figure.subplots()
        axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1.25)  # the square root makes rare confusions visible
        ticks = np.arange(len(names))
        axes.set_xticks(ticks, names, rotation=90, size=size, color=INK, parse_math=False)
        tested = [name if row.sum() else f"{name} (no image)" for name, row in zip(names, counts, strict=True)]
        axes.set_yticks(ticks, tested, size=size, color=INK, parse_math=False)
        axes.set_xlabel("prediction", size=9.5, color=PALE)
        axes.set_ylabel("truth", size=9.5, color=PALE)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        if len(names) <= WITH_NUMBERS:
            for row, column in np.argwhere(counts):
                color = "white" if shares[row, column] > 0.6 else INK
                text = str(counts[row, column])
                axes.text(column, row, text, ha="center", va="center", size=0.85 * size, color=color)
        content = canvas.png(figure)
    files.write_atomically(path, content)
