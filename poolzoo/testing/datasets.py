"""What every data set of decoded arrays promises, as checks. They load it, with all that it downloads."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar, Final

import numpy as np

from poolzoo.common.temporary import temporary_folder
from poolzoo.plugin import loader
from poolzoo.plugin.spec import Dataset, Split
from poolzoo.testing import indexed_datasets
from poolzoo.testing.base import Checks, Failure
from poolzoo.testing.indexed_datasets import CheckedIndex
from poolzoo.testing.suite import Suite

_SPLITS: Final[tuple[Split, ...]] = ("train", "test")


class CheckedDataset:
    """A data set under test, loaded once. What it gives is untyped, since the checks find out what it is."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def load(self, split: Split) -> Any:
        with temporary_folder() as folder:
            assert self.dataset.load is not None
            return self.dataset.load(split, folder)

    @cached_property
    def splits(self) -> dict[Split, Any]:
        return {split: self.load(split) for split in _SPLITS}


checks = Checks[CheckedDataset]()


@checks.promise(
    "return (uint8[N, H, W, 3], int64[N]), or uint8[N, K] for several labels: stack the images, repeat a gray channel "
    "three times"
)
def images_are_arrays(checked: CheckedDataset) -> None:
    """Both splits give `(uint8[N, H, W, 3], int64[N])` or labels `uint8[N, K]`, N ≥ 1, all of one size."""
    sizes = set()
    for split, loaded in checked.splits.items():
        assert isinstance(loaded, tuple), f"{split}: gives a {type(loaded).__name__}, not a tuple"
        assert len(loaded) == 2, f"{split}: gives {len(loaded)} things, not images and labels"
        images, labels = loaded
        for name, array in (("images", images), ("labels", labels)):
            assert isinstance(array, np.ndarray), f"{split}: {name} are a {type(array).__name__}, not an array"
        assert images.dtype == np.uint8, f"{split}: images are {images.dtype}, not uint8"
        assert images.ndim == 4, f"{split}: images are {list(images.shape)}"
        assert images.shape[3] == 3, f"{split}: images are {list(images.shape)}"
        wanted = np.uint8 if labels.ndim == 2 else np.int64
        assert labels.dtype == wanted, f"{split}: labels are {labels.dtype}, not {np.dtype(wanted)}"
        assert labels.shape[:1] == (len(images),), f"{split}: {len(images)} images, labels {list(labels.shape)}"
        assert labels.ndim in (1, 2), f"{split}: labels are {list(labels.shape)}"
        assert len(images), f"{split}: there are no images"
        sizes.add(images.shape[1:])
    assert len(sizes) == 1, f"the splits have images of {sorted(sizes)}"


@checks.promise("number the classes from 0, and give as many names in classes=")
def labels_are_classes(checked: CheckedDataset) -> None:
    """Labels count from 0, every class has training images, and `classes` names each class once."""
    train, test = (checked.splits[split][1] for split in _SPLITS)
    if train.ndim == 2:
        _several_labels(checked, train, test)
        return
    count = len(checked.dataset.classes) if checked.dataset.classes else int(train.max()) + 1
    for split, labels in (("train", train), ("test", test)):
        assert labels.min() >= 0, f"{split}: a label is {labels.min()}"
        assert labels.max() < count, f"{split}: a label is {labels.max()}, there are {count} classes"
    missing = sorted(set(range(count)) - set(train.tolist()))
    assert not missing, f"classes {missing[:5]} have no training image"
    names = checked.dataset.classes or ()
    assert len(set(names)) == len(names), "two classes have one name"


def _several_labels(checked: CheckedDataset, train: np.ndarray, test: np.ndarray) -> None:
    """Labels are zeros and ones, each has a training image, and `classes` names each once."""
    for split, labels in (("train", train), ("test", test)):
        assert labels.shape[1:] == train.shape[1:], f"{split}: {labels.shape[1]} labels, {train.shape[1]} in train"
        assert labels.max(initial=0) <= 1, f"{split}: a label is {labels.max()}, neither 0 nor 1"
    missing = np.flatnonzero(~train.any(0)).tolist()
    assert not missing, f"labels {missing[:5]} have no training image"
    names = checked.dataset.classes or tuple(map(str, range(train.shape[1])))
    assert len(names) == train.shape[1], f"there are {train.shape[1]} labels, and {len(names)} names"
    assert len(set(names)) == len(names), "two labels have one name"


@checks.promise("sort files before you read them, and seed what is drawn")
def loading_is_repeatable(checked: CheckedDataset) -> None:
    """Loading twice gives the same images in the same order."""
    for split in _SPLITS:
        images, labels = checked.load(split)
        first_images, first_labels = checked.splits[split]
        assert np.array_equal(images, first_images), f"{split}: the images differ when loaded again"
        assert np.array_equal(labels, first_labels), f"{split}: the labels differ when loaded again"


def run_check(check: str, dataset: Dataset | str) -> None:
    """Runs one of `DATASET_CHECKS` on a data set: a `Dataset`, or the name of one that is loaded.

    Raises:
        AssertionError: The promise is not kept.
        Exception: Whatever the data set itself raises.
    """
    checks.run(check, CheckedDataset(_item(dataset)))


def check_dataset(dataset: Dataset | str, *, expected_failures: Mapping[str, str] | None = None) -> list[Failure]:
    """Runs all of `DATASET_CHECKS` on a data set, or all of `INDEX_CHECKS` where it has an index.

    Args:
        dataset: A `Dataset`, or the name of one that is loaded.
        expected_failures: Checks that it is expected to fail, each with the reason; one that passes is a failure.

    Returns:
        The failures, an empty list if there are none.
    """
    found, checked = checks_of(_item(dataset))
    return found.failures(checked, expected_failures)


def checks_of(dataset: Dataset) -> tuple[Checks[Any], CheckedDataset | CheckedIndex]:
    """The checks for a data set, by what it gives, and the data set as they take it."""
    if dataset.index is not None:
        return indexed_datasets.checks, CheckedIndex(dataset)
    return checks, CheckedDataset(dataset)


def _item(dataset: Dataset | str) -> Dataset:
    item = loader.catalog().dataset(dataset).item if isinstance(dataset, str) else dataset
    assert isinstance(item, Dataset)
    return item


CHECKS: Final = checks.ids


class DatasetTests(Suite, checks=checks, attribute="dataset", run=run_check):
    """Every promise of a data set, as tests for pytest.

    Attributes:
        dataset: The item under test, or the name of one that is loaded.
    """

    dataset: ClassVar[Dataset | str | None] = None
