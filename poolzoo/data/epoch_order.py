"""The order in which an epoch shows the training images: each of them once, or each class equally often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

Sampler = Literal["all", "balanced"]


@dataclass(frozen=True)
class EpochOrder:
    """The images of one epoch in the order in which batches take them.

    Attributes:
        positions: Which of the N images to train on each draw takes, `int64[N]`.
        rows: Which row of the epoch's `EpochParams` belongs to each draw, `int64[N]`. An image that is drawn several
            times has other random parameters each time.
    """

    positions: np.ndarray
    rows: np.ndarray


def epoch_order(labels: np.ndarray, seed: int, epoch: int, sampler: Sampler = "all") -> EpochOrder:
    """Draws the order of an epoch; the same arguments give the same order.

    "all" draws each image once. "balanced" draws each class N / K times, rounded up or down by turns, where K classes
    have images. A class shows each of its images once before it shows any of them again, over all epochs.

    Args:
        labels: Of the N images to train on, `int64[N]`.
        seed: Of the run.
        epoch: Its number, counted from 1.
        sampler: How often images are drawn.
    """
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch)).numpy()
    if sampler == "all":
        return EpochOrder(positions=shuffled, rows=shuffled)
    return EpochOrder(positions=_balanced(labels, seed, epoch)[shuffled], rows=np.arange(len(labels)))


def _balanced(labels: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """N positions that hold each class equally often, class by class."""
    by_class = np.argsort(labels, kind="stable")
    classes, starts = np.unique(labels[by_class], return_index=True)
    drawn = []
    for rank, (label, members) in enumerate(zip(classes, np.split(by_class, starts[1:]), strict=True)):
        # ⌊(eN + k) / K⌋ draws of class k after e epochs: over all k they add up to eN (Hermite's identity).
        first = ((epoch - 1) * len(labels) + rank) // len(classes)
        last = (epoch * len(labels) + rank) // len(classes)
        drawn.append(_draws(members, first, last, seed=(seed, int(label))))
    return np.concatenate(drawn)


def _draws(members: np.ndarray, first: int, last: int, seed: tuple[int, int]) -> np.ndarray:
    """Draws `first` to `last` of an endless sequence of permutations of a class's images."""
    passes = range(first // len(members), -(-last // len(members)))
    sequence = [np.random.default_rng((*seed, number)).permutation(members) for number in passes]
    start = passes.start * len(members)
    return np.concatenate([*sequence, members[:0]])[first - start : last - start]
