"""Does a calibration help images that it was not fitted on? Folds of a cross-validation, NLL, and a paired t-test."""

from __future__ import annotations

from typing import Final

import numpy as np

FOLDS: Final = 5
MIN_WRONG: Final = 10  # images; of fewer, nobody knows what it costs to be certain and wrong


def folds(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Indices to fit on and held-out ones, five times, from a fixed seed."""
    order = np.random.default_rng(0).permutation(count)
    parts = np.array_split(order, FOLDS)
    return [(np.concatenate([*parts[:fold], *parts[fold + 1 :]]), parts[fold]) for fold in range(FOLDS)]


def drawn(logits: np.ndarray, labels: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Images for a fit that reads at most so many logits: all, or a part from a fixed seed."""
    images = most // logits.shape[1]
    if len(logits) <= images:
        return logits, labels
    rows = np.random.default_rng(0).permutation(len(logits))[:images]
    return logits[rows], labels[rows]


def nll(z: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The NLL of each image in nats, `float64[N]`, of logits `float64[N, K]` and labels `int64[N]`."""
    shifted = z - z.max(1, keepdims=True)
    own: np.ndarray = shifted[np.arange(len(z)), labels]
    return np.asarray(np.log(np.exp(shifted).sum(1)) - own)


def is_gain(gains: np.ndarray, wrong: np.ndarray, alpha: float) -> bool:
    """Whether the mean of what each image gains is above 0 beyond chance, in a one-sided t-test.

    Images that are right gain from any map that makes probabilities more certain. Where all or nearly all are right,
    the test would therefore find one better that is worse.

    Args:
        gains: How far the NLL of each image falls, `float64[N]`.
        wrong: Whether its prediction is wrong, `bool[N]`.
        alpha: The significance level.
    """
    from scipy.special import stdtr

    deviation = gains.std(ddof=1)
    if wrong.sum() < MIN_WRONG or not gains.mean() > 0 or deviation == 0:
        return False
    return bool(stdtr(len(gains) - 1, -gains.mean() / (deviation / np.sqrt(len(gains)))) < alpha)


def rounded(value: float) -> float:
    """Six digits, so that `config.json` stays readable."""
    return float(f"{value:.6g}")
