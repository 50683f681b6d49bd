"""The built-in data sets: a plugin like any other. What reads and serves images lies beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from poolzoo.spec import Dataset, Split, hookimpl

if TYPE_CHECKING:
    import numpy as np

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def _cifar10(split: Split, cache_dir: Path) -> tuple[np.ndarray, np.ndarray]:
    from poolzoo.data import cifar

    return cifar.load(split, cache_dir)


def _digits(split: Split, cache_dir: Path) -> tuple[np.ndarray, np.ndarray]:
    from poolzoo.data import digits

    return digits.load(split)


@hookimpl
def poolzoo_datasets() -> Iterator[Dataset]:
    yield Dataset(
        name="cifar10",
        summary="60,000 colour photographs of 32 × 32 pixels in ten classes; downloaded once (170 MB)",
        load=_cifar10,
        classes=CIFAR10_CLASSES,
    )
    yield Dataset(
        name="digits",
        summary="1,797 scans of handwritten digits, 8 × 8 pixels; comes with scikit-learn",
        load=_digits,
        flip=False,
    )
