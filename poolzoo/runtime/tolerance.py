"""Differences against per-input tolerances: both numbers that are shown belong to one input. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

ROUNDING: Final = 2.0**-23  # of a probability in float32, with that of the sum that divides it


def closest_to_limit(differences: np.ndarray, allowed: np.ndarray) -> tuple[int, float]:
    """The input whose difference is the largest fraction of its tolerance.

    The largest difference and the largest tolerance may belong to two inputs, and say nothing of either.

    Args:
        differences: How far each input's outputs are off, `float[N]`; NaN counts as infinite.
        allowed: The tolerance of each input, `float[N]`, not negative.

    Returns:
        Its index, and its difference divided by its tolerance: 0 where nothing differs, infinite where nothing may.
    """
    off = np.nan_to_num(np.asarray(differences, np.float64), nan=np.inf, posinf=np.inf)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = np.where(off > 0, off / np.asarray(allowed, np.float64), 0.0)
    index = int(ratio.argmax())
    return index, float(ratio[index])


def distances(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """The magnitude of each difference; infinite where a value is NaN or infinite, also on both sides."""
    with np.errstate(invalid="ignore"):  # infinity less infinity
        return np.asarray(np.nan_to_num(np.abs(found - expected), nan=np.inf, posinf=np.inf))


def apart(outputs: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> np.ndarray:
    """How far the outputs of each image are from what is expected, `float64[N]`; infinite where one is NaN
    or infinite.

    Where logits nearly vanish, probabilities are still numbers around 1 / K, whose rounding is no difference.

    Args:
        outputs: Logits and probabilities, `[N, K]` each.
        expected: The same.
    """
    logits, probabilities = (
        distances(np.asarray(found, np.float64), right).max(1) for found, right in zip(outputs, expected, strict=True)
    )
    return np.asarray(np.maximum(logits, probabilities - ROUNDING))
