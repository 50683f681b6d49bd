"""Arrays as pictures: signed differences, and weights over a photograph."""

from __future__ import annotations

from typing import Final

import numpy as np

FULL: Final = 0.25  # of the range from black to white: differences from here on have the full color
BRIGHTER: Final = np.array([255, 176, 59])
DARKER: Final = np.array([64, 156, 255])
FRAME: Final = np.array([72, 74, 78])  # the margin, where nothing is compared
HALF: Final = 0.5  # opacity of the weights over the photograph in gray


def picture(values: np.ndarray) -> np.ndarray:
    """`float[H, W, 3]` in 0–1 as `uint8[H, W, 3]`."""
    pixels: np.ndarray = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
    return pixels


def signed(difference: np.ndarray) -> np.ndarray:
    """`float[H, W]` as `uint8[H, W, 3]`: black is zero, orange above, blue below, NaN gray; one scale for all."""
    strength = np.sqrt(np.clip(np.abs(difference) / FULL, 0, 1))[..., None]  # the root, so that small ones are seen
    color = np.where(difference[..., None] > 0, BRIGHTER, DARKER) * strength
    return np.rint(np.where(np.isnan(strength), FRAME, color)).astype(np.uint8)


def heat(relative: np.ndarray, gray: np.ndarray) -> np.ndarray:
    """Weights over a photograph in gray: `uint8[H, W, 3]`.

    Args:
        relative: `float[h, w]`, the weight of each location in units of a uniform weight; h and w divide H and W.
        gray: `float[H, W]`, the photograph in 0–1.
    """
    from matplotlib import colormaps

    large = np.kron(relative, np.ones((gray.shape[0] // relative.shape[0], gray.shape[1] // relative.shape[1])))
    color = colormaps["inferno"](large / (1 + large))[..., :3]  # a uniform weight in the middle, none at 0, ∞ at 1
    return picture(HALF * color + (1 - HALF) * gray[..., None] * (0.25 + 0.75 * (large / (1 + large))[..., None]))
