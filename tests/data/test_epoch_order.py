"""The order of an epoch: a permutation, or every class equally often."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import WeightedRandomSampler

from poolzoo.data.augment.augmentation import Augmentation
from poolzoo.data.batches import BatchLoader, Rank
from poolzoo.data.epoch_order import epoch_order

UNEQUAL = np.repeat([0, 1, 3, 4], [2, 7, 500, 31])  # class 2 has no image


def counts(positions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.bincount(labels[positions], minlength=5)


def test_every_image_once_is_a_seeded_permutation():
    order = epoch_order(UNEQUAL, seed=3, epoch=2)
    expected = torch.randperm(len(UNEQUAL), generator=torch.Generator().manual_seed(3 * 1_000_003 + 2))
    assert (order.positions == expected.numpy()).all()
    assert (order.rows == order.positions).all()


def test_balanced_epochs_have_equal_classes():
    total = np.zeros(5, int)
    for epoch in range(1, 9):
        order = epoch_order(UNEQUAL, seed=1, epoch=epoch, sampler="balanced")
        found = counts(order.positions, UNEQUAL)
        assert found[2] == 0
        assert found[[0, 1, 3, 4]].max() - found[[0, 1, 3, 4]].min() <= 1
        assert len(order.positions) == len(UNEQUAL)
        total += found
    assert total[[0, 1, 3, 4]].max() - total[[0, 1, 3, 4]].min() <= 1


def test_balanced_proportions_are_those_of_weighted_random_sampling():
    weights = (1 / np.bincount(UNEQUAL, minlength=5).clip(1))[UNEQUAL]
    theirs = WeightedRandomSampler(weights, 200_000, generator=torch.Generator().manual_seed(0))
    ours = np.concatenate([epoch_order(UNEQUAL, 0, epoch, "balanced").positions for epoch in range(1, 40)])
    expected = counts(np.fromiter(theirs, int), UNEQUAL) / 200_000
    np.testing.assert_allclose(counts(ours, UNEQUAL) / len(ours), expected, atol=0.01)


def test_a_class_repeats_no_image_before_all_were_drawn():
    drawn = np.concatenate([epoch_order(UNEQUAL, 5, epoch, "balanced").positions for epoch in range(1, 12)])
    for label in (0, 1, 3, 4):
        images = drawn[UNEQUAL[drawn] == label]
        times = np.bincount(images, minlength=len(UNEQUAL))[label == UNEQUAL]
        # Within an epoch the order is shuffled, so that the rule holds for counts at the ends of epochs.
        assert times.max() - times.min() <= 1


def test_classes_of_20_and_of_20000_are_drawn_alike():
    labels = np.repeat([0, 1], [20, 20_000])
    order = epoch_order(labels, seed=0, epoch=3, sampler="balanced")
    assert counts(order.positions, labels)[:2].tolist() == [10_010, 10_010]
    assert len(np.unique(order.positions[labels[order.positions] == 1])) == 10_010
    assert (order.positions == epoch_order(labels, 0, 3, "balanced").positions).all()
    assert (order.positions != epoch_order(labels, 0, 4, "balanced").positions).any()


def test_repeats_of_an_image_are_augmented_differently():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    labels = np.repeat([0, 1], [1, 39])
    loader = BatchLoader(pixels, labels, 40, Augmentation(shift=4), 0, torch.device("cpu"), sampler="balanced")
    (batch,) = loader.epoch(1)
    repeats = batch.images[batch.labels == 0]
    assert (batch.indices[batch.labels.numpy() == 0] == 0).all()
    assert len(repeats) == 20
    assert len(torch.unique(repeats.flatten(1), dim=0)) > 10


@pytest.mark.parametrize("sampler", ["all", "balanced"])
def test_processes_divide_the_batches_of_one(sampler):
    pixels = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3), dtype=np.uint8)
    labels = np.repeat([0, 1, 2], [3, 17, 30])
    rest = (pixels, labels, 10, Augmentation(shift=2, flip="random", mixup=0.4), 0, torch.device("cpu"))
    whole = list(BatchLoader(*rest, sampler=sampler).epoch(2))
    shards = [list(BatchLoader(*rest, rank=Rank(rank, 2), sampler=sampler).epoch(2, start=1)) for rank in (0, 1)]
    for batch, *parts in zip(whole[1:], *shards, strict=True):
        for rank, part in enumerate(parts):
            assert torch.equal(batch.images[rank::2], part.images)
            assert torch.equal(batch.mixed_labels[rank::2], part.mixed_labels)
