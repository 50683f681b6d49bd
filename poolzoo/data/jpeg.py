"""Plain JPEGs decoded by simplejpeg: the pixels that Pillow gives, without the time that Pillow takes to open a file.

Both use libjpeg-turbo with the same settings. Whatever is not plain goes to Pillow: other color spaces, an orientation
in the metadata, files with errors or too many pixels. Without simplejpeg everything does.
"""

from __future__ import annotations

import os
from contextlib import suppress
from io import BytesIO
from typing import BinaryIO, Final, NamedTuple

import numpy as np
from PIL import Image

try:
    import simplejpeg
except ImportError:  # no wheel for this machine: Pillow decodes everything
    simplejpeg = None

START: Final = b"\xff\xd8\xff"
COLORS: Final = ("Gray", "YCbCr")  # what Pillow turns into RGB as libjpeg-turbo does
MIN_SIDE: Final = 64  # below it several scales of libjpeg-turbo give the same number of pixels
ORIENTATION: Final = 0x0112  # EXIF tag
_PIXELS: Final = b"\xda"  # marker of the segment that pixels follow
_METADATA: Final = (b"Exif\x00", b"http://ns.adobe.com/xap")  # where an orientation may be


class PlainJpeg(NamedTuple):
    """A JPEG whose pixels need nothing but decoding: its bytes, its height and its width."""

    content: bytes
    height: int
    width: int

    def decode(self, part: int = 1) -> np.ndarray | None:
        """The pixels at 1/part of the size, `uint8[⌈h / part⌉, ⌈w / part⌉, 3]`; None where the file has errors.

        Args:
            part: 1, 2, 4 or 8.
        """
        if part > 1 and min(self.height, self.width) < MIN_SIDE:
            return None
        height, width = -(-self.height // part), -(-self.width // part)
        with suppress(ValueError):
            if part == 1:
                return simplejpeg.decode_jpeg(self.content)  # type: ignore[no-any-return]
            return simplejpeg.decode_jpeg(  # type: ignore[no-any-return]
                self.content, min_height=height, min_width=width, min_factor=part
            )
        return None


def plain_jpeg(file: BinaryIO) -> PlainJpeg | None:
    """Reads a file, if it is a plain JPEG; else None, and the file is at its start again."""
    if simplejpeg is not None and file.read(len(START)) == START:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        content = file.read(size)  # without a size, a buffered file joins two parts to one more copy
        with suppress(ValueError):
            height, width, colors, _ = simplejpeg.decode_jpeg_header(content)
            if colors in COLORS and height * width <= (Image.MAX_IMAGE_PIXELS or 0) and not _turned(content):
                return PlainJpeg(content, height, width)
    file.seek(0)
    return None


def _turned(content: bytes) -> bool:
    """Whether the metadata may say that the image is to be turned."""
    header = _header(content)
    if not any(name in header for name in _METADATA):
        return False
    with suppress(Exception), Image.open(BytesIO(content)) as image:  # damaged metadata makes Pillow raise anything
        return bool(image.getexif().get(ORIENTATION, 1) != 1)
    return True


def _header(content: bytes) -> bytes:
    """The segments before the pixels; everything where they do not follow each other."""
    end = 2
    while content[end : end + 1] == b"\xff":
        if content[end + 1 : end + 2] == _PIXELS:
            return content[:end]
        end += 2 + int.from_bytes(content[end + 2 : end + 4], "big")
    return content
