"""Which images of a split are used: at most so many, in the proportions of the classes."""

from __future__ import annotations

import numpy as np

from poolzoo.data import stratification


def choose(labels: np.ndarray, limit: int | None, seed: int) -> np.ndarray:
    """Indices of at most `limit` images, in order: the same for the same seed, classes in their own proportions.

    Args:
        labels: `int[N]`, or `uint8[N, K]` of several labels, each of which keeps its share.
        limit: How many; None for all.
        seed: Of the choice.
    """
    if limit is None or limit >= len(labels):
        return np.arange(len(labels))
    if labels.ndim == 2:
        return stratification.choose(labels, limit, seed)
    order = np.random.default_rng(seed).permutation(len(labels))
    place = np.empty(len(labels))  # an image's place within its class, as a share of the class
    by_class = order[np.argsort(labels[order], kind="stable")]
    for members in np.split(by_class, np.flatnonzero(np.diff(labels[by_class])) + 1):
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.sort(np.argsort(place, kind="stable")[:limit])


def strata(labels: np.ndarray) -> np.ndarray:
    """One class for each image, `int[N]`: its label; of several its rarest; -1 of none."""
    if labels.ndim == 1:
        return labels
    rarity = np.argsort(labels.sum(0, dtype=np.int64), kind="stable")  # the rarest first
    ordered = labels[:, rarity]
    return np.where(ordered.any(1), rarity[ordered.argmax(1)], -1)
