"""Differences beside what is allowed: every pair that is shown is of one input. Needs no torch."""

from __future__ import annotations

import numpy as np


def nearest(differences: np.ndarray, allowed: np.ndarray) -> tuple[int, float]:
    """The input that is nearest to its limit, or furthest beyond it.

    The largest of all differences beside the largest of all limits may be of two inputs, and say nothing of either.

    Args:
        differences: How far each input's outputs are off, `float[N]`; NaN counts as infinite.
        allowed: How far they may be, `float[N]`, not negative.

    Returns:
        Its number, and its difference over what is allowed; 0 where nothing differs, infinite where nothing may.
    """
    off = np.nan_to_num(np.asarray(differences, np.float64), nan=np.inf)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = np.where(off > 0, off / np.asarray(allowed, np.float64), 0.0)
    where = int(ratio.argmax())
    return where, float(ratio[where])
