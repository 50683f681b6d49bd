"""Chooses the threshold of each label on validation images: the one with the largest F1."""

from __future__ import annotations

import numpy as np

from poolzoo.metrics.activations import sigmoid
from poolzoo.metrics.decisions import FALLBACK, is_finite

DIGITS = 6  # of a threshold, where these still divide the images as they should


def choose_thresholds(logits: np.ndarray, labels: np.ndarray) -> tuple[float, ...]:
    """The threshold of each label with the largest F1.

    It lies in the middle between two probabilities that occur. Of several with the same F1, the one closest to 0.5 is
    chosen. A label that no image has gets 0.5. Images whose logits are not finite get no label, and do not count.

    Args:
        logits: Of validation images, `float[N, K]`.
        labels: `uint8[N, K]` of zeros and ones.

    Returns:
        K probabilities; a label is predicted where its probability is at least that.
    """
    finite = is_finite(logits)
    probabilities = sigmoid(logits[finite]).astype(np.float32)
    return tuple(
        _threshold(probabilities[:, label], labels[finite, label] > 0, missed=int(labels[~finite, label].sum()))
        for label in range(labels.shape[1])
    )


def _threshold(probabilities: np.ndarray, positive: np.ndarray, missed: int) -> float:
    """The threshold of one label.

    Args:
        probabilities: `float32[n]`.
        positive: `bool[n]`.
        missed: Images with the label that cannot get it.
    """
    if not positive.any():
        return FALLBACK
    order = np.argsort(-probabilities, kind="stable")
    ranked, hits = probabilities[order].astype(np.float64), np.cumsum(positive[order])
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # equal probabilities stand or fall together
    # F1 of predicting all images up to an end is 2 · hits / (predicted + positive).
    f1 = 2 * hits[ends] / (ends + 1 + hits[-1] + missed)
    lower = np.append(ranked[ends[:-1] + 1], 0.0)
    middles = (ranked[ends] + lower) / 2
    best = np.flatnonzero(f1 == f1.max())
    chosen = best[np.abs(middles[best] - FALLBACK).argmin()]
    rounded = round(float(middles[chosen]), DIGITS)
    return rounded if lower[chosen] < rounded <= ranked[ends[chosen]] else float(middles[chosen])
