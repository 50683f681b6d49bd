"""CIFAR-10 and CIFAR-100 as their authors publish them, read without running what a pickle may hold."""

from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from torchvision.datasets import CIFAR10, CIFAR100

from poolzoo.common.errors import CheckFailed
from poolzoo.datasets.download import fetch
from poolzoo.plugin.spec import Split

# The only globals that the archives' pickles need: numpy arrays and their Python 2 strings.
_ADMITTED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise CheckFailed(f"the CIFAR archive asks for {module}.{name}", "delete it, and it is fetched again")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def load(split: Split, cache_dir: Path, published: type[CIFAR10] = CIFAR10) -> tuple[np.ndarray, np.ndarray]:
    """One split of `CIFAR10` or `CIFAR100`: `(uint8[N, 32, 32, 3], int64[N])`, 50,000 or 10,000 images.

    Of CIFAR-100 the labels are the fine ones, of 100 classes.

    Raises:
        EnvironmentProblem: The archive is not in the cache and cannot be fetched.
        CheckFailed: The archive is not the one that was published.
    """
    fine = issubclass(published, CIFAR100)
    path = cache_dir / published.filename
    archive = fetch(path, [published.url], published.tgz_md5, "cifar100" if fine else "cifar10")
    parts = published.train_list if split == "train" else published.test_list
    images, labels = [], []
    with tarfile.open(archive) as tar:
        for file, _ in parts:
            member = tar.extractfile(f"{published.base_folder}/{file}")
            assert member is not None  # the checksum was right
            part = _ArraysOnly(io.BytesIO(member.read()), encoding="latin1").load()
            images.append(part["data"])
            labels += part["fine_labels" if fine else "labels"]
    planes = np.concatenate(images).reshape(-1, 3, 32, 32)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), np.array(labels, np.int64)
