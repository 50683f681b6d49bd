"""The built-in data sets and their sources: a plugin like any other. What reads and serves images lies beside it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from poolzoo.datasets import class_names
from poolzoo.plugin.spec import Dataset, DatasetSource, Split, hookimpl

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np


def _cifar10(split: Split, cache_dir: Path) -> tuple[np.ndarray, np.ndarray]:
    from poolzoo.datasets import cifar

    return cifar.load(split, cache_dir)


def _cifar100(split: Split, cache_dir: Path) -> tuple[np.ndarray, np.ndarray]:
    from torchvision.datasets import CIFAR100

    from poolzoo.datasets import cifar

    return cifar.load(split, cache_dir, CIFAR100)


def _mnist(split: Split, cache_dir: Path) -> tuple[np.ndarray, np.ndarray]:
    from poolzoo.datasets import mnist

    return mnist.load(split, cache_dir)


def _fashion_mnist(split: Split, cache_dir: Path) -> tuple[np.ndarray, np.ndarray]:
    from torchvision.datasets import FashionMNIST

    from poolzoo.datasets import mnist

    return mnist.load(split, cache_dir, FashionMNIST)


def _digits(split: Split, cache_dir: Path) -> tuple[np.ndarray, np.ndarray]:
    from poolzoo.datasets import digits

    return digits.load(split)


@hookimpl
def poolzoo_datasets() -> Iterator[Dataset | DatasetSource]:
    yield Dataset(
        name="cifar10",
        summary="60,000 color images of 32 × 32 pixels in ten classes; downloaded once (170 MB)",
        load=_cifar10,
        classes=class_names.CIFAR10,
    )
    yield Dataset(
        name="cifar100",
        summary="60,000 color images of 32 × 32 pixels in a hundred classes; downloaded once (169 MB)",
        load=_cifar100,
        classes=class_names.CIFAR100,
    )
    yield Dataset(
        name="mnist",
        summary="70,000 scans of handwritten digits, 28 × 28 pixels, gray; downloaded once (12 MB)",
        load=_mnist,
        flip=False,
    )
    yield Dataset(
        name="fashion-mnist",
        summary="70,000 images of clothes in ten classes, 28 × 28 pixels, gray; downloaded once (31 MB)",
        load=_fashion_mnist,
        classes=class_names.FASHION_MNIST,
    )
    yield Dataset(
        name="digits",
        summary="1,797 scans of handwritten digits, 8 × 8 pixels; comes with scikit-learn",
        load=_digits,
        flip=False,
    )
    yield DatasetSource(
        prefix="folder",
        summary="images in class folders: PATH/train/<class>/…, perhaps PATH/test and PATH/val, or PATH/<class>/…",
        open="poolzoo.datasets.folder:open_folder",
        example="folder:photos",
    )
    yield DatasetSource(
        prefix="csv",
        summary="a table with columns path and label or labels, perhaps split: .csv, .tsv, .jsonl",
        open="poolzoo.datasets.table:open_table",
        example="csv:photos.csv",
    )
    yield DatasetSource(
        prefix="parquet",
        summary="Parquet files with an image and a label in each row: a file, a pattern, or a folder of them",
        open="poolzoo.datasets.hugging_face:open_parquet",
        example="parquet:data",
        install="pip install 'poolzoo[hf]'",
        modules=("datasets",),
    )
    yield DatasetSource(
        prefix="hf",
        summary="a data set of the Hugging Face Hub, or one in a local folder",
        open="poolzoo.datasets.hugging_face:open_hub",
        is_path=False,
        example="hf:food101",
        install="pip install 'poolzoo[hf]'",
        modules=("datasets",),
    )
    yield DatasetSource(
        prefix="shards",
        summary="WebDataset tar files: samples of an image and its .cls, .json or .txt",
        open="poolzoo.datasets.shards:open_shards",
        example="shards:data/{train,test}-{0000..0009}.tar",
        install="pip install 'poolzoo[shards]'",
        modules=("webdataset",),
    )
