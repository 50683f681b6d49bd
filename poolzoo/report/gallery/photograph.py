"""The photograph that the gallery pools: the user's own, or one that scikit-learn ships."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from poolzoo.common import files
from poolzoo.common.errors import CheckFailed, UsageError
from poolzoo.data import images

SIDE: Final = 128  # pixels; with stride 4, 32 are left, enough to recognize it
SHIPPED: Final = "china.jpg"  # roofs and railings: fine patterns, where poolings differ
CREDIT: Final = "china.jpg by danielbuechele, CC BY 2.0, as scikit-learn ships it, cropped and reduced"


@dataclass(frozen=True)
class Photograph:
    """A square picture, `uint8[SIDE, SIDE, 3]`, and its credit."""

    pixels: np.ndarray
    credit: str


def shipped() -> Photograph:
    """The photograph that comes with scikit-learn."""
    from sklearn.datasets import load_sample_image

    return Photograph(images.fit_array(load_sample_image(SHIPPED)[None], (SIDE, SIDE))[0], CREDIT)


def read(path: Path) -> Photograph:
    """The center of an image file.

    Raises:
        UsageError: There is no such file.
        CheckFailed: It is not an image, or it is damaged.
    """
    if not path.is_file():
        raise UsageError(
            f"image {str(path)!r} {files.absence(path)}", "give an image file, or none for the default photograph"
        )
    name = path.name.encode("utf-8", "backslashreplace").decode()  # any bytes may be a file's name
    try:
        return Photograph(images.read(path, (SIDE, SIDE)), name)
    except images.Unreadable as error:
        raise CheckFailed(f"{path} cannot be read: {images.reason(error)}", "give another image") from error
