"""Parts of images with several labels: every label keeps its share."""

from __future__ import annotations

import numpy as np
import pytest

from poolzoo.common.errors import UsageError
from poolzoo.data import stratification
from poolzoo.data.choice import choose
from poolzoo.train.validation import split_validation

SHARES = np.linspace(0.01, 0.4, 12)


def labels_of(count: int) -> np.ndarray:
    """Labels of which some are rare and some occur together, `uint8[count, 12]`."""
    generator = np.random.default_rng(0)
    labels = (generator.random((count, len(SHARES))) < SHARES).astype(np.uint8)
    labels[:, 1] |= labels[:, 0]
    return labels


def test_a_limit_keeps_the_share_of_each_label() -> None:
    labels = labels_of(2000)
    chosen = choose(labels, 200, 0)
    assert len(chosen) == 200
    assert (np.diff(chosen) > 0).all()
    assert np.abs(labels[chosen].sum(0) - labels.sum(0) / 10).max() <= 3
    random = np.random.default_rng(1).permutation(2000)[:200]
    assert np.abs(labels[random].sum(0) - labels.sum(0) / 10).max() > 3  # which chance does not


def test_the_seed_decides_which_images_are_chosen() -> None:
    labels = labels_of(500)
    first, again, other = (choose(labels, 50, seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_validation_holds_an_image_of_each_label() -> None:
    labels = labels_of(300)
    labels[:, 0] = 0
    labels[[7, 200], 0] = 1
    labels[:, 11] = 0
    labels[40, 11] = 1
    split = split_validation(labels, 0)
    assert not set(split.train_indices) & set(split.val_indices)
    assert len(split.train_indices) + len(split.val_indices) == 300
    assert 30 <= len(split.val_indices) <= 36
    held, kept = labels[split.val_indices].sum(0), labels[split.train_indices].sum(0)
    assert (held[:11] >= 1).all()
    assert (kept >= 1).all()
    assert (held[11], kept[11]) == (0, 1)  # an only image is for training


@pytest.mark.parametrize("fill", [0, 1])
def test_images_with_equal_labels_are_divided(fill: int) -> None:
    assert len(stratification.choose(np.full((50, 3), fill, np.uint8), 7, 0)) == 7


def test_images_without_labels_keep_their_share() -> None:
    labels = labels_of(2000)
    none = ~labels.any(1)
    assert abs(none[choose(labels, 500, 0)].sum() - none.sum() / 4) <= 6


def test_two_images_are_too_few_to_divide() -> None:
    with pytest.raises(UsageError, match="too few"):
        split_validation(np.ones((2, 2), np.uint8), 0)
