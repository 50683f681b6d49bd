"""The rules by which image files become the pixels of one size, as plain values that runs and bundles keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

FILTERS: Final = ("bilinear", "bicubic")
READER: Final = 2  # the rules by which files become pixels; what was trained by older ones is read by them again

# What `metadata_props` says of them, beside the values of `Fit`.
TRANSFORMS: Final = {
    1: "EXIF turned, alpha on white, RGB; where the size differs, shorter side resized, center cropped",
    2: "EXIF turned, alpha on white, RGB, deep images scaled by their type; where the size differs, shorter side "
    "resized, center cropped, after a JPEG was decoded at 1/2, 1/4 or 1/8 of its size where that is twice as large",
}
TRANSFORM: Final = TRANSFORMS[READER]
# The same of a graph that takes photographs: what is left to do before it.
PHOTO_TRANSFORMS: Final = {
    1: "EXIF turned, alpha on white, RGB",
    2: "EXIF turned, alpha on white, RGB, deep images scaled by their type; "
    "training decoded a JPEG at 1/2, 1/4 or 1/8 of its size where that is twice as large as what is wanted",
}


@dataclass(frozen=True)
class Fit:
    """How an image of another size is brought to the wanted one, in timm's words.

    Attributes:
        interpolation: "bilinear" or "bicubic".
        crop_pct: Part of the shorter side that is kept of the center; at 1 no margin is cut off.
        reader: The rules by which files become pixels: 2, or 1 for what was trained before these.
    """

    interpolation: str = "bilinear"
    crop_pct: float = 1.0
    reader: int = READER


PLAIN: Final = Fit()  # how data sets are fitted


def recorded(facts: Mapping[str, Any]) -> Fit:
    """The fit that a run's or a bundle's description holds; where an older one says nothing, what was done then.

    Raises:
        ValueError: It holds no such values.
    """
    fit = Fit(facts.get("interpolation", "bilinear"), facts.get("crop_pct", 1.0), facts.get("reader", 1))
    if fit.interpolation not in FILTERS:
        raise ValueError(f"interpolation {' or '.join(FILTERS)}, but {fit.interpolation!r:.40}")
    if isinstance(fit.crop_pct, bool) or not isinstance(fit.crop_pct, int | float) or not 0 < fit.crop_pct <= 1:
        raise ValueError("crop_pct above 0 and at most 1")
    if isinstance(fit.reader, bool) or not isinstance(fit.reader, int) or fit.reader not in TRANSFORMS:
        raise ValueError("reader that this version of poolzoo knows")
    return fit
