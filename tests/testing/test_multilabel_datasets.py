"""The conformance kit on data sets with several labels an image."""

from __future__ import annotations

import numpy as np
import pytest

from poolzoo.plugin.spec import Dataset
from poolzoo.testing.datasets import check_dataset

NAMES = ("ant", "bee", "cat")
GOOD = np.array([[1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 1]], np.uint8)


def dataset(train: np.ndarray, test: np.ndarray = GOOD) -> Dataset:
    pixels = np.zeros((4, 8, 8, 3), np.uint8)
    labels = {"train": train, "test": test}
    return Dataset(name="several", summary="several", classes=NAMES, load=lambda split, _: (pixels, labels[split]))


def test_zeros_and_ones_keep_every_promise() -> None:
    assert check_dataset(dataset(GOOD)) == []


@pytest.mark.parametrize(
    ("train", "says"),
    [
        (GOOD * 2, "neither 0 nor 1"),
        (GOOD.astype(np.int64), "not uint8"),
        (GOOD * np.array([1, 1, 0], np.uint8), "labels [2] have no training image"),
        (GOOD[:, :2], "3 labels, 2 in train"),
        (GOOD[:3], "4 images"),
        (GOOD[..., None], "labels are"),
    ],
)
def test_other_labels_break_a_promise(train: np.ndarray, says: str) -> None:
    assert says in " ".join(str(failure) for failure in check_dataset(dataset(train)))
