"""Brightness, contrast, saturation, elastic, pixelate and JPEG. Each takes and gives `float32[N, H, W, 3]`, 0–1.

Constants are those of CIFAR-10-C: Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common
Corruptions and Perturbations, ICLR 2019, arXiv:1903.12261 (github.com/hendrycks/robustness, make_cifar_c.py).
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import scipy  # its parts are imported when they are used: some take long
from PIL import Image

from poolzoo.metrics.image_ops import SIDE, PerImageRng, bilinear

TINY = 1e-6  # a smaller value or saturation counts as 0


def brightness(x: np.ndarray, severity: int, rng: PerImageRng) -> np.ndarray:
    """The value V = max(R, G, B) of HSV rises, at most to 1; hue and saturation stay."""
    rise = (0.05, 0.10, 0.15, 0.20, 0.30)[severity - 1]
    value = x.max(-1, keepdims=True)
    raised = np.minimum(value + rise, 1)
    brighter: np.ndarray = np.where(value < TINY, raised, x * raised / np.maximum(value, TINY))
    return brighter


def saturate(x: np.ndarray, severity: int, rng: PerImageRng) -> np.ndarray:
    """The saturation S = 1 - min / max of HSV becomes a S + b, at most 1; hue and value stay. Gray has the hue red."""
    gain, rise = ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2))[severity - 1]
    value = x.max(-1, keepdims=True)
    saturation = 1 - x.min(-1, keepdims=True) / np.maximum(value, TINY)
    wanted = np.clip(gain * saturation + rise, 0, 1)
    colored = value - (value - x) * wanted / np.maximum(saturation, TINY)
    red = value * (1 - wanted * np.array([0, 1, 1], np.float32))
    saturated: np.ndarray = np.where(saturation < TINY, red, colored)
    return saturated


def contrast(x: np.ndarray, severity: int, rng: PerImageRng) -> np.ndarray:
    """Each channel moves towards its mean: `m + c (x - m)`."""
    contrast_left = (0.75, 0.5, 0.4, 0.3, 0.15)[severity - 1]
    mean = x.mean((1, 2), keepdims=True)
    faded: np.ndarray = mean + contrast_left * (x - mean)
    return faded


def elastic_transform(x: np.ndarray, severity: int, rng: PerImageRng) -> np.ndarray:
    """A random affine map, then a smooth random displacement of the pixels; both interpolate and mirror the border.

    The affine map moves three corners of a square about the center by up to `jitter` an axis. The displacement is
    uniform noise smoothed with σ (cut off at 3 σ), times an amplitude; at severity 1 there is none. Lengths are shares
    of the image's size, below 32 pixels too; the amplitude goes with the square of the size, since smoothing with a
    longer σ divides the noise by it.
    """
    amplitude, sigma, jitter = (
        (0, 0, 2.56),
        (1.6, 6.4, 2.24),
        (2.56, 1.92, 1.92),
        (3.2, 1.28, 1.6),
        (3.2, 0.96, 0.96),
    )[severity - 1]
    height, width = x.shape[1:3]
    factor = min(height, width) / SIDE
    center, half = np.array([height, width]) // 2, min(height, width) // 3
    corners = center + half * np.array([[1, 1], [1, -1], [-1, -1]])
    moved = corners + rng.uniform(-jitter * factor, jitter * factor, 3, 2)
    # The map from an output's position to the input's: [row, column, 1] @ solution.
    solution = np.linalg.solve(
        np.concatenate([moved, np.ones((len(x), 3, 1))], 2), np.broadcast_to(corners, moved.shape)
    )
    rows, columns = np.mgrid[:height, :width]
    places = np.stack([rows, columns, np.ones_like(rows)], -1) @ solution[:, None]
    x = bilinear(x, places[..., 0], places[..., 1])
    if not amplitude:
        return x
    noise = rng.uniform(-1, 1, 2, height, width)
    smooth = scipy.ndimage.gaussian_filter(noise, sigma * factor, mode="reflect", truncate=3, axes=(2, 3))
    smooth *= amplitude * factor**2
    return bilinear(x, rows + smooth[:, 0], columns + smooth[:, 1])


def pixelate(x: np.ndarray, severity: int, rng: PerImageRng) -> np.ndarray:
    """The image is reduced and enlarged again, both by area averages (Pillow's box filter)."""
    share = (0.95, 0.90, 0.85, 0.75, 0.65)[severity - 1]
    height, width = x.shape[1:3]
    size = int(width * share), int(height * share)
    box = Image.Resampling.BOX
    return _through_pillow(x, lambda image: image.resize(size, box).resize((width, height), box))


def jpeg_compression(x: np.ndarray, severity: int, rng: PerImageRng) -> np.ndarray:
    """Written as JPEG with a low quality and read again."""
    quality = (80, 65, 58, 50, 40)[severity - 1]

    def compressed(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file)

    return _through_pillow(x, compressed)


def _through_pillow(x: np.ndarray, change: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    changed = [np.asarray(change(Image.fromarray(one))) for one in np.rint(255 * x).astype(np.uint8)]
    return np.stack(changed).astype(np.float32) / 255
