"""Uncertainty of test results: the confidence interval of an accuracy, and calibration errors of probabilities."""

from __future__ import annotations

from math import sqrt
from typing import Final

import numpy as np

Z_95: Final = 1.959963984540054  # the 0.975 quantile of the standard normal distribution, for two-sided 95 %
BY_CHANCE: Final = 0.025  # the probability below which a result is not chance, as at one end of a 95 % interval
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


def clopper_pearson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact two-sided interval of a proportion, as fractions 0–1; 0 to 1 without trials.

    Clopper and Pearson, The Use of Confidence or Fiducial Limits Illustrated in the Case of the Binomial, Biometrika
    26(4), 1934.

    Args:
        successes: Number of successes, 0 to n.
        n: Number of trials.
        confidence: The probability that it holds the proportion, at least.
    """
    from scipy.special import betaincinv

    tail = (1 - confidence) / 2
    low = float(betaincinv(successes, n - successes + 1, tail)) if successes else 0.0
    return low, float(betaincinv(successes + 1, n - successes, 1 - tail)) if successes < n else 1.0


def beta_binomial_cdf(successes: int, n: int, a: float, b: float) -> float:
    """The probability of at most so many successes of n, whose common probability is drawn from Beta(a, b).

    Args:
        successes: Number of successes, 0 to n.
        n: Number of trials.
        a, b: Parameters of the beta distribution, above 0.
    """
    from scipy.special import betaln

    k = np.arange(successes + 1)
    logs = betaln(k + a, n - k + b) - betaln(a, b) - betaln(k + 1, n - k + 1) - np.log1p(n)
    return float(np.exp(logs).sum())


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


def classwise_calibration_error(probabilities: np.ndarray, positive: np.ndarray, bins: int = BINS) -> float:
    """Class-wise expected calibration error, 0–1, of labels that are independent of each other.

    Kull et al., Beyond temperature scaling, NeurIPS 2019, arXiv:1910.12656, equation 5: the mean over labels of
    `Σ |B| / N · |share of positives in B − mean probability in B|`, over equal-width bins B of the probability.

    Args:
        probabilities: `float[N, K]`, 0–1.
        positive: `bool[N, K]`, whether an image has a label.
        bins: Number of bins.
    """
    images, count = positive.shape
    bin_of = np.clip(np.searchsorted(np.arange(bins + 1) / bins, probabilities) - 1, 0, bins - 1)
    cells = bin_of + bins * np.arange(count)
    gaps = np.bincount(cells.ravel(), weights=(positive - probabilities).ravel(), minlength=bins * count)
    return float(np.abs(gaps).sum() / (images * count))
