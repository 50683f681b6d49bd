"""Building blocks of corruptions: a random generator for each image, fractal noise, crops and interpolation."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import as_strided

SIDE = 32  # of the images that the published constants are for


class PerImageRng:
    """Random numbers for N images, each from the key and the index of its image, so that batching changes nothing.

    Args:
        count: Number N of images.
        key: Integers that all images share, such as seed, corruption and severity.
        offset: Index of the first image.
    """

    def __init__(self, count: int, key: tuple[int, ...], offset: int = 0) -> None:
        self.generators = [np.random.default_rng((*key, index)) for index in range(offset, offset + count)]

    def normal(self, *shape: int) -> np.ndarray:
        """Standard normal, `float32[N, *shape]`."""
        return np.stack([generator.standard_normal(shape, np.float32) for generator in self.generators])

    def uniform(self, low: float, high: float, *shape: int) -> np.ndarray:
        """`float32[N, *shape]` from low to high."""
        return low + np.float32(high - low) * np.stack([g.random(shape, np.float32) for g in self.generators])

    def integers(self, low: int, high: int, *shape: int) -> np.ndarray:
        """`int64[N, *shape]`, `high` excluded."""
        return np.stack([generator.integers(low, high, shape) for generator in self.generators])

    def poisson(self, rates: np.ndarray) -> np.ndarray:
        """`float32[N, …]` from rates of the same shape."""
        return np.stack([g.poisson(r) for g, r in zip(self.generators, rates, strict=True)]).astype(np.float32)


def scale(x: np.ndarray) -> float:
    """The factor for lengths in pixels, given images `[N, H, W, …]`: min(H, W) / 32, at least 1.

    A factor below 1 would shrink lengths of one pixel to nothing.
    """
    return max(1.0, float(min(x.shape[1:3])) / SIDE)


def plasma(rng: PerImageRng, height: int, width: int, decay: float) -> np.ndarray:
    """Fractal noise by the diamond–square algorithm, `float32[N, height, width]`; each whole map runs from 0 to 1.

    The map is periodic and a power of two wide, its corner starts at 0. Each level takes the mean of four neighbors
    plus uniform noise, whose amplitude falls by decay² from a level to the next, as in the published corruptions.
    """
    side = 1 << (max(height, width) - 1).bit_length()
    grid = np.zeros((len(rng.generators), 1, 1), np.float32)  # the points so far, `step` pixels apart
    amplitude = 1.0
    while (count := grid.shape[1]) < side:
        noise = amplitude * rng.uniform(-1, 1, 3, count, count)
        right, below = np.roll(grid, -1, 2), np.roll(grid, -1, 1)
        center = (grid + right + below + np.roll(right, -1, 1)) / 4 + noise[:, 0]
        finer = np.empty((len(grid), 2 * count, 2 * count), np.float32)
        finer[:, ::2, ::2], finer[:, 1::2, 1::2] = grid, center
        finer[:, ::2, 1::2] = (grid + right + center + np.roll(center, 1, 1)) / 4 + noise[:, 1]
        finer[:, 1::2, ::2] = (grid + below + center + np.roll(center, 1, 2)) / 4 + noise[:, 2]
        grid, amplitude = finer, amplitude / decay**2
    grid -= grid.min((1, 2), keepdims=True)
    grid /= grid.max((1, 2), keepdims=True)
    noise_map: np.ndarray = grid[:, :height, :width]
    return noise_map


def windows(padded: np.ndarray, rows: np.ndarray, columns: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A window of each image, at its own row and column.

    Args:
        padded: `[N, h, w, C]`.
        rows, columns: `int[N]`, the windows' upper left pixels.
        size: Height H and width W of the windows.

    Returns:
        `[N, H, W, C]`.
    """
    padded = np.ascontiguousarray(padded)
    count, height, width, channels = padded.shape
    image, row, pixel, channel = padded.strides
    places = (count, height - size[0] + 1, width - size[1] + 1, size[0], size[1] * channels)
    view = as_strided(padded, places, (image, row, pixel, row, channel), writeable=False)
    cropped: np.ndarray = view[np.arange(count), rows, columns].reshape(count, *size, channels)
    return cropped


def bilinear(x: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Bilinear interpolation of images `float32[N, H, W, C]` at positions `[N, H, W]`; borders are mirrored."""
    count, height, width, channels = x.shape
    rows, columns = ((n - 1) - np.abs((n - 1) - at % (2 * n - 2)) for at, n in ((rows, height), (columns, width)))
    top, left = (np.minimum(at.astype(np.int64), n - 2) for at, n in ((rows, height), (columns, width)))
    below, right = ((at - whole).astype(np.float32)[..., None] for at, whole in ((rows, top), (columns, left)))
    first = (np.arange(count)[:, None, None] * height + top) * width + left
    pixels = x.reshape(-1, channels)
    upper = pixels[first] * (1 - right) + pixels[first + 1] * right
    lower = pixels[first + width] * (1 - right) + pixels[first + width + 1] * right
    sampled: np.ndarray = upper * (1 - below) + lower * below
    return sampled
