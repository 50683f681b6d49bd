"""How logits become decisions: the class with the largest one, or every label above its threshold. Needs numpy only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from poolzoo.metrics.tasks import CLASSIFICATION, MULTILABEL, TASKS, Task

NO_CLASS: Final = -1  # the decision where the largest logit is NaN or infinite
FALLBACK: Final = 0.5  # the threshold of a label that no validation image has


@dataclass(frozen=True)
class Decision:
    """What a network decides about images.

    Attributes:
        thresholds: The least probability of each label, 0–1; None where an image has exactly one label.
    """

    thresholds: tuple[float, ...] | None = None

    @property
    def task(self) -> Task:
        """The task."""
        return TASKS[CLASSIFICATION if self.thresholds is None else MULTILABEL]

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Softmax, or with several labels a sigmoid of each: `float[N, K]`, finite logits to `float64[N, K]`."""
        return softmax(logits) if self.thresholds is None else sigmoid(logits)

    def decide(self, logits: np.ndarray) -> np.ndarray:
        """`float[N, K]` to classes `int64[N]`, or with several labels to `bool[N, K]`.

        Where a logit is NaN or infinite, an image gets NO_CLASS, or no label.
        """
        if self.thresholds is None:
            return np.where(np.isfinite(logits.max(1)), logits.argmax(1), NO_CLASS)
        finite = is_finite(logits)[:, None]
        decided: np.ndarray = self.above(sigmoid(np.where(finite, logits, 0.0))) & finite
        return decided

    def above(self, probabilities: np.ndarray) -> np.ndarray:
        """Which labels an image gets: probabilities `float[…, K]` to `bool[…, K]`.

        Probabilities count as float32, so that a graph and torch decide alike.
        """
        assert self.thresholds is not None
        above: np.ndarray = probabilities.astype(np.float32) >= np.asarray(self.thresholds, np.float32)
        return above

    def agreement(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """How far two logits `float[N, K]` lead to the same decision, `float64[N]`.

        This is the number of labels in both sets over the number in either one (the Jaccard index), 1 where both are
        empty. Of sets with exactly one label it is 1 or 0.
        """
        a, b = self.decide(first), self.decide(second)
        if self.thresholds is None:
            return np.asarray(a == b, np.float64)
        both, either = (a & b).sum(1), (a | b).sum(1)
        return np.where(either > 0, both / np.maximum(either, 1), 1.0)


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


def is_finite(logits: np.ndarray) -> np.ndarray:
    """`float[N, K] → bool[N]`: whether all logits of an image are finite."""
    finite: np.ndarray = np.isfinite(logits).all(1)
    return finite
