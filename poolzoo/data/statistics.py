"""Mean and standard deviation of the color channels of a set of images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from poolzoo.data import blocks
from poolzoo.data.blocks import ImageArray

SMALLEST_STD: Final = 1e-3  # a constant channel stays constant after normalization
Channels = tuple[float, float, float]


@dataclass(frozen=True)
class ChannelStatistics:
    """Mean and standard deviation of R, G and B on the 0–1 scale."""

    mean: Channels
    std: Channels


def channel_statistics(
    images: ImageArray, indices: np.ndarray | None = None, sums: np.ndarray | None = None
) -> ChannelStatistics:
    """Computes the statistics, rounded to six decimals.

    Sums are integers, so that neither the order of the images nor the block size changes the result.

    Args:
        images: `uint8[N, H, W, 3]`, in memory, mapped from a file, or decoded when asked.
        indices: Of the images that count, `int64[n]`; None for all.
        sums: Sum and sum of squares of each image's channels, `int64[N, 3, 2]`; None to read the pixels.
    """
    mean, std = _from_pixels(images, indices) if sums is None else _from_sums(images, indices, sums)
    return ChannelStatistics(
        mean=_rounded(mean),
        std=_rounded([max(value, SMALLEST_STD) for value in std]),
    )


def _from_sums(images: ImageArray, indices: np.ndarray | None, sums: np.ndarray) -> tuple[list[float], list[float]]:
    height, width = images.shape[1:3]
    count = len(images) if indices is None else len(indices)
    total, squares = (sums if indices is None else sums[indices]).sum(0).T.tolist()
    values = count * height * width
    mean = [value / values / 255 for value in total]
    # The variance is computed from integers, so that no digits cancel.
    std = [math.sqrt(values * square - value**2) / values / 255 for value, square in zip(total, squares, strict=True)]
    return mean, std


def _from_pixels(images: ImageArray, indices: np.ndarray | None) -> tuple[list[float], list[float]]:
    counts = np.zeros((3, 256), np.int64)
    for part in blocks.parts(images, indices):
        counts += np.stack([np.bincount(part[..., channel].ravel(), minlength=256) for channel in range(3)])
    histogram, levels = counts / counts.sum(1, keepdims=True), np.arange(256) / 255
    mean = histogram @ levels
    std = np.sqrt(np.maximum(histogram @ levels**2 - mean**2, 0))
    return mean.tolist(), std.tolist()


def _rounded(values: list[float]) -> Channels:
    red, green, blue = (round(value, 6) for value in values)
    return red, green, blue
