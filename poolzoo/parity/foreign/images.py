"""The images on which a file is compared with its module: the user's own, or photographs and colored noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from poolzoo.common import output
from poolzoo.common.errors import CheckFailed, UsageError
from poolzoo.data import images as reader
from poolzoo.data import walk
from poolzoo.data.sizes import Size
from poolzoo.data.synthetic import synthetic_images

SYNTHETIC = 16
MAX_NATURAL = 64  # of a folder, evenly spaced
SHIPPED = ("china.jpg", "flower.jpg")  # photographs that scikit-learn ships


def gather(source: Path | None, size: Size) -> tuple[list[str], np.ndarray]:
    """Names and pixels, `uint8[N, H, W, 3]`: natural images first, then colored noise.

    Args:
        source: A folder of images or an image; None for parts of two photographs that scikit-learn ships.
        size: Height and width to bring them to.

    Raises:
        UsageError: There is no such file, or a folder without images.
        CheckFailed: An image cannot be read.
    """
    names, natural = _shipped(size) if source is None else _read(source, size)
    noise = synthetic_images(size, SYNTHETIC)
    names = [*names, *(f"synthetic image {index}" for index in range(SYNTHETIC))]
    return names, np.concatenate([np.stack(natural), noise]) if natural else noise


def evenly_spaced(count: int, most: int) -> np.ndarray:
    """The places of at most so many of `count` things, from the first to the last."""
    return np.unique(np.linspace(0, count - 1, most).round().astype(int))


def _read(source: Path, size: Size) -> tuple[list[str], list[np.ndarray]]:
    if source.is_dir():
        tally = walk.Tally()
        files = [Path(name) for name in walk.images_under(str(source), tally)]
        if not files:
            ignored = f" ({line})" if (line := tally.line()) else ""
            raise UsageError(f"folder {source} holds no image{ignored}", "--images takes an image or a folder of them")
        if len(files) > MAX_NATURAL:
            output.detail(f"{MAX_NATURAL} of {len(files):,} images are compared")
        files = [files[at] for at in evenly_spaced(len(files), MAX_NATURAL)]
    elif source.is_file():
        files = [source]
    else:
        raise UsageError(f"--images {source} does not exist", "it takes an image or a folder of them")
    pixels = []
    for file in files:
        try:
            pixels.append(reader.read(file, size))
        except reader.Unreadable as error:
            raise CheckFailed(f"{file} cannot be read: {reader.reason(error)}", "leave it out of --images") from error
    return [file.name for file in files], pixels


def _shipped(size: Size) -> tuple[list[str], list[np.ndarray]]:
    """The center, the left and the right part of each photograph, at three scales."""
    try:
        from sklearn.datasets import load_sample_image
    except ImportError:
        return [], []
    names, pixels = [], []
    for name in SHIPPED:
        photograph = np.asarray(load_sample_image(name))
        height, width = photograph.shape[:2]
        side = min(height, width)
        for part, left in (("center", (width - side) // 2), ("left", 0), ("right", width - side)):
            cut = photograph[:side, left : left + side]
            names.append(f"{part} of {name}")
            pixels.append(reader.fit_array(cut[None], size)[0])
    return names, pixels
