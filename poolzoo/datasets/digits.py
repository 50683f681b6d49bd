"""scikit-learn's digits: real scans of 8 × 8 pixels, split once and for all."""

from __future__ import annotations

from functools import cache

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from poolzoo.plugin.spec import Split


@cache
def _parts() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    scans = load_digits()
    gray = np.rint(scans.images * (255 / 16)).astype(np.uint8)  # the scans have 17 levels, 0 to 16
    images = np.repeat(gray[..., None], 3, axis=-1)
    parts = train_test_split(
        images, scans.target.astype(np.int64), test_size=0.2, stratify=scans.target, random_state=0
    )
    return tuple(parts)


def load(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """A stratified 80/20 split: `(uint8[N, 8, 8, 3], int64[N])`."""
    train_images, test_images, train_labels, test_labels = _parts()
    return (train_images, train_labels) if split == "train" else (test_images, test_labels)
