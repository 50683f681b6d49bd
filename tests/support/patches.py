"""A data set of several labels with known answers: each label is a colored patch that an image has or has not."""

from __future__ import annotations

from pathlib import Path

PLUGIN = """
import numpy as np
import poolzoo

NAMES = ("red", "green", "blue", "white")
COLORS = np.array([[230, 20, 20], [20, 230, 20], [20, 20, 230], [250, 250, 250]], np.uint8)
SHARES = (0.5, 0.3, 0.2, 0.1)


def load(split, cache_dir):
    generator = np.random.default_rng({"train": 1, "test": 2}[split])
    count = {"train": 400, "test": 160}[split]
    labels = (generator.random((count, 4)) < SHARES).astype(np.uint8)
    images = generator.integers(60, 120, (count, 16, 16, 3), dtype=np.uint8)
    for image, own in zip(images, labels):
        for place in np.flatnonzero(own):
            row, column = generator.integers(0, 3, 2) + 8 * np.array(divmod(place, 2))
            image[row : row + 5, column : column + 5] = COLORS[place]
    return images, labels


@poolzoo.hookimpl
def poolzoo_datasets():
    yield poolzoo.Dataset(name="patches", summary="Colored patches.", load=load, classes=NAMES, flip=False)
"""


def write(folder: Path, name: str = "patches.py", **replaced: str) -> Path:
    """The plugin as a file; `load="lambda split, cache_dir: …"` and the like replace arguments of the data set."""
    text = PLUGIN
    for key, value in replaced.items():
        text = text.replace(
            f"{key}={key.upper() if key == 'flip' else {'load': 'load', 'classes': 'NAMES'}[key]}", f"{key}={value}"
        )
    path = folder / name
    path.write_text(text)
    return path
