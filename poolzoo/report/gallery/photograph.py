"""The photograph that the strategies work on: the user's own, or one that scikit-learn ships."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from poolzoo.common.errors import CheckFailed, UsageError
from poolzoo.data import images

SIDE: Final = 128  # pixels: pooled with stride 4, 32 are left, which still show what they were
SHIPPED: Final = "china.jpg"  # roofs and railings: fine patterns, which is where poolings differ
CREDIT: Final = "china.jpg by danielbuechele, CC BY 2.0, as scikit-learn ships it, cropped and reduced"


@dataclass(frozen=True)
class Photograph:
    """A square picture, `uint8[SIDE, SIDE, 3]`, and whose it is."""

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
        CheckFailed: It is no image, or a damaged one.
    """
    if not path.is_file():
        what = "is no file" if path.exists() else "does not exist"
        raise UsageError(f"image {str(path)!r} {what}", "give an image file, or none for a photograph of ours")
    name = path.name.encode("utf-8", "backslashreplace").decode()  # any bytes may be a file's name
    try:
        return Photograph(images.read(path, (SIDE, SIDE)), name)
    except images.Unreadable as error:
        raise CheckFailed(f"{path} cannot be read: {images.reason(error)}", "give another image") from error
