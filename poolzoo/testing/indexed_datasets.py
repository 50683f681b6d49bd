"""What every data set of encoded images promises, as checks. They make its indices and read a few images."""

from __future__ import annotations

import pickle
import weakref
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from functools import cached_property
from typing import Any, ClassVar, Final

import numpy as np

from poolzoo.common.temporary import temporary_folder
from poolzoo.data import images
from poolzoo.plugin.image_index import ImageIndex
from poolzoo.plugin.spec import Dataset
from poolzoo.testing.base import Checks
from poolzoo.testing.suite import Suite

READ: Final = 8  # images of a split that are read
BYTES_EACH: Final = 200  # of an index


class CheckedIndex:
    """A data set under test. What it gives is untyped, since the checks find out what it is."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        stack = ExitStack()
        self._folder = stack.enter_context(temporary_folder())  # where it may keep what its images need
        weakref.finalize(self, stack.close)

    def index(self, split: str) -> Any:
        assert self.dataset.index is not None
        return self.dataset.index(split, self._folder)

    @cached_property
    def indices(self) -> Mapping[str, Any]:
        return {split: self.index(split) for split in self.dataset.splits}

    @staticmethod
    def some(index: ImageIndex) -> list[int]:
        """Positions of a few images, the first and the last among them."""
        return sorted({int(position) for position in np.linspace(0, len(index) - 1, READ)})


checks = Checks[CheckedIndex]()


@checks.promise("return ImageIndex(storage, Names.of(names), labels) for every split of `splits`")
def splits_are_indices(checked: CheckedIndex) -> None:
    """Every split is a `poolzoo.ImageIndex` of at least one image, in at most 200 bytes for each."""
    assert "train" in checked.dataset.splits, f"there is no split train in {checked.dataset.splits}"
    for split, index in checked.indices.items():
        assert isinstance(index, ImageIndex), f"{split}: gives a {type(index).__name__}, not an ImageIndex"
        assert len(index), f"{split}: there are no images"
        each = index.nbytes / len(index)
        assert len(index) < READ or each <= BYTES_EACH or index.labels.ndim == 2, f"{split}: {each:.0f} bytes an image"


@checks.promise("number the classes from 0 as int32[N], or give uint8[N, K] of zeros and ones; name each class once")
def labels_are_classes(checked: CheckedIndex) -> None:
    """Labels are places in `classes`, which names each class once, and every class has training images."""
    names = checked.dataset.classes or ()
    assert names, "it names no classes"
    assert len(set(names)) == len(names), "two classes have one name"
    for split, index in checked.indices.items():
        labels = index.labels
        if labels.ndim == 2:
            assert labels.dtype == np.uint8, f"{split}: labels are {labels.dtype}, not uint8"
            assert labels.shape[1] == len(names), f"{split}: labels {list(labels.shape)} of {len(names)} classes"
            assert labels.max() <= 1, f"{split}: a label is {labels.max()}, neither 0 nor 1"
        else:
            assert labels.dtype == np.int32, f"{split}: labels are {labels.dtype}, not int32"
            assert labels.min() >= 0, f"{split}: a label is {labels.min()}"
            assert labels.max() < len(names), f"{split}: a label is {labels.max()}, there are {len(names)} classes"
    train = checked.indices["train"].labels
    found = np.flatnonzero(train.any(0)) if train.ndim == 2 else np.unique(train)
    missing = sorted(set(range(len(names))) - set(found.tolist()))
    assert not missing, f"classes {missing[:5]} have no training image"


@checks.promise("name an image by its path or key; a name tells images apart in a list of those that cannot be read")
def names_are_unique(checked: CheckedIndex) -> None:
    """No two images of a split have one name, and none is empty."""
    for split, index in checked.indices.items():
        (name, count) = Counter(index.names).most_common(1)[0]
        assert count == 1, f"{split}: {count} images are called {name!r}"
        assert "" not in index.names, f"{split}: an image has no name"


@checks.promise("give from `open` a binary file at its start that can be sought in, new for each call")
def images_can_be_read(checked: CheckedIndex) -> None:
    """Images open as binary files that Pillow reads, the same each time, and have a stamp."""
    for split, index in checked.indices.items():
        for position in checked.some(index):
            name = index.names[position]
            with index.open(position) as file, index.open(position) as again:
                content = file.read()
                assert file.seek(0) == 0, f"{split}: {name} cannot be sought in"
                assert again.read() == content, f"{split}: {name} differs when it is opened again"
                file.seek(0)
                pixels = images.read(file)
            assert pixels.ndim == 3, f"{split}: {name} becomes {list(pixels.shape)}"
            size, time = index.stamp(position)
            assert size == len(content), f"{split}: {name} has {len(content)} bytes, its stamp says {size}"
            assert index.stamp(position) == (size, time), f"{split}: the stamp of {name} changes"


@checks.promise("keep paths and offsets in the storage, and open files in `open`: it goes to processes that read")
def indices_can_be_pickled(checked: CheckedIndex) -> None:
    """A pickled index reads the same images, and its storage takes little room."""
    for split, index in checked.indices.items():
        packed = pickle.dumps(index)
        again = pickle.loads(packed)
        for position in checked.some(index):
            with index.open(position) as file, again.open(position) as other:
                assert file.read() == other.read(), f"{split}: {index.names[position]} differs in another process"


@checks.promise("sort files before you list them, and seed what is drawn")
def indexing_is_repeatable(checked: CheckedIndex) -> None:
    """Making an index twice gives the same names and labels in the same order."""
    for split, first in checked.indices.items():
        again = checked.index(split)
        assert list(again.names) == list(first.names), f"{split}: the names differ when indexed again"
        assert np.array_equal(again.labels, first.labels), f"{split}: the labels differ when indexed again"


def run_check(check: str, dataset: Dataset) -> None:
    """Runs one of `INDEX_CHECKS` on a data set.

    Raises:
        AssertionError: The promise is not kept.
        Exception: Whatever the data set itself raises.
    """
    checks.run(check, CheckedIndex(dataset))


CHECKS: Final = checks.ids


class IndexedDatasetTests(Suite, checks=checks, attribute="dataset", run=run_check):
    """Every promise of a data set of encoded images, as tests for pytest.

    Attributes:
        dataset: The item under test.
    """

    dataset: ClassVar[Dataset | None] = None
