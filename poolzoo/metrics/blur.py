"""Blur: Gaussian, defocus, glass, motion and zoom. Each takes and gives `float32[N, H, W, 3]`, 0–1.

Constants are those of CIFAR-10-C: Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common
Corruptions and Perturbations, ICLR 2019, arXiv:1903.12261 (github.com/hendrycks/robustness, make_cifar_c.py).
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil

import numpy as np
import scipy  # its parts are imported when they are used: some take long

from poolzoo.metrics.image_ops import PerImageRng, scale, windows

TAP_TAIL = 1e-5  # weight of the last taps of a motion blur, which are left out: 0.003 gray levels at most


def gaussian_blur(x: np.ndarray, severity: int, rng: PerImageRng) -> np.ndarray:
    """Convolution with a Gaussian, cut off at 4 σ; the border is repeated."""
    return _gaussian(x, scale(x) * (0.4, 0.6, 0.7, 0.8, 1.0)[severity - 1])


def _gaussian(x: np.ndarray, sigma: float) -> np.ndarray:
    blurred: np.ndarray = scipy.ndimage.gaussian_filter(x, sigma, mode="nearest", axes=(1, 2))
    return blurred


def defocus_blur(x: np.ndarray, severity: int, rng: PerImageRng) -> np.ndarray:
    """Convolution with a disk whose edge is softened by a Gaussian; the border is mirrored."""
    radius, softness = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1))[severity - 1]
    kernel = disk(radius, softness, scale(x))[..., None]
    reach = len(kernel) // 2
    padded = np.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)), "reflect")
    # One transform for all images would let the rounding of each depend on the others.
    return np.stack([scipy.signal.fftconvolve(one, kernel, "valid", axes=(0, 1)) for one in padded])


def disk(radius: float, softness: float, factor: float = 1.0) -> np.ndarray:
    """A disk of pixels that sums to one, convolved with a Gaussian of `softness`, both in pixels times `factor`.

    The Gaussian has three taps a side at factor 1, as published.
    """
    half = ceil(factor)
    reach = int(radius * factor)
    square = np.arange(-reach, reach + 1) ** 2
    flat = np.pad((square[:, None] + square <= (radius * factor) ** 2).astype(np.float64), half)
    taps = np.exp(-(np.arange(-half, half + 1) ** 2) / (2 * (softness * factor) ** 2))
    for axis in (0, 1):
        flat = scipy.ndimage.convolve1d(flat, taps, axis, mode="constant")
    kernel: np.ndarray = (flat / flat.sum()).astype(np.float32)
    return kernel


def glass_blur(x: np.ndarray, severity: int, rng: PerImageRng) -> np.ndarray:
    """A Gaussian blur, then pixels take a neighbor's value, once or twice, then the same blur.

    The neighbors lie up to d up or left and d - 1 down or right of a pixel, d = 1 for 32 × 32. The paper exchanges
    the two pixels. Its published script assigns one array view to another, so that the neighbor keeps its value; this
    function does the same. d + 1 rows and columns at the top and left and d - 1 at the other sides stay.
    """
    sigma, rounds = ((0.05, 1), (0.25, 1), (0.4, 1), (0.25, 2), (0.4, 2))[severity - 1]
    x, reach = _gaussian(x, scale(x) * sigma), round(scale(x))
    count, height, width, channels = x.shape
    rows, columns = np.arange(reach + 1, height - reach + 1), np.arange(reach + 1, width - reach + 1)
    for _ in range(rounds):
        step = rng.integers(-reach, reach, 2, len(rows), len(columns))
        index = (rows[:, None] + step[:, 0]) * width + columns + step[:, 1]
        taken = np.take_along_axis(x.reshape(count, -1, channels), index.reshape(count, -1, 1), 1)
        x[:, reach + 1 : height - reach + 1, reach + 1 : width - reach + 1] = taken.reshape(*index.shape, channels)
    return _gaussian(x, scale(x) * sigma)


def motion_blur(x: np.ndarray, severity: int, rng: PerImageRng) -> np.ndarray:
    """A half Gaussian along a direction of each image's own, -45° to 45° from the horizontal."""
    radius, sigma = ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))[severity - 1]
    return streaks(x, scale(x) * radius, scale(x) * sigma, rng.uniform(-45, 45))


def streaks(x: np.ndarray, radius: float, sigma: float, degrees: np.ndarray) -> np.ndarray:
    """ImageMagick's motion blur, `y(p) = Σ k(i) x(p + round(i · (cos a, sin a)))`, `k(i) ∝ exp(-i² / 2σ²)`.

    Args:
        x: `float32[N, H, W, C]`; its border is repeated.
        radius: There are 2 · radius + 1 taps, i = 0, 1, …
        sigma: Of the half Gaussian, in pixels.
        degrees: The angle a of each image, `float[N]`.
    """
    taps = np.exp(-(np.arange(2 * ceil(radius) + 1) ** 2) / (2 * sigma**2))
    taps /= taps.sum()
    taps = taps[: np.searchsorted(np.cumsum(taps), 1 - TAP_TAIL) + 1]
    reach = len(taps)
    padded = np.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)), "edge")
    angle, blurred = np.deg2rad(degrees.astype(np.float64)), np.zeros_like(x)
    for i, tap in enumerate(taps):
        right, down = (np.ceil(i * along - 0.5).astype(np.int64) for along in (np.cos(angle), np.sin(angle)))
        blurred += np.float32(tap) * windows(padded, reach + down, reach + right, x.shape[1:3])
    return blurred


def zoom_blur(x: np.ndarray, severity: int, rng: PerImageRng) -> np.ndarray:
    """The mean of the image and of itself magnified 1, 1.01, 1.02, … times, a side rounded to whole pixels."""
    height, width = x.shape[1:3]
    pixels = np.ascontiguousarray(x.reshape(len(x), height * width, 3).swapaxes(0, 1))
    matrix = _mean_zoom_matrix(height, width, (1.06, 1.11, 1.16, 1.21, 1.26)[severity - 1])
    mixed = matrix @ pixels.reshape(height * width, -1)
    blurred: np.ndarray = mixed.reshape(height * width, len(x), 3).swapaxes(0, 1).reshape(x.shape)
    return blurred


@lru_cache(maxsize=1)  # all blocks of a data set need the same one
def _mean_zoom_matrix(height: int, width: int, stop: float) -> scipy.sparse.csr_array:
    """The matrix `float32[H · W, H · W]` that averages an image and its magnifications."""
    factors = [1.0, *np.arange(1, stop, 0.01)]  # exactly as published: its last bit decides how 32.5 is rounded
    mean = sum(scipy.sparse.kron(magnifier(height, f), magnifier(width, f), "csr") for f in factors) / len(factors)
    return mean.astype(np.float32)


def magnifier(length: int, factor: float) -> scipy.sparse.csr_array:
    """The matrix `[length, length]` that magnifies the middle of an axis by linear interpolation."""
    kept = ceil(length / factor)
    made = round(kept * factor)
    position = (np.arange(length) + (made - length) // 2) * (kept - 1) / (made - 1)
    lower = np.minimum(position.astype(np.int64), kept - 2)
    weight = position - lower
    columns = (length - kept) // 2 + np.stack([lower, lower + 1], 1)
    entries = (np.stack([1 - weight, weight], 1).ravel(), columns.ravel(), 2 * np.arange(length + 1))
    matrix = scipy.sparse.csr_array(entries, shape=(length, length))
    matrix.eliminate_zeros()
    return matrix
