"""Which images choose the best epoch: those of `val/`, or a tenth of the training images."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from poolzoo.common.errors import UsageError
from poolzoo.data import stratification
from poolzoo.data.reader import Reader
from poolzoo.train.settings import Settings

VAL_FRACTION: Final = 0.1  # of the training images …
LARGEST_VAL: Final = 5000  # … and at most so many


class ValidationSplit(NamedTuple):
    """Indices of the images to train on and of those held out for validation, both `int64`."""

    train_indices: np.ndarray
    val_indices: np.ndarray


def hold_out(settings: Settings, reader: Reader | None, labels: np.ndarray) -> tuple[str | None, ValidationSplit]:
    """Where the validation images come from, "val" or None for the training images, and which they are.

    Args:
        settings: Of the run.
        reader: Of encoded images; None of a data set of decoded arrays.
        labels: Of the training images, and behind them of those of `val/`.

    Raises:
        UsageError: There are too few images, or none in `val/` where the run had some.
    """
    if reader is not None and reader.validation:
        indices = np.arange(len(labels))
        return "val", ValidationSplit(indices[: -reader.validation], indices[-reader.validation :])
    if settings.validation == "val":
        raise UsageError(f"{settings.data} has no val/ beside test/", "restore it, or start another run")
    seed = settings.seed if settings.split_seed is None else settings.split_seed
    return None, split_validation(labels, seed)


def split_validation(labels: np.ndarray, seed: int) -> ValidationSplit:
    """Holds out a tenth of each class or label for validation, about 5,000 images in all at most.

    Args:
        labels: Of the training images, `int64[N]`, or `uint8[N, K]` for several labels.
        seed: Of the choice.

    Raises:
        UsageError: There are too few images.
    """
    fraction = min(VAL_FRACTION, LARGEST_VAL / len(labels))
    held_out = np.zeros(len(labels), bool)
    if labels.ndim == 2:
        wanted = max(1, round(fraction * len(labels)))
        held_out[stratification.choose(labels, wanted, seed, at_least_one=True)] = True
    else:
        order = np.random.default_rng(seed).permutation(len(labels))
        by_class = order[np.argsort(labels[order], kind="stable")]
        for members in np.split(by_class, np.flatnonzero(np.diff(labels[by_class])) + 1):
            if len(members) > 1:
                held_out[members[: max(1, round(fraction * len(members)))]] = True
    if held_out.sum() == 0 or (~held_out).sum() < 2:
        raise UsageError(
            f"{len(labels)} training images are too few to train and to validate on",
            "give at least two images a class, or a larger --limit",
        )
    return ValidationSplit(train_indices=np.flatnonzero(~held_out), val_indices=np.flatnonzero(held_out))
