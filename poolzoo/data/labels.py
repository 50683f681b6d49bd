"""Labels as data sets give them: one class per image `int64[N]`, or any number of labels `uint8[N, K]`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from poolzoo.common.errors import PluginFailed, UsageError

MAX_CLASSES: Final = 1_000_000  # a larger label is no class but a number, such as a hash; each class takes a name


def checked(name: str, labels: np.ndarray, images: int, classes: Sequence[str] | None) -> np.ndarray:
    """Labels that keep the contract, as `int64[N]` or `uint8[N, K]`.

    Args:
        name: The data set, for messages.
        labels: What it gave.
        images: Number N of its images.
        classes: Names of its K classes; None where it has none.

    Raises:
        PluginFailed: They do not keep it.
    """
    if labels.ndim == 2:
        return _several(name, labels, images, classes)
    if labels.shape != (images,) or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise PluginFailed(
            f"data set {name} gave {labels.dtype}{list(labels.shape)} labels", "its contract is int64[N] ≥ 0"
        )
    if classes is not None and labels.max() >= len(classes):
        raise PluginFailed(f"data set {name} has label {labels.max()} and {len(classes)} classes", "fix its plugin")
    if labels.max() >= MAX_CLASSES:
        raise PluginFailed(
            f"data set {name} has label {labels.max()}: labels count from 0, at most {MAX_CLASSES:,}",
            "its contract is int64[N], the place of each image's class",
        )
    return labels.astype(np.int64)


def _several(name: str, labels: np.ndarray, images: int, classes: Sequence[str] | None) -> np.ndarray:
    found = f"data set {name} gave {labels.dtype}{list(labels.shape)} labels"
    contract = "its contract for several labels is uint8[N, K], zeros and ones"
    if labels.shape[0] != images or not labels.shape[1]:
        raise PluginFailed(f"{found} for {images} images", contract)
    if classes is not None and labels.shape[1] != len(classes):
        raise PluginFailed(f"{found} and has {len(classes)} classes", contract)
    if labels.dtype.kind not in "biu":
        raise PluginFailed(found, contract)
    if ((labels != 0) & (labels != 1)).any():
        other = labels[(labels != 0) & (labels != 1)][0]
        raise PluginFailed(f"{found}, one of them {other}", contract)
    return labels.astype(np.uint8)


def require_task(data: str, split: str, labels: np.ndarray, *, multilabel: bool) -> None:
    """Makes sure that the labels are those of the task, and that an image has one.

    Args:
        data: What `--data` named, for messages.
        split: Whose labels they are, such as "training".
        labels: `int64[N]` or `uint8[N, K]`.
        multilabel: Whether the task is that of several labels.

    Raises:
        UsageError: They are not.
    """
    if labels.ndim == 2 and not multilabel:
        raise UsageError(f"an image of {data} may have several labels", "add --task multilabel")
    if labels.ndim == 2 and not labels.any():
        raise UsageError(f"no {split} image of {data} has a label", "give labels")
    if labels.ndim == 1 and multilabel:
        hint = "leave --task multilabel out, or give labels uint8[N, K] of zeros and ones"
        raise UsageError(f"each image of {data} has exactly one label", hint)


def plain(labels: np.ndarray) -> np.ndarray:
    """Labels of any whole numbers as `int64[N]`; several an image stay `uint8[N, K]`."""
    return labels.astype(np.int64) if labels.ndim == 1 else labels


def counts(labels: np.ndarray, classes: int) -> np.ndarray:
    """Number of images of each class or label, `int64[K]`."""
    if labels.ndim == 2:
        return np.asarray(labels.sum(0, dtype=np.int64))
    return np.bincount(labels, minlength=classes)
