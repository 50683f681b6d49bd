"""From logits of several labels to decisions: probabilities, scores to rank images by, and sets of labels."""

from __future__ import annotations

import numpy as np


def is_finite(logits: np.ndarray) -> np.ndarray:
    """`float[N, K] → bool[N]`: whether all logits of an image are finite. An image without that gets no label."""
    finite: np.ndarray = np.isfinite(logits).all(1)
    return finite


def ranking_scores(logits: np.ndarray) -> np.ndarray:
    """`float[N, K]`: the logits, and −∞ for images whose logits are not all finite, so that they rank last."""
    return np.where(is_finite(logits)[:, None], logits, -np.inf)
