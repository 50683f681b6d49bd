"""One image as a row of a check: digest, perceptual hashes, size, what is odd, mean colors, a thumbnail.

A JPEG is decoded at a part of its size: 12 million pixels take little more time than one million. Perceptual hashes
are those of `imagehash.phash` [1], of the image and of its mirror image.

[1] Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.util import find_spec
from io import BytesIO
from typing import Any, BinaryIO, Final

import numpy as np
from PIL import Image, ImageOps

from poolzoo.data import images
from poolzoo.data.check import oddities

VERSION: Final = 1  # of a row: of what its fields hold
THUMB: Final = 32  # side of the thumbnail by which pairs are compared
DECODED: Final = 64  # a JPEG is decoded at a part of its size that is no smaller than this
MIN_CONTRAST: Final = 3.0  # levels of standard deviation below which an image looks like any other flat one
MIN_SIDE: Final = 24  # pixels below which similar pictures cannot be distinguished
PAPER_AND_INK: Final = 0.4  # share of a thumbnail near its darkest or lightest level, from which it is a drawing …
NEAR_LEVELS: Final = 16  # … and how near

ROW: Final = np.dtype(
    [
        ("key", "<u8", 2),  # digest of what tells that the image is the same as before
        ("digest", "<u8", 2),  # of the bytes of the file
        ("hash", "<u8"),
        ("mirrored", "<u8"),
        ("size", "<i4", 2),  # height and width, turned by the orientation
        ("odd", "<u4"),
        ("mean", "<f4", 3),
        ("square", "<f4", 3),  # mean of the squares
        ("thumb", "u1", (THUMB, THUMB)),  # luminance of the whole image, squeezed to a square
    ]
)


@cache
def has_hashes() -> bool:
    """Whether near-duplicates can be found: they can where imagehash is installed."""
    return find_spec("imagehash") is not None


def digest(content: bytes) -> Any:
    """128 bits of BLAKE2, `uint64[2]`."""
    return np.frombuffer(hashlib.blake2b(content, digest_size=16).digest(), "<u8")


def look(file: BinaryIO, name: str) -> np.ndarray:
    """The row of an encoded image, without its key.

    Args:
        file: It, at its start.
        name: Of the file, whose ending is compared with its format.

    Raises:
        OSError, ValueError, …: One of `images.Unreadable`: it is no image, or a damaged one.
    """
    images.with_heif()
    content = file.read()
    misfits: list[str] = []
    with Image.open(BytesIO(content)) as image:
        odd = oddities.of_file(image, name)
        height, width = image.height, image.width
        if image.format in ("JPEG", "MPO"):
            image.draft(None, (DECODED, DECODED))
        rgb = images.to_rgb(image, images.PLAIN, lambda kind, _: misfits.append(kind))
        turn = oddities.orientation(image)
    if turn != 1:
        odd |= oddities.TURNED
        height, width = (width, height) if turn in images.TURNED else (height, width)
    if misfits:
        odd |= oddities.MISFIT
    return _row(rgb, (height, width), odd, digest(content))


def look_at_pixels(pixels: np.ndarray) -> np.ndarray:
    """The same of an image that is decoded already, `uint8[H, W, 3]`."""
    size = pixels.shape[0], pixels.shape[1]
    return _row(Image.fromarray(pixels), size, 0, digest(np.ascontiguousarray(pixels).tobytes()))


def _row(rgb: Image.Image, size: tuple[int, int], odd: int, content: np.ndarray) -> np.ndarray:
    row = np.zeros((), ROW)
    counts = np.array(rgb.histogram(), np.float64).reshape(3, 256) / (rgb.width * rgb.height)
    row["mean"] = counts @ np.arange(256)
    row["square"] = counts @ np.arange(256) ** 2
    gray = rgb.convert("L")
    thumb = np.asarray(gray.resize((THUMB, THUMB), Image.Resampling.BOX))
    row["digest"], row["size"], row["thumb"] = content, size, thumb
    plain = thumb.std() < MIN_CONTRAST or min(size) < MIN_SIDE
    extreme = (thumb <= int(thumb.min()) + NEAR_LEVELS) | (thumb >= int(thumb.max()) - NEAR_LEVELS)
    drawn = extreme.mean() > PAPER_AND_INK
    row["odd"] = odd | (oddities.PLAIN if plain else 0) | (oddities.DRAWN if drawn else 0)
    if has_hashes() and not plain:
        row["hash"], row["mirrored"] = _hash(gray), _hash(ImageOps.mirror(gray))
    return row


def _hash(gray: Image.Image) -> np.uint64:
    import imagehash

    return np.uint64(int.from_bytes(np.packbits(imagehash.phash(gray).hash.ravel()).tobytes(), "little"))
