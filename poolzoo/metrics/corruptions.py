"""The corruptions of CIFAR-10-C by name: 15 standard and 4 extra ones, at severities 1 to 5.

Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and Perturbations, ICLR 2019,
arXiv:1903.12261. Constants are the published ones for 32 × 32 (github.com/hendrycks/robustness, make_cifar_c.py).

Severities are the authors'. The mean squared distance from the clean image does not always grow with them: not for
glass blur, frost, elastic transform, spatter and saturate, and motion blur is the same at 3 and 4.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Final

import numpy as np

from poolzoo.common.errors import UsageError
from poolzoo.data.sizes import show
from poolzoo.metrics import blur, digital, noise, weather
from poolzoo.metrics.image_ops import PerImageRng
from poolzoo.plugin.grammar import suggest

_MAIN: Final[dict[str, Callable[[np.ndarray, int, PerImageRng], np.ndarray]]] = {
    "gaussian_noise": noise.gaussian_noise,
    "shot_noise": noise.shot_noise,
    "impulse_noise": noise.impulse_noise,
    "defocus_blur": blur.defocus_blur,
    "glass_blur": blur.glass_blur,
    "motion_blur": blur.motion_blur,
    "zoom_blur": blur.zoom_blur,
    "snow": weather.snow,
    "frost": weather.frost,
    "fog": weather.fog,
    "brightness": digital.brightness,
    "contrast": digital.contrast,
    "elastic_transform": digital.elastic_transform,
    "pixelate": digital.pixelate,
    "jpeg_compression": digital.jpeg_compression,
}
_MORE: Final[dict[str, Callable[[np.ndarray, int, PerImageRng], np.ndarray]]] = {
    "speckle_noise": noise.speckle_noise,
    "gaussian_blur": blur.gaussian_blur,
    "spatter": weather.spatter,
    "saturate": digital.saturate,
}
NAMES: Final = tuple(_MAIN)
EXTRA: Final = tuple(_MORE)
SEVERITIES: Final = (1, 2, 3, 4, 5)

# How corruptions differ from the published ones, for reports.
NOTES: Final = {
    "frost": "a synthetic frost texture from fractal noise, not the authors' photographs of frost",
    "spatter": "water: the rims of drops are found by erosion, not by a Canny edge detector",
}

BLOCK = 2**18  # pixels that are processed at a time


def corrupt(images: np.ndarray, name: str, severity: int, seed: int = 0, *, offset: int = 0) -> np.ndarray:
    """Applies one corruption to images.

    The result for an image depends on the image, its index, the corruption, the severity and the seed only. Lengths in
    pixels are the published ones times min(H, W) / 32, at least the published ones. Values are rounded to integers,
    where the published script truncates them.

    Args:
        images: `uint8[N, H, W, 3]`, H and W at least 8.
        name: One of NAMES or EXTRA.
        severity: 1 to 5.
        seed: Of the random numbers, 0 or more.
        offset: Index of the first image, where `images` is a part of a set.

    Returns:
        `uint8[N, H, W, 3]`.

    Raises:
        UsageError: The name or the severity does not exist, or the images are smaller than 8 × 8.
    """
    known = _MAIN | _MORE
    if name not in known:
        raise UsageError(f"there is no corruption {name!r}", suggest(name, known) or f"there are {', '.join(known)}")
    if severity not in SEVERITIES:
        raise UsageError(f"severity {severity} is not an integer from 1 to 5", "5 is the most severe")
    height, width = images.shape[1:3]
    if min(height, width) < 8:
        raise UsageError(f"images of {show((height, width))} are too small to corrupt", "they need 8×8 pixels")
    key = (seed, zlib.crc32(name.encode()), severity)
    corrupted, step = np.empty_like(images), max(1, BLOCK // (height * width))
    for start in range(0, len(images), step):
        x = images[start : start + step].astype(np.float32) / 255
        y = known[name](x, severity, PerImageRng(len(x), key, offset + start))
        corrupted[start : start + step] = np.rint(255 * np.clip(y, 0, 1))
    return corrupted
