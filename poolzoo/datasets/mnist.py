"""MNIST and Fashion-MNIST as they are published: gzipped IDX files, gray, 28 × 28."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from torchvision.datasets import MNIST, FashionMNIST

from poolzoo.common.errors import CheckFailed
from poolzoo.datasets.download import fetch
from poolzoo.plugin.spec import Split

_UNSIGNED_BYTE = 8  # the IDX code of the only type that these files hold


def load(split: Split, cache_dir: Path, published: type[MNIST] = MNIST) -> tuple[np.ndarray, np.ndarray]:
    """One split of `MNIST` or `FashionMNIST`: `(uint8[N, 28, 28, 3], int64[N])`, 60,000 or 10,000 images.

    Raises:
        EnvironmentProblem: A file is not in the cache and cannot be fetched.
        CheckFailed: A file is damaged, or not the one that was published.
    """
    name = "fashion-mnist" if issubclass(published, FashionMNIST) else "mnist"
    checksums = dict(published.resources)
    paths = []
    for kind in ("images-idx3", "labels-idx1"):
        file = f"{'train' if split == 'train' else 't10k'}-{kind}-ubyte.gz"
        urls = [mirror + file for mirror in published.mirrors]
        # Both sets name their files alike, so each has its own directory.
        paths.append(fetch(cache_dir / name / file, urls, checksums[file], name))
    gray, labels = read_idx(paths[0], 3), read_idx(paths[1], 1)
    if len(gray) != len(labels):
        raise CheckFailed(f"{paths[0]} holds {len(gray)} images and {paths[1]} {len(labels)} labels", "delete both")
    return np.repeat(gray[..., None], 3, axis=-1), labels.astype(np.int64)


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The array in a gzipped IDX file: two zero bytes, the type, the number of dimensions, the sizes, the entries.

    Raises:
        CheckFailed: It is no such file, has other dimensions or another type, or more or fewer entries than it says.
    """
    try:
        raw = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path, str(error)) from error
    start = 4 + 4 * dimensions
    if len(raw) < start or raw[:4] != bytes((0, 0, _UNSIGNED_BYTE, dimensions)):
        raise _damaged(path, f"it begins with {raw[:4].hex(' ')}")
    sizes = np.frombuffer(raw, ">u4", dimensions, offset=4).tolist()
    if len(raw) - start != math.prod(sizes):
        raise _damaged(path, f"{len(raw) - start} bytes for {'×'.join(map(str, sizes))}")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(sizes)


def _damaged(path: Path, reason: str) -> CheckFailed:
    return CheckFailed(f"{path} is no IDX file of bytes: {reason}", "delete it, and it is fetched again")
