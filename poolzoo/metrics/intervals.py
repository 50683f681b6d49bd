"""How far figures of a test can be trusted: the interval around an accuracy, the error of the probabilities."""

from __future__ import annotations

from math import sqrt
from typing import Final

import numpy as np

Z_95: Final = 1.959963984540054  # the 0.975 quantile of the standard normal distribution, for two-sided 95 %
BINS: Final = 15  # of Guo et al., table 1


def wilson_interval(right: int, n: int) -> tuple[float, float]:
    """The 95 % score interval of a share: what accuracies on endless images of this kind agree with `right` of `n`.

    Wilson, Probable Inference, the Law of Succession, and Statistical Inference, JASA 22(158), 1927. Without a
    continuity correction. It takes the images as drawn independently, and says nothing about another training's luck.
    """
    share, spread = right / n, Z_95**2 / n
    middle = (share + spread / 2) / (1 + spread)
    half = sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    return 0.0 if right == 0 else middle - half, 1.0 if right == n else middle + half


def calibration_error(logits: np.ndarray, right: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error: how far confidence and accuracy lie apart, in the mean over all images, 0–1.

    Guo, Pleiss, Sun and Weinberger, On Calibration of Modern Neural Networks, ICML 2017, arXiv:1706.04599, equation 3:
    `Σ |B| / N · |accuracy(B) − confidence(B)|` over equal-width bins B of the largest softmax probability, the m-th of
    which is `((m − 1) / bins, m / bins]`.

    Args:
        logits: `float[N, classes]`, of which the largest of each row is finite.
        right: `bool[N]`, whether the class with the largest logit is the label's.
        bins: How many.
    """
    largest = logits.max(1, keepdims=True).astype(np.float64)
    confidence = 1.0 / np.exp(logits - largest).sum(1)  # the softmax at its largest entry; nothing can overflow
    bin_of = np.searchsorted(np.arange(bins + 1) / bins, confidence) - 1
    return float(np.abs(np.bincount(bin_of, weights=right - confidence)).sum() / len(right))
