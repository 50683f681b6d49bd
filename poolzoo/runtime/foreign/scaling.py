"""How images become the numbers that a network takes: a range, then a mean and a standard deviation of each channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Scaling:
    """Values in 0–1 are stretched to a range; the mean is subtracted, and the result divided by `std`.

    Attributes:
        low, high: What black and white become.
        mean, std: Of each of three channels, in these terms.
    """

    low: float = 0.0
    high: float = 1.0
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)

    @property
    def is_identity(self) -> bool:
        """Whether values stay as they are."""
        return bool((self.factor == 1).all() and (self.offset == 0).all())

    @property
    def is_possible(self) -> bool:
        """Whether float32 can hold what it computes with."""
        if min(self.std) <= 0:
            return False
        with np.errstate(invalid="ignore"):
            white = self.factor + self.offset
        return bool(np.isfinite((self.factor, self.offset, white)).all())

    @cached_property
    def factor(self) -> np.ndarray:
        """What a value in 0–1 is multiplied by, `float32[3, 1, 1]`."""
        return _column([(self.high - self.low) / one for one in self.std])

    @cached_property
    def offset(self) -> np.ndarray:
        """What is added then, `float32[3, 1, 1]`."""
        return _column([(self.low - mean) / std for mean, std in zip(self.mean, self.std, strict=True)])

    def apply(self, images: np.ndarray) -> np.ndarray:
        """Images in 0–1, `float32[N, 3, H, W]`, as the network takes them."""
        return np.asarray(images * self.factor + self.offset)

    def undo(self, images: np.ndarray) -> np.ndarray:
        """What becomes `images` by this scaling."""
        return np.asarray((images - self.offset) / self.factor)

    def describe(self) -> str:
        """`in 0–1, minus the mean (…), by the standard deviation (…)`."""
        text = f"in {self.low:g}–{self.high:g}"
        if any(self.mean) or set(self.std) != {1.0}:
            mean, std = (", ".join(f"{one:g}" for one in part) for part in (self.mean, self.std))
            text += f", normalized with the mean {mean} and the standard deviation {std}"
        return text


def _column(values: Sequence[float]) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.array(values, np.float32)[:, None, None]
