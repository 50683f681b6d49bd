"""A dozen tiny photographs of unequal sizes, as files and as an index."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from poolzoo.plugin.image_index import FileStorage, ImageIndex, Names

SIZES = ((96, 128), (128, 96), (150, 210))  # height and width


def write(folder: Path, count: int, seed: int = 0, prefix: str = "") -> list[str]:
    """Writes smooth noise as JPEGs; gives their names."""
    folder.mkdir(parents=True, exist_ok=True)
    generator, names = np.random.default_rng(seed), []
    for number in range(count):
        height, width = SIZES[number % len(SIZES)]
        small = Image.fromarray(generator.integers(0, 256, (6, 8, 3), np.uint8))
        names.append(f"{prefix}{number:02}.jpg")
        small.resize((width, height), Image.Resampling.BICUBIC).save(folder / names[-1], quality=92)
    return names


def index(folder: Path, count: int = 12) -> ImageIndex:
    """An index of so many photographs in a folder."""
    names = write(folder, count)
    return ImageIndex(FileStorage(str(folder)), Names.of(names), np.arange(count, dtype=np.int32) % 3)


def data_set(folder: Path, train: int = 6, test: int = 2) -> Path:
    """A data set of two classes with so many images each."""
    for split, count in (("train", train), ("test", test)):
        for label, kind in enumerate(("ant", "bee")):
            write(folder / split / kind, count, seed=2 * label + (split == "test"))
    return folder
