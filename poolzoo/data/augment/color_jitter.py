"""Color jitter: brightness, contrast and saturation by random factors in random order, as in torchvision and timm."""

from __future__ import annotations

from typing import Final

import numpy as np
from torch import Tensor

from poolzoo.data.augment import color, draws
from poolzoo.data.augment.policy import change_rows, with_factor

_OPERATORS: Final = tuple(map(with_factor, (color.brightness, color.contrast, color.saturation)))


def jitter(images: Tensor, strength: float, seed: int, epoch: int, positions: np.ndarray) -> Tensor:
    """Multiplies each of the three by a factor between 1 − strength and 1 + strength.

    Args:
        images: `uint8[n, H, W, 3]`; their content changes.
        strength: 0–1; timm's `--color-jitter` has 0.4.
        seed: Of the run.
        epoch: Its number.
        positions: Of the images in their split, `int64[n]`.

    Returns:
        `uint8[n, H, W, 3]`.
    """
    changes = len(_OPERATORS)
    drawn = draws.uniform(seed, epoch, draws.Purpose.COLOR_JITTER, positions, 2 * changes)
    magnitudes = (2 * drawn[:, :changes] - 1) * strength
    order = np.argsort(drawn[:, changes:], axis=1)
    for turn in range(changes):
        for number, operator in enumerate(_OPERATORS):
            rows = np.flatnonzero(order[:, turn] == number)
            if len(rows):
                images = change_rows(images, rows, operator, magnitudes[rows, number])
    return images
