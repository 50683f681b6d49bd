"""Differences against per-input tolerances: both numbers that are shown belong to one input. Needs no torch."""

from __future__ import annotations

import numpy as np


def closest_to_limit(differences: np.ndarray, allowed: np.ndarray) -> tuple[int, float]:
    """The input whose difference is the largest fraction of its tolerance.

    The largest difference and the largest tolerance may belong to two inputs, and say nothing of either.

    Args:
        differences: How far each input's outputs are off, `float[N]`; NaN counts as infinite.
        allowed: The tolerance of each input, `float[N]`, not negative.

    Returns:
        Its index, and its difference divided by its tolerance: 0 where nothing differs, infinite where nothing may.
    """
    off = np.nan_to_num(np.asarray(differences, np.float64), nan=np.inf)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = np.where(off > 0, off / np.asarray(allowed, np.float64), 0.0)
    index = int(ratio.argmax())
    return index, float(ratio[index])
