"""Shears, translations and rotations of a batch, each image with its own: the nearest pixel, and black from outside."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from poolzoo.data.sizes import Size

# A map leads from pixels of the result to those of the image: x' = a·x + b·y + c, y' = d·x + e·y + f, where x and y are
# measured from the image's center, and a pixel's place is its own center.


def shear_x(magnitudes: np.ndarray, size: Size) -> np.ndarray:
    """Maps `float64[n, 2, 3]` that shear rows, which leave the upper left corner in place, as AutoAugment has it."""
    # torchvision takes the arctangent, because its own `affine` takes the tangent.
    maps = _identity(len(magnitudes))
    maps[:, 0, 1] = magnitudes
    maps[:, 0, 2] = magnitudes * size[0] / 2
    return maps


def shear_y(magnitudes: np.ndarray, size: Size) -> np.ndarray:
    """The same for columns."""
    maps = _identity(len(magnitudes))
    maps[:, 1, 0] = magnitudes
    maps[:, 1, 2] = magnitudes * size[1] / 2
    return maps


def translate_x(pixels: np.ndarray, size: Size) -> np.ndarray:
    """Maps that move images to the right by whole pixels."""
    maps = _identity(len(pixels))
    maps[:, 0, 2] = -np.trunc(pixels)
    return maps


def translate_y(pixels: np.ndarray, size: Size) -> np.ndarray:
    """Maps that move images down by whole pixels."""
    maps = _identity(len(pixels))
    maps[:, 1, 2] = -np.trunc(pixels)
    return maps


def rotate(degrees: np.ndarray, size: Size) -> np.ndarray:
    """Maps that rotate images around their center, counterclockwise."""
    angles = degrees * (math.pi / 180)
    maps = _identity(len(degrees))
    maps[:, 0, 0] = maps[:, 1, 1] = np.cos(angles)
    maps[:, 0, 1] = -np.sin(angles)
    maps[:, 1, 0] = np.sin(angles)
    return maps


def warp(images: Tensor, maps: Tensor) -> Tensor:
    """Every pixel from the place to which a map sends it.

    Args:
        images: `uint8[n, H, W, 3]`.
        maps: `float32[n, 2, 3]` on the same device.

    Returns:
        `uint8[n, H, W, 3]`.
    """
    count, height, width, channels = images.shape
    device = images.device
    bordered = images.new_zeros(count, height + 2, width + 2, channels)  # what lies outside comes from the border
    bordered[:, 1:-1, 1:-1] = images
    x = torch.arange(width, device=device) - (width - 1) / 2
    y = (torch.arange(height, device=device) - (height - 1) / 2)[:, None]
    entries = maps[..., None, None]
    column, row = (
        torch.addcmul(entries[:, axis, 1] * y + (entries[:, axis, 2] + (length - 1) / 2), entries[:, axis, 0], x)
        .round_()
        .clamp_(-1, length)
        for axis, length in ((0, width), (1, height))
    )
    first = torch.arange(count, device=device) * ((height + 2) * (width + 2)) + (width + 3)  # own pixels
    places = column.add_(row, alpha=width + 2).long().add_(first[:, None, None])
    return bordered.view(-1, channels).index_select(0, places.flatten()).view_as(images)


def _identity(count: int) -> np.ndarray:
    return np.tile(np.eye(2, 3), (count, 1, 1))
