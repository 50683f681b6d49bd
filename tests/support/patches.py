"""A data set of several labels with known answers: each label is a colored patch that an image has or has not."""

from __future__ import annotations

from pathlib import Path

PLUGIN = """
import numpy as np
import poolzoo

NAMES = ("red", "green", "blue", "white")
COLORS = np.array([[230, 20, 20], [20, 230, 20], [20, 20, 230], [250, 250, 250]], np.uint8)
SHARES = (0.5, 0.3, 0.2, 0.15)


def load(split, cache_dir):
    generator = np.random.default_rng({"train": 1, "test": 2}[split])
    count = {"train": 240, "test": 80}[split]
    labels = (generator.random((count, 4)) < SHARES).astype(np.uint8)
    images = generator.integers(60, 120, (count, 16, 16, 3), dtype=np.uint8)
    for image, own in zip(images, labels):
        for place in np.flatnonzero(own):
            row, column = generator.integers(0, 3, 2) + 8 * np.array(divmod(place, 2))
            image[row : row + 5, column : column + 5] = COLORS[place]
    CHANGE
    return images, labels


@poolzoo.hookimpl
def poolzoo_datasets():
    yield poolzoo.Dataset(name="patches", summary="Colored patches.", load=load, classes=NAMES)
"""


def write(folder: Path, change: str = "") -> Path:
    """The plugin as a file; `change` is a line of Python that changes `images` and `labels` of a `split`."""
    path = folder / "patches.py"
    path.write_text(PLUGIN.replace("CHANGE", change))
    return path
