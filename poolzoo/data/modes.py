"""Gray images of more than eight bits to eight: which value is black and which is white in every mode.

The scale is that of the type, so that it is the same for every image of a data set:

    unsigned integers   0 is black, 2^bits - 1 is white; bits are those of the file: 16 of a PNG, 12, 16 or 32 of a TIFF
    signed integers     0 is black, 2^(bits - 1) - 1 is white; negative values are black
    floating point      0 is black; 1 is white where no pixel is above 1, else 255
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from PIL import Image

Tags = Mapping[int, Any]
ScaleCallback = Callable[
    [str, str], None
]  # gets, of an image whose values do not fit the scale, which way and the values

OUTSIDE: Final = "have many pixels outside of the scale of their type, which become black or white"
NARROW: Final = "use a quarter or less of the scale of their type"
STRIP: Final = 1 << 22  # pixels that are converted at a time: ten floats of each are held meanwhile
MAX_OUTSIDE, MIN_USED = 0.25, 0.25  # shares of the pixels, and of the scale, from which on an image is reported

_BITS, _PHOTOMETRIC, _FORMAT = 258, 262, 339  # tags of TIFF
_WHITE_IS_ZERO, _SIGNED = 0, 2  # values of the last two


def is_deep(image: Image.Image, tags: Tags) -> bool:
    """Whether the pixels of an image are of more than eight bits, or signed."""
    return image.mode[0] in "IF" or (image.mode == "L" and tags.get(_FORMAT, (1,))[0] == _SIGNED)


def levels(image: Image.Image, tags: Tags, on_misfit: ScaleCallback | None = None) -> Image.Image:
    """An image for which `is_deep` holds, by the scale of its type, as mode "L".

    Args:
        image: The image, perhaps turned.
        tags: Those of its file where that is a TIFF, else none.
        on_misfit: Called where values do not fit the scale.

    Raises:
        ValueError: No pixel is a finite number.
    """
    pixels, white = _values(image, tags)
    inverted = tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO and image.mode != "L"  # Pillow inverts eight bits alone
    found = np.empty(pixels.shape, np.uint8)
    finite, inside, low, high = 0, 0, np.inf, -np.inf
    step = max(1, STRIP // max(1, image.width))
    for top in range(0, len(pixels), step):
        values = pixels[top : top + step]
        values = values if image.mode == "F" else values.astype(np.float64)
        shown = values[np.isfinite(values)]
        finite += shown.size
        inside += int(np.count_nonzero((shown >= 0) & (shown <= white)))
        low, high = min(low, float(shown.min(initial=np.inf))), max(high, float(shown.max(initial=-np.inf)))
        scaled = np.nan_to_num(values).clip(0, white) * (255 / white)
        found[top : top + step] = np.rint(255 - scaled if inverted else scaled)
    if not finite:
        raise ValueError("no pixel is a finite number")
    if on_misfit is not None:
        _report_misfit((low, high), 1 - inside / pixels.size, white, on_misfit)
    return Image.fromarray(found)


def report_narrow_colors(image: Image.Image, on_misfit: ScaleCallback) -> None:
    """Notes colors that use little of the 16 bits that the file has; Pillow reads the upper eight."""
    pixels = np.asarray(image)
    low, high = int(pixels.min()), int(pixels.max())
    if high - low <= MIN_USED * 255:
        on_misfit(NARROW, f"{low * 256:,} to {high * 256 + 255:,} of 0 to 65,535")


def levels_of_reader_1(image: Image.Image) -> Image.Image:
    """The same by the rules of reader 1, which clamped all integers to 0–65535."""
    pixels = np.asarray(image).astype(np.float64 if image.mode[0] == "I" else np.float32)
    if image.mode[0] == "I":
        return Image.fromarray(np.rint(pixels.clip(0, 65535) / 257).astype(np.uint8))
    scaled = pixels * (255 if np.nanmax(pixels) <= 1 else 1)
    return Image.fromarray(np.rint(np.nan_to_num(scaled).clip(0, 255)).astype(np.uint8))


def _values(image: Image.Image, tags: Tags) -> tuple[np.ndarray, float]:
    """The pixels as they are stored, `[H, W]`, and the value that is white."""
    pixels = np.asarray(image)
    if image.mode == "F":
        brightest = pixels.max(initial=-np.inf, where=np.isfinite(pixels))
        return pixels, 1.0 if -np.inf < brightest <= 1 else 255.0
    if image.mode == "L":
        return pixels.view(np.int8), 127.0
    signed = tags.get(_FORMAT, (1,))[0] == _SIGNED
    bits = tags.get(_BITS, (16,))[0]  # what is no TIFF comes at 16 bits, in whatever mode
    if bits == 32 and not signed:
        pixels = pixels.view(np.uint32)
    return pixels, float(2 ** (bits - signed) - 1)


def _report_misfit(used: tuple[float, float], outside: float, white: float, on_misfit: ScaleCallback) -> None:
    """Notes values that do not fit: the least and the largest, and the share of the pixels beyond the scale."""
    low, high = used
    text = f"{low:,.6g} to {high:,.6g} of 0 to {white:,.10g}"
    if outside > MAX_OUTSIDE:
        on_misfit(OUTSIDE, text)
    elif min(high, white) - max(low, 0) <= MIN_USED * white:
        on_misfit(NARROW, text)
