"""Confidence intervals of scores of several labels, by drawing the test images again with replacement.

Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13: the percentile interval. It covers sampling
variance only, not seed variance. Resamples are weights of the images, so that sorting is done once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

RESAMPLES: Final = 1000
FEWEST: Final = 100
BUDGET: Final = 200_000_000  # images · labels · resamples, beyond which fewer resamples are drawn
CHUNK: Final = 4_000_000  # images · resamples that are in memory at once
QUANTILES: Final = (0.025, 0.975)

Interval = tuple[float, float]


def intervals(scores: np.ndarray, labels: np.ndarray, predicted: np.ndarray) -> Mapping[str, Interval]:
    """95 % intervals of mAP, macro F1 and micro F1; the same for the same arguments.

    A resample without an image of a label leaves that label out of its means. Without any label all ends are 0.

    Args:
        scores: `float[N, K]`, to rank images by.
        labels: `uint8[N, K]` of zeros and ones.
        predicted: `bool[N, K]`.

    Returns:
        Lower and upper ends by "map", "f1" and "micro_f1".
    """
    images, count = labels.shape
    resamples = min(RESAMPLES, max(FEWEST, BUDGET // (images * count)))
    generator = np.random.default_rng(0)
    chunk = max(1, min(resamples, CHUNK // images))
    found: dict[str, list[np.ndarray]] = {"map": [], "f1": [], "micro_f1": []}
    for start in range(0, resamples, chunk):
        drawn = generator.multinomial(images, np.full(images, 1 / images), size=min(chunk, resamples - start))
        weights = drawn.astype(np.float32)  # whole numbers; exact up to 16 million images
        hits, predictions, positives = (
            (weights @ each.astype(np.float32)).astype(np.float64)
            for each in (predicted & (labels > 0), predicted, labels)
        )
        f1 = 2 * hits / np.maximum(predictions + positives, 1)
        found["f1"].append(_mean_where(f1, positives > 0))
        total = predictions.sum(1) + positives.sum(1)
        found["micro_f1"].append(2 * hits.sum(1) / np.maximum(total, 1))
        precision = np.stack([_weighted_precision(scores[:, k], labels[:, k], drawn) for k in range(count)], 1)
        found["map"].append(_mean_where(precision, positives > 0))
    result = {}
    for name, parts in found.items():
        values = np.concatenate(parts)
        known = values[~np.isnan(values)]
        low, high = np.quantile(known, QUANTILES) if len(known) else (0.0, 0.0)
        result[name] = (float(low), float(high))
    return result


def _mean_where(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The mean of each row over what is known; NaN where nothing is."""
    counts = known.sum(1)
    sums = np.where(known, values, 0.0).sum(1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _weighted_precision(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Average precision of one label in each resample, as `ranking.average_precision`; 0 without positives.

    Args:
        scores: `float[N]`.
        labels: `uint8[N]`.
        weights: How often each image was drawn, `int64[B, N]`.

    Returns:
        `float64[B]`.
    """
    positives = int(labels.sum())
    if not positives:
        return np.zeros(len(weights))
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    # Only ends of groups that hold a positive image gain recall.
    positive = labels[order] > 0
    group = np.searchsorted(ends, np.flatnonzero(positive))
    useful, first = np.unique(group, return_index=True)
    drawn = weights[:, order]
    retrieved = np.cumsum(drawn, axis=1)[:, ends[useful]]
    gained = np.add.reduceat(drawn[:, positive], first, axis=1)
    hits = np.cumsum(gained, axis=1)
    total = hits[:, -1]
    precision = hits / np.maximum(retrieved, 1)
    return np.asarray((gained * precision).sum(1) / np.maximum(total, 1))
