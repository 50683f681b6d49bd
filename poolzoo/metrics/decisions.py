"""How logits become decisions: the class with the largest one, or every label above its threshold. Needs numpy only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from poolzoo.metrics.activations import sigmoid, softmax
from poolzoo.metrics.calibration import Calibration
from poolzoo.metrics.tasks import CLASSIFICATION, MULTILABEL, TASKS, Task

NO_CLASS: Final = -1  # the decision where the largest logit is NaN or infinite
FALLBACK: Final = 0.5  # the threshold of a label that no validation image has


@dataclass(frozen=True)
class Decision:
    """What a network decides about images.

    Attributes:
        thresholds: The least probability of each label, 0–1; None where an image has exactly one label.
        calibration: What logits go through before they become probabilities; None for nothing.
    """

    thresholds: tuple[float, ...] | None = None
    calibration: Calibration | None = None

    @property
    def task(self) -> Task:
        """The task."""
        return TASKS[CLASSIFICATION if self.thresholds is None else MULTILABEL]

    def calibrated(self, logits: np.ndarray) -> np.ndarray:
        """The logits that become probabilities, `float[…, K]`; without a calibration the same array."""
        return logits if self.calibration is None else self.calibration.apply(logits)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Softmax, or with several labels a sigmoid, of calibrated logits: finite `float[N, K]` to `float64[N, K]`."""
        calibrated = self.calibrated(logits)
        return softmax(calibrated) if self.thresholds is None else sigmoid(calibrated)

    def magnitudes(self, logits: np.ndarray) -> np.ndarray:
        """The largest absolute value of what probabilities are computed of, 1 or more: `float[N, K] → float64[N]`.

        Their rounding errors grow with it.
        """
        factors = 1.0 if self.calibration is None else self.calibration.factors
        values = np.abs([self.calibrated(logits), logits.astype(np.float64) * factors])
        return np.asarray(values.max((0, 2), initial=1.0))

    def decide(self, logits: np.ndarray) -> np.ndarray:
        """`float[N, K]` to classes `int64[N]`, or with several labels to `bool[N, K]`.

        Where a logit is NaN or infinite, an image gets NO_CLASS, or no label.
        """
        if self.thresholds is None:
            logits = self.calibrated(logits)
            return np.where(np.isfinite(logits.max(1)), logits.argmax(1), NO_CLASS)
        finite = is_finite(logits)[:, None]
        decided: np.ndarray = self.above(sigmoid(self.calibrated(np.where(finite, logits, 0.0)))) & finite
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

    def margins(self, logits: np.ndarray) -> np.ndarray:
        """How far the logits `float[N, K]` of each image are from another decision, `float64[N]`.

        This is half the gap between the two largest, or with several labels the least distance of one to its threshold;
        infinite where there is one class. It counts in logits before calibration.
        """
        x = logits.astype(np.float64)
        slopes = np.ones(x.shape[1])
        if self.calibration is not None and self.calibration.smoothing is None:  # which keeps the order
            x, slopes = self.calibrated(x), slopes * self.calibration.factors
        if self.thresholds is not None:
            share = np.asarray(self.thresholds, np.float64)
            with np.errstate(divide="ignore"):
                return np.asarray((np.abs(x - (np.log(share) - np.log1p(-share))) / slopes).min(1))
        if x.shape[1] < 2:
            return np.full(len(x), np.inf)
        # The best falls and another rises until they meet.
        best = x.argmax(1)
        gaps = (x.max(1, keepdims=True) - x) / (slopes[best][:, None] + slopes)
        gaps[np.arange(len(x)), best] = np.inf
        return np.asarray(gaps.min(1))


ONE_LABEL: Final = Decision()


def recorded(task: object, thresholds: object, count: int, calibration: object = None) -> Decision:
    """The decision that a file records; without a task, as in earlier versions, an image has one label.

    Args:
        task: The name of the task; None where there is none.
        thresholds: The least probability of each label, for several labels.
        count: Number of labels.
        calibration: The JSON of a `Calibration`; None where there is none, as in earlier versions.

    Raises:
        ValueError: The task is unknown, or thresholds or calibration do not fit it.
    """
    calibrated = Calibration.from_json(calibration, count)
    if task in (None, CLASSIFICATION):
        return Decision(calibration=calibrated)
    if task != MULTILABEL:
        raise ValueError(f"task {task!r:.40}")
    if not isinstance(thresholds, list) or len(thresholds) != count:
        raise ValueError(f"thresholds of {count} labels")
    if not all(isinstance(value, int | float) and 0 <= value <= 1 for value in thresholds):
        raise ValueError("thresholds between 0 and 1")
    if calibrated is not None and calibrated.smoothing is not None:
        raise ValueError("calibration without smoothing, which needs one label an image")
    return Decision(tuple(map(float, thresholds)), calibrated)


def is_finite(logits: np.ndarray) -> np.ndarray:
    """`float[N, K] → bool[N]`: whether all logits of an image are finite."""
    finite: np.ndarray = np.isfinite(logits).all(1)
    return finite
