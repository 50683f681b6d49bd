"""Boxes that are filled with the mean color: random erasing (Zhong et al., 2017, arXiv 1708.04896), and cutout."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import torch
from torch import Tensor

from poolzoo.data.augment import draws
from poolzoo.data.sizes import Size
from poolzoo.data.transfer import put_rows, to_device

# torchvision's and timm's defaults.
AREA: Final = (0.02, 0.33)  # of the image
RATIO: Final = (0.3, 3.3)  # height through width, drawn on a logarithmic scale
_TRIES: Final = 10


def boxes(probability: float, size: Size, seed: int, epoch: int, positions: np.ndarray) -> np.ndarray:
    """The box of each image, drawn as torchvision's `RandomErasing` does.

    Args:
        probability: That an image has one.
        size: Height and width of the images.
        seed: Of the run.
        epoch: Its number.
        positions: Of the images in their split, `int64[n]`.

    Returns:
        Top, bottom, left and right, `int64[n, 4]`; zeros where nothing is erased.
    """
    drawn = draws.uniform(seed, epoch, draws.Purpose.ERASING, positions, 3 + 2 * _TRIES)
    tries = drawn[:, 3:].reshape(-1, _TRIES, 2)
    pixels = size[0] * size[1] * (AREA[0] + tries[..., 0] * (AREA[1] - AREA[0]))
    low, high = map(math.log, RATIO)
    ratio = np.exp(low + tries[..., 1] * (high - low))
    heights, widths = np.rint(np.sqrt(pixels * ratio)), np.rint(np.sqrt(pixels / ratio))
    fits = (heights < size[0]) & (widths < size[1])
    first, everyone = fits.argmax(1), np.arange(len(positions))
    erased = (drawn[:, 0] < probability) & fits.any(1)
    height, width = heights[everyone, first], widths[everyone, first]
    top = np.floor(drawn[:, 1] * (size[0] - height + 1))
    left = np.floor(drawn[:, 2] * (size[1] - width + 1))
    edges = np.stack([top, top + height, left, left + width], 1)
    return np.where(erased[:, None], edges, 0).astype(np.int64)


def squares(centers: np.ndarray, side: int) -> np.ndarray:
    """Squares for cutout around centers `int64[n, 2]`, in the form of `boxes`; they may reach beyond the image."""
    first = centers - side // 2
    edges: np.ndarray = np.stack([first[:, 0], first[:, 0] + side, first[:, 1], first[:, 1] + side], 1)
    return edges


def erase(images: Tensor, edges: np.ndarray, color: np.ndarray) -> Tensor:
    """Fills a box of each image.

    Args:
        images: `uint8[n, H, W, 3]`; their content changes.
        edges: Top, bottom, left and right, `int64[n, 4]`; where all are 0, the image stays.
        color: `uint8[3]`.

    Returns:
        `uint8[n, H, W, 3]`.
    """
    rows = np.flatnonzero(edges.any(1))
    if not len(rows):
        return images
    _, height, width, channels = images.shape
    device = images.device
    chosen = to_device(rows, device)
    top, bottom, left, right = to_device(edges[rows].T[..., None].copy(), device)
    y, x = torch.arange(height, device=device), torch.arange(width * channels, device=device) // channels
    box = ((y >= top) & (y < bottom))[:, :, None] & ((x >= left) & (x < right))[:, None]
    fill = to_device(np.tile(color, width), device)
    kept = images.index_select(0, chosen).view(len(rows), height, width * channels)
    erased = torch.where(box, fill, kept).view(len(rows), height, width, channels)
    return put_rows(images, rows, erased)
