"""Tiny data sets of image files, the same each time. Their classes differ in color, so a few steps learn them."""

from __future__ import annotations

import colorsys
import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

NOISE: Final = 25  # of 255 levels, around the color of a class
SPLITS: Final = ("train", "test")


def write_image_folder(folder: Path, *, classes: Sequence[str], train: int, test: int, size: int) -> None:
    """Writes `folder/SPLIT/CLASS/N.png`, square RGB images.

    Args:
        folder: The folder; it must not exist.
        classes: The names of the classes.
        train: Training images of each class.
        test: Test images of each class.
        size: Height and width in pixels.
    """
    for split, label, index, image in _images(len(classes), train, test, size):
        path = folder / split / classes[label] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)


def write_image_table(
    folder: Path, *, classes: Sequence[str], train: int, test: int, size: int, multilabel: bool
) -> Path:
    """Writes images and a table of them; returns the table, for `csv:`.

    Args:
        folder: As for `write_image_folder`, and the rest too.
        classes: The names of the classes.
        train: Training images of each class.
        test: Test images of each class.
        size: Height and width in pixels.
        multilabel: Every second image has the next class too, as its lower half.
    """
    folder.mkdir(parents=True)
    table = folder / "images.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("path", "label", "split"))
        for split, label, index, image in _images(len(classes), train, test, size):
            names = [classes[label]]
            if multilabel and index % 2:
                other = (label + 1) % len(classes)
                names.append(classes[other])
                image.paste(Image.fromarray(_pixels(other, len(classes), size, index)[size // 2 :]), (0, size // 2))
            name = f"{split}-{label}-{index}.png"
            image.save(folder / name)
            rows.writerow((name, ";".join(names), split))
    return table


def _images(classes: int, train: int, test: int, size: int) -> Iterator[tuple[str, int, int, Image.Image]]:
    """Split, class, number and image, one after the other."""
    for split, count in zip(SPLITS, (train, test), strict=True):
        for label in range(classes):
            for index in range(count):
                seed = index if split == "train" else train + index
                yield split, label, index, Image.fromarray(_pixels(label, classes, size, seed))


def _pixels(label: int, classes: int, size: int, seed: int) -> np.ndarray:
    """Noise around the color of a class, `uint8[size, size, 3]`."""
    color = 255 * np.array(colorsys.hsv_to_rgb(label / classes, 0.8, 0.8))
    noise = np.random.default_rng((label, seed)).integers(-NOISE, NOISE + 1, (size, size, 3))
    return (color + noise).clip(0, 255).astype(np.uint8)
