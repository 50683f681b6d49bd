"""Uncertainty of test results: the confidence interval of an accuracy, and the calibration error of probabilities."""

from __future__ import annotations

from math import sqrt
from typing import Final

import numpy as np

Z_95: Final = 1.959963984540054  # the 0.975 quantile of the standard normal distribution, for two-sided 95 %
BINS: Final = 15  # as in table 1 of Guo et al.


def wilson_interval(correct: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a proportion, as fractions 0–1.

    Wilson, Probable Inference, the Law of Succession, and Statistical Inference, JASA 22(158), 1927. Without continuity
    correction. It assumes images drawn independently. It covers sampling variance only, not seed variance.

    Args:
        correct: Number of successes, 0 to n.
        n: Number of trials.
    """
    proportion = correct / n
    spread = Z_95**2 / n
    middle = (proportion + spread / 2) / (1 + spread)
    half = sqrt(proportion * (1 - proportion) * spread + spread**2 / 4) / (1 + spread)
    return 0.0 if correct == 0 else middle - half, 1.0 if correct == n else middle + half


def calibration_error(logits: np.ndarray, correct: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error, 0–1: the mean distance between confidence and accuracy.

    Guo, Pleiss, Sun and Weinberger, On Calibration of Modern Neural Networks, ICML 2017, arXiv:1706.04599, equation 3:
    `Σ |B| / N · |accuracy(B) − confidence(B)|` over equal-width bins B of the largest softmax probability. Bin m is
    `((m − 1) / bins, m / bins]`.

    Args:
        logits: `float[N, classes]`, with a finite maximum in each row.
        correct: `bool[N]`, whether the class with the largest logit is the label's.
        bins: Number of bins.
    """
    largest = logits.max(1, keepdims=True).astype(np.float64)
    confidence = 1.0 / np.exp(logits - largest).sum(1)  # the softmax at its largest entry; nothing can overflow
    bin_of = np.searchsorted(np.arange(bins + 1) / bins, confidence) - 1
    return float(np.abs(np.bincount(bin_of, weights=correct - confidence)).sum() / len(correct))
