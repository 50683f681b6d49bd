"""Image files to pixels: the one transform that training, evaluation and prediction share. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageOps

# What `metadata_props` says of it, beside the two values of `Fit`.
TRANSFORM: Final = "EXIF turned, alpha on white, RGB; where the size differs, shorter side resized, centre cropped"


@dataclass(frozen=True)
class Fit:
    """How an image of another size is brought to the wanted one, in timm's words.

    Attributes:
        interpolation: "bilinear" or "bicubic".
        crop_pct: Part of the shorter side that is kept of the centre; at 1 no margin is cut off.
    """

    interpolation: str = "bilinear"
    crop_pct: float = 1.0


PLAIN: Final = Fit()  # how data sets are fitted

# What Pillow raises at a file that is no image, or a damaged one; RuntimeError is the AVIF plugin's.
Unreadable = (OSError, ValueError, SyntaxError, RuntimeError, Image.DecompressionBombError)


@cache
def extensions() -> frozenset[str]:
    """The endings, such as `.png`, of the formats that Pillow reads as pictures."""
    known = Image.registered_extensions().items()
    return frozenset(ending for ending, kind in known if kind in Image.OPEN) - {".mpg", ".mpeg"}


def reason(error: Exception) -> str:
    """Why an image cannot be read, in one line, such as `No such file or directory`."""
    text = getattr(error, "strerror", None) or " ".join(str(error).split())
    return text if " " in text else f"{type(error).__name__}: {text}".removesuffix(": ")


def to_rgb(image: Image.Image) -> Image.Image:
    """Any image as RGB: turned by its EXIF orientation, first frame, alpha on white, 16 bits scaled to 8."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.float64)
        return Image.fromarray(np.rint(wide.clip(0, 65535) / 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":  # floating point: 0 to 1 by custom, else taken as 0 to 255
        pixels = np.asarray(image)
        scaled = pixels * (255 if np.nanmax(pixels) <= 1 else 1)
        return Image.fromarray(np.rint(np.nan_to_num(scaled).clip(0, 255)).astype(np.uint8)).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def fit(image: Image.Image, size: tuple[int, int], how: Fit = PLAIN) -> Image.Image:
    """An RGB image at (height, width): as it is, or with its shorter side resized and its centre cropped."""
    height, width = size
    if image.size == (width, height):
        return image
    filter = Image.Resampling[how.interpolation.upper()]
    return ImageOps.fit(image, (width, height), filter, bleed=(1 - how.crop_pct) / 2)


def read(path: Path, size: tuple[int, int] | None = None, how: Fit = PLAIN) -> np.ndarray:
    """An image file as `uint8[H, W, 3]`, at (height, width) where `size` is given.

    Raises:
        OSError, ValueError, SyntaxError, RuntimeError, DecompressionBombError: It is no image, or a damaged one.
    """
    with Image.open(path) as image:
        rgb = to_rgb(image)
    return np.asarray(rgb if size is None else fit(rgb, size, how))


def fit_array(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`uint8[N, h, w, 3]` at another (height, width)."""
    if images.shape[1:3] == size:
        return images
    fitted = np.empty((len(images), *size, 3), np.uint8)
    for index, image in enumerate(images):
        fitted[index] = np.asarray(fit(Image.fromarray(image), size))
    return fitted
