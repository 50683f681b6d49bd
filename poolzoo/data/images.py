"""Image files to pixels: the one reader that training, evaluation and prediction share. Needs no torch."""

from __future__ import annotations

import importlib
import struct
import threading
import zlib
from collections.abc import Callable
from contextlib import nullcontext, suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from poolzoo.common.opening import open_file
from poolzoo.data.jpeg import ORIENTATION, plain_jpeg
from poolzoo.data.modes import ScaleCallback, is_deep, levels, levels_of_reader_1, report_narrow_colors
from poolzoo.data.resize import PLAIN, TRANSFORM, TRANSFORMS, Fit, recorded
from poolzoo.data.sizes import Size

__all__ = ["PLAIN", "TRANSFORM", "TRANSFORMS", "Fit", "fit", "fit_array", "read", "reason", "recorded", "to_rgb"]

# What Pillow raises at a file that is no image, or a damaged one; RuntimeError is the AVIF plugin's.
Unreadable = (
    *(OSError, ValueError, SyntaxError, RuntimeError, Image.DecompressionBombError),
    *(LookupError, TypeError, AttributeError, EOFError, OverflowError, AssertionError, BufferError),
    *(struct.error, zlib.error),
)


# Pixels of an image beside which no other one is decoded. Pillow reads images of five times as many, from files of any
# size, and takes six bytes for each pixel.
LARGE: Final = 1 << 25
_alone = threading.Lock()


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
    """The endings, such as `.png`, of the formats that Pillow reads as pictures; MPO it opens as JPEG."""
    with_heif()
    known = Image.registered_extensions().items()
    return frozenset(ending for ending, kind in known if kind in Image.OPEN or kind == "MPO") - NO_PICTURES


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


def _part(full: Size, wanted: Size, how: Fit) -> int:
    """1, 2, 4 or 8: a JPEG of the full size is decoded at one part of it and then fitted.

    What is decoded stays twice as large as what is wanted, so that hardly a level changes (0.15 in the mean).
    """
    return next((part for part in (8, 4, 2) if _pixels(full, wanted, how) >= 2 * part), 1)


def _pixels(full: Size, wanted: Size, how: Fit) -> float:
    """Pixels of the file along one pixel of ours."""
    return min(full[axis] / wanted[axis] for axis in (0, 1)) * how.crop_pct


class Scaled(NamedTuple):
    """An RGB image that was decoded at one part of its size.

    Attributes:
        pixels: `uint8[h, w, 3]`, or an image of Pillow's, which need not be converted for Pillow's own resize.
        full: Height and width in the file, turned by its orientation.
        part: 1, 2, 4 or 8: h and w are the full sides divided by it, rounded up.
        start: Row and column of `pixels` where the image begins: below 1, and 0 but for a turned image.
    """

    pixels: np.ndarray | Image.Image
    full: Size
    part: int = 1
    start: tuple[float, float] = (0.0, 0.0)

    def image(self) -> Image.Image:
        """The pixels as an image of Pillow's."""
        return Image.fromarray(self.pixels) if isinstance(self.pixels, np.ndarray) else self.pixels

    def array(self) -> np.ndarray:
        """The pixels as an array that can be written to."""
        found = self.pixels if isinstance(self.pixels, np.ndarray) else np.asarray(self.pixels)
        return found if found.flags.writeable else found.copy()

    def fitted(self, size: Size | None, how: Fit) -> np.ndarray:
        """The pixels resized and center-cropped to (height, width), `uint8[height, width, 3]`; None as they are."""
        if size is None or (self.part == 1 and self.full == size):
            return np.asarray(self.pixels)
        if self.part == 1:
            return np.asarray(fit(self.image(), size, how))
        side, small = _pixels(self.full, size, how), self.image()
        box = []
        for axis in (1, 0):
            length = small.size[1 - axis]
            start = self.start[axis] + max(0.0, (self.full[axis] - size[axis] * side) / self.part / 2)
            box.append((start, min(start + size[axis] * side / self.part, length)))  # a rounding may lead outside
        return np.asarray(small.resize(size[::-1], _filter(how), (box[0][0], box[1][0], box[0][1], box[1][1])))


def scaled(
    path: Path | BinaryIO, part_of: Callable[[Size], int], how: Fit = PLAIN, on_misfit: ScaleCallback | None = None
) -> Scaled:
    """An image file at a part of its size, where it is a JPEG; any other comes whole.

    Args:
        path: The file.
        part_of: Gives 1, 2, 4 or 8 for the height and width in the file.
        how: By which rules files become pixels.
        on_misfit: Called where the values of a deep image do not fit the scale of their type.

    Raises:
        OSError, ValueError, …: One of `Unreadable`: it is no image, or a damaged one.
    """
    with_heif()
    with open_file(path) if isinstance(path, Path) else nullcontext(path) as file:
        if (plain := plain_jpeg(file)) is not None:
            full = plain.height, plain.width
            part = part_of(full) if how.reader > 1 else 1
            if (pixels := plain.decode(part)) is not None:
                return Scaled(pixels, full, part)
            file.seek(0)  # Pillow is to say what is wrong with it
        return _by_pillow(file, part_of, how, on_misfit)


def _by_pillow(file: BinaryIO, part_of: Callable[[Size], int], how: Fit, on_misfit: ScaleCallback | None) -> Scaled:
    """Any image that Pillow reads, as `scaled` gives it."""
    with Image.open(file) as image:
        orientation, part, full = 1, 1, image.size[::-1]
        if image.format in ("JPEG", "MPO"):  # asked first: the orientation of a PNG is behind its pixels
            orientation = image.getexif().get(ORIENTATION, 1)
            full = image.size if orientation in TURNED else full
            part = part_of(full) if how.reader > 1 else 1
        if part > 1:
            image.draft(None, (image.width // part, image.height // part))
        with _alone if image.width * image.height > LARGE else nullcontext():
            whole = to_rgb(image, how, on_misfit)
    if part == 1:
        return Scaled(whole, whole.size[::-1])  # a PNG's orientation is known by now
    # The last pixel of a side may stand for less than `part` pixels of the file; turning puts it first.
    spare = [whole.size[1 - axis] - full[axis] / part for axis in (0, 1)]
    start = (spare[0] if orientation in MIRRORED_Y else 0.0, spare[1] if orientation in MIRRORED_X else 0.0)
    return Scaled(whole, full, part, start)


def read(
    path: Path | BinaryIO, size: Size | None = None, how: Fit = PLAIN, on_misfit: ScaleCallback | None = None
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
    return read_with_size(path, size, how, on_misfit)[0]


def read_with_size(
    path: Path | BinaryIO, size: Size | None = None, how: Fit = PLAIN, on_misfit: ScaleCallback | None = None
) -> tuple[np.ndarray, Size]:
    """The same, with the height and width that the image has in its file, turned by its orientation."""

    def part_of(full: Size) -> int:
        return 1 if size is None else _part(full, size, how)

    found = scaled(path, part_of, how, on_misfit)
    return found.fitted(size, how), found.full


def fit_array(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`uint8[N, h, w, 3]` at another (height, width)."""
    if images.shape[1:3] == size:
        return images
    fitted = np.empty((len(images), *size, 3), np.uint8)
    for index, image in enumerate(images):
        fitted[index] = np.asarray(fit(Image.fromarray(image), size))
    return fitted
