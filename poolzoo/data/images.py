"""Image files to pixels: the one reader that training, evaluation and prediction share. Needs no torch."""

from __future__ import annotations

import importlib
import struct
import zlib
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from poolzoo.data.modes import ScaleCallback, is_deep, levels, levels_of_reader_1, report_narrow_colors
from poolzoo.data.resize import PLAIN, TRANSFORM, TRANSFORMS, Fit, recorded

__all__ = ["PLAIN", "TRANSFORM", "TRANSFORMS", "Fit", "fit", "fit_array", "read", "reason", "recorded", "to_rgb"]

# What Pillow raises at a file that is no image, or a damaged one; RuntimeError is the AVIF plugin's.
Unreadable = (
    *(OSError, ValueError, SyntaxError, RuntimeError, Image.DecompressionBombError),
    *(KeyError, IndexError, TypeError, AttributeError, EOFError, OverflowError, struct.error, zlib.error),
)


@cache
def with_heif() -> bool:
    """Whether HEIC files can be read: they can where pillow-heif is installed."""
    with suppress(ImportError):
        importlib.import_module("pillow_heif").register_heif_opener()
        return True
    return False


# What Pillow opens and cannot decode: videos, and scientific formats that it only recognizes.
NO_PICTURES: Final = frozenset({".mpg", ".mpeg", ".bufr", ".grib", ".h5", ".hdf"})


@cache
def extensions() -> frozenset[str]:
    """The endings, such as `.png`, of the formats that Pillow reads as pictures."""
    with_heif()
    known = Image.registered_extensions().items()
    return frozenset(ending for ending, kind in known if kind in Image.OPEN) - NO_PICTURES


def reason(error: Exception) -> str:
    """Why an image cannot be read, in one line, such as `No such file or directory`."""
    if isinstance(error, UnidentifiedImageError):  # whose text repeats the path
        return "empty, or nothing that Pillow reads"
    text = getattr(error, "strerror", None) or " ".join(str(error).split())
    return text if " " in text else f"{type(error).__name__}: {text}".removesuffix(": ")


def to_rgb(image: Image.Image, how: Fit = PLAIN, on_misfit: ScaleCallback | None = None) -> Image.Image:
    """Any image as RGB: turned by its EXIF orientation, first frame, alpha on white, deep ones by the type's scale."""
    tags, of_16_bits = getattr(image, "tag_v2", {}), any(";16" in str(tile) for tile in getattr(image, "tile", ()))
    image = ImageOps.exif_transpose(image)
    if how.reader == 1 and image.mode[0] in "IF":
        return levels_of_reader_1(image).convert("RGB")
    if how.reader > 1 and is_deep(image, tags):
        return levels(image, tags, on_misfit).convert("RGB")
    if of_16_bits and on_misfit is not None:
        report_narrow_colors(image.convert("RGB"), on_misfit)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def fit(image: Image.Image, size: tuple[int, int], how: Fit = PLAIN) -> Image.Image:
    """An RGB image at (height, width): as it is, or with its shorter side resized and its center cropped."""
    height, width = size
    if image.size == (width, height):
        return image
    return ImageOps.fit(image, (width, height), _filter(how), bleed=(1 - how.crop_pct) / 2)


def _filter(how: Fit) -> Image.Resampling:
    return Image.Resampling[how.interpolation.upper()]


TURNED, MIRRORED_X, MIRRORED_Y = (5, 6, 7, 8), (2, 3, 6, 7), (3, 4, 7, 8)  # EXIF orientations, by what they do


def _scaled(image: Image.Image, size: tuple[int, int], how: Fit, on_misfit: ScaleCallback | None) -> Image.Image | None:
    """A JPEG that is decoded at a part of its size and then fitted; None where it is too small for that.

    What is decoded stays twice as large as what is wanted, so that hardly a level changes (0.15 in the mean).
    """
    if image.format not in ("JPEG", "MPO"):  # asked first: the orientation of a PNG is behind its pixels
        return None
    orientation = image.getexif().get(0x0112, 1)
    full = image.size[::-1] if orientation in TURNED else image.size
    wanted = size[::-1]
    side = min(full[axis] / wanted[axis] for axis in (0, 1)) * how.crop_pct  # pixels of the file for one of ours
    part = next((part for part in (8, 4, 2) if side >= 2 * part), None)
    if part is None:
        return None
    image.draft(None, (image.width // part, image.height // part))
    small = to_rgb(image, how, on_misfit)
    # The last pixel of a side may stand for less than `part` pixels of the file; turning puts it first.
    box = []
    for axis, mirrored in enumerate((MIRRORED_X, MIRRORED_Y)):
        spare = small.size[axis] - full[axis] / part if orientation in mirrored else 0
        start = spare + max(0.0, (full[axis] - wanted[axis] * side) / part / 2)
        box.append((start, min(start + wanted[axis] * side / part, small.size[axis])))  # a rounding may lead outside
    return small.resize(wanted, _filter(how), (box[0][0], box[1][0], box[0][1], box[1][1]))


def read(
    path: Path | BinaryIO, size: tuple[int, int] | None = None, how: Fit = PLAIN, on_misfit: ScaleCallback | None = None
) -> np.ndarray:
    """An image file as `uint8[H, W, 3]`, at (height, width) where `size` is given.

    Args:
        path: The file.
        size: Height and width to bring it to; None to take it as it is.
        how: In which way.
        on_misfit: Called where the values of a deep image do not fit the scale of their type.

    Raises:
        OSError, ValueError, …: One of `Unreadable`: it is no image, or a damaged one.
    """
    with_heif()
    with Image.open(path) as image:
        if size is None:
            return np.asarray(to_rgb(image, how, on_misfit))
        small = _scaled(image, size, how, on_misfit) if how.reader > 1 else None
        return np.asarray(small or fit(to_rgb(image, how, on_misfit), size, how))


def fit_array(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`uint8[N, h, w, 3]` at another (height, width)."""
    if images.shape[1:3] == size:
        return images
    fitted = np.empty((len(images), *size, 3), np.uint8)
    for index, image in enumerate(images):
        fitted[index] = np.asarray(fit(Image.fromarray(image), size))
    return fitted
