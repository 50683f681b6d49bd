"""Average precision: how far above the other images a label's own images stand, without any threshold."""

from __future__ import annotations

import numpy as np


def average_precision(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Average precision of each label, `Σ (R_n − R_{n−1}) P_n` over the distinct scores from the largest down.

    P_n and R_n are precision and recall of the images with at least the n-th largest score. There is no interpolation,
    so that this is scikit-learn's `average_precision_score`.

    Args:
        scores: Any number that grows with the probability of a label, `float[N, K]`, without NaN.
        labels: `uint8[N, K]` of zeros and ones.

    Returns:
        `float64[K]`, 0–1; NaN for a label that no image has.
    """
    images, count = scores.shape
    order = np.argsort(-scores, axis=0, kind="stable")
    ranked = np.take_along_axis(scores, order, 0)
    hits = np.cumsum(np.take_along_axis(labels, order, 0), axis=0, dtype=np.int64)
    positives = hits[-1] if images else np.zeros(count, np.int64)
    precision = hits / np.arange(1, images + 1)[:, None]
    # Images with equal scores stand or fall together: precision is that of the last one of them.
    is_last = np.ones(scores.shape, bool)
    is_last[:-1] = ranked[:-1] != ranked[1:]
    result = np.full(count, np.nan)
    for label in np.flatnonzero(positives):
        ends = np.flatnonzero(is_last[:, label])
        gained = np.diff(hits[ends, label], prepend=0)
        result[label] = (gained * precision[ends, label]).sum() / positives[label]
    return result


def mean_average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """mAP: the mean of `average_precision` over the labels that at least one image has; NaN if none has any."""
    each = average_precision(scores, labels)
    known = each[~np.isnan(each)]
    return float(known.mean()) if len(known) else float("nan")
