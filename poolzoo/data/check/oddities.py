"""What is unusual about an image file, as one bit each: a row of a check keeps them in one number."""

from __future__ import annotations

import os
from functools import cache
from typing import Final

from PIL import Image

from poolzoo.data import images, modes

DEEP, CMYK, ALPHA, FRAMES, TURNED, ONE_BIT, ENDING, PROFILE, HUGE, MISFIT = (1 << bit for bit in range(10))
PLAIN: Final = 1 << 16  # hardly any contrast, or tiny: looks like many others, so that only its bytes are compared
DRAWN: Final = 1 << 17  # mostly paper and ink, such as a scan: drawings look alike, so that copies are to be closer

WORDS: Final = {
    ENDING: "have the ending of another format",
    MISFIT: "have values that do not fit the scale of their type",
    DEEP: "have more than eight bits a channel",
    CMYK: "are in CMYK, whose colors depend on the ink",
    FRAMES: "have several frames or pages, of which the first one counts",
    ALPHA: "are partly transparent and go on white",
    ONE_BIT: "have one bit a pixel",
    PROFILE: "have a color profile that is not sRGB, which is not applied",
    TURNED: "are turned by their EXIF orientation",
    HUGE: "have more pixels than Pillow takes without a warning",
}  # the worst first
_SRGB: Final = (b"sRGB", b"s\0R\0G\0B", b"\0s\0R\0G\0B")  # in the description of a profile, in any of its encodings
_GRAY_SPACE: Final = b"GRAY"


@cache
def _formats() -> dict[str, str]:
    return Image.registered_extensions()


def of_file(image: Image.Image, name: str) -> int:
    """The bits of an image that was opened and not yet decoded."""
    found = 0
    ending = _formats().get(os.path.splitext(name)[1].lower())
    actual = "JPEG" if image.format == "MPO" else image.format  # a JPEG with further views behind it
    if ending is not None and ending != actual and not {ending, actual} <= _FAMILIES.get(ending, set()):
        found |= ENDING
    if modes.is_deep(image, getattr(image, "tag_v2", {})) or any(
        ";16" in str(tile) for tile in getattr(image, "tile", ())
    ):
        found |= DEEP
    if image.mode == "CMYK":
        found |= CMYK
    if image.mode == "1":
        found |= ONE_BIT
    if image.has_transparency_data:
        found |= ALPHA
    if image.format != "MPO" and getattr(image, "is_animated", False):
        found |= FRAMES
    if image.width * image.height > (Image.MAX_IMAGE_PIXELS or float("inf")):
        found |= HUGE
    profile = image.info.get("icc_profile")
    if isinstance(profile, bytes) and profile[16:20] != _GRAY_SPACE and not any(name in profile for name in _SRGB):
        found |= PROFILE
    return found


_FAMILIES: Final = {name: {"PPM", "PBM", "PGM", "PNM"} for name in ("PPM", "PBM", "PGM", "PNM")} | {
    name: {"JPEG2000", "J2K"} for name in ("JPEG2000", "J2K")
}


def orientation(image: Image.Image) -> int:
    """The EXIF orientation of a decoded image, 1 to 8; 1 where it has none."""
    value = image.getexif().get(0x0112, 1)
    return value if value in (*images.MIRRORED_X, *images.TURNED, *images.MIRRORED_Y) else 1
