"""Chooses part of the images so that each label keeps its share, where an image has several labels.

Iterative stratification: Sechidis, Tsoumakas and Vlahavas, On the Stratification of Multi-label Data, ECML PKDD 2011,
algorithm 1. The label with the fewest images left is distributed first, because its images leave the least choice.
"""

from __future__ import annotations

from typing import Final

import numpy as np

REST: Final = 0
CHOSEN: Final = 1


def choose(labels: np.ndarray, count: int, seed: int, *, at_least_one: bool = False) -> np.ndarray:
    """Indices of about `count` images, in order, among which each label has its share; the same for the same seed.

    Args:
        labels: `uint8[N, K]` of zeros and ones; images without a label are distributed last.
        count: How many images to choose, 0 to N.
        seed: Of the order in which images are distributed.
        at_least_one: Whether each label that two images have is to be among the chosen ones and the others. More than
            `count` images may be chosen then. Else exactly `count` are.

    Returns:
        `int64[n]`.
    """
    images, total = len(labels), labels.sum(0, dtype=np.int64)
    order = np.random.default_rng(seed).permutation(images)
    share = count / max(images, 1)
    wanted = total * share
    if at_least_one:
        wanted = np.where(total > 1, np.maximum(wanted, 1.0), wanted)
    wanted_labels = [(total - wanted).tolist(), wanted.tolist()]
    wanted_images = [float(images - count), float(count)]
    rows, columns = np.nonzero(labels[order])
    labels_of = np.split(columns, np.cumsum(np.bincount(rows, minlength=images))[:-1])
    by_label = np.argsort(columns, kind="stable")
    members = np.split(rows[by_label], np.cumsum(np.bincount(columns, minlength=len(total)))[:-1])
    left, part = total.copy(), np.full(images, -1, np.int8)

    def give(image: int, subset: int) -> None:
        part[image] = subset
        wanted_images[subset] -= 1
        for label in labels_of[image].tolist():
            wanted_labels[subset][label] -= 1
            left[label] -= 1

    def is_full(subset: int) -> bool:
        return not at_least_one and wanted_images[subset] < 1

    while left.any():
        rarest = int(np.where(left > 0, left, images + 1).argmin())
        for image in members[rarest].tolist():
            if part[image] >= 0:
                continue
            needs = [(wanted_labels[subset][rarest], wanted_images[subset]) for subset in (REST, CHOSEN)]
            subset = CHOSEN if needs[CHOSEN] > needs[REST] else REST
            give(image, 1 - subset if is_full(subset) else subset)
    for image in np.flatnonzero(part < 0).tolist():
        give(image, CHOSEN if wanted_images[CHOSEN] > wanted_images[REST] or is_full(REST) else REST)
    return np.sort(order[part == CHOSEN])
