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
    return np.array([_of_label(scores[:, k], labels[:, k] > 0) for k in range(labels.shape[1])], np.float64)


def _of_label(scores: np.ndarray, positive: np.ndarray) -> float:
    total = int(positive.sum())
    if not total:
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(positive[order])
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # equal scores stand or fall together
    gained = np.diff(hits[ends], prepend=0)
    return float((gained * hits[ends] / (ends + 1)).sum() / total)


def mean_average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """mAP: the mean of `average_precision` over the labels that at least one image has; NaN if none has any."""
    each = average_precision(scores, labels)
    known = each[~np.isnan(each)]
    return float(known.mean()) if len(known) else float("nan")
