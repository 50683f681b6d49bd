"""How logits become probabilities, in float64, so that nothing overflows. Needs numpy only."""

from __future__ import annotations

import numpy as np


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """`1 / (1 + exp(−x))` in float64; nothing overflows."""
    x = logits.astype(np.float64)
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, small) / (1.0 + small)


def softmax(logits: np.ndarray) -> np.ndarray:
    """`exp(x) / Σ exp(x)` over the last axis in float64; nothing overflows."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    powers = np.exp(shifted)
    result: np.ndarray = powers / powers.sum(-1, keepdims=True)
    return result
