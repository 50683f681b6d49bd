"""`--class-weights`: how much the images of each class count in the loss."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from poolzoo.common import files, json_reader
from poolzoo.common.errors import CheckFailed, UsageError
from poolzoo.data.class_mismatch import difference
from poolzoo.train.settings import BALANCED

MAX_WEIGHT = 1e9  # of a class, and the inverse of the least: float32 holds their ratios
HINT = 'it holds an object such as {"cat": 1, "dog": 2.5}'


@dataclass(frozen=True)
class ClassWeights:
    """Factors of the loss, for K classes.

    Attributes:
        positive: Of images that have the class, `float32[K]`.
        negative: Of images that lack it, `float32[K]`, where images have several labels; else None.
    """

    positive: np.ndarray
    negative: np.ndarray | None = None

    @property
    def digest(self) -> str:
        """The sha256 of all weights."""
        parts = [self.positive, *([] if self.negative is None else [self.negative])]
        return hashlib.sha256(np.concatenate(parts).tobytes()).hexdigest()


def class_weights(setting: str, labels: np.ndarray, classes: Sequence[str]) -> ClassWeights:
    """The weights that `--class-weights` asks for.

    "balanced" is n / (K · n_k), as in scikit-learn's `compute_class_weight`, where K classes have images. With several
    labels, each of them is a question of its own with two answers: n / (2 · n_k) and n / (2 · (n − n_k)). A class
    without images, or in all images, has weight 1.

    Weights from a file are scaled so that their mean over the training images is 1: the learning rate keeps its
    meaning. With several labels they apply as they are, as the `pos_weight` of torch's `BCEWithLogitsLoss`.

    Args:
        setting: "balanced", or the path of a JSON file that maps each class to its weight.
        labels: Of the images to train on, `int64[n]`, or `uint8[n, K]` for several labels.
        classes: Names of the classes.

    Raises:
        UsageError: There is no such file, or its classes are others.
        CheckFailed: The file is no JSON, or holds no such weights.
    """
    several = labels.ndim == 2
    count = len(labels)
    images = labels.sum(0, dtype=np.int64) if several else np.bincount(labels, minlength=len(classes))
    if setting != BALANCED:
        given = _read(Path(setting), classes)
        if several:
            return ClassWeights(positive=given.astype(np.float32), negative=np.ones(len(classes), np.float32))
        return ClassWeights(positive=(given * count / (given @ images)).astype(np.float32))
    if several:
        return ClassWeights(positive=_inverse(images, count, 2), negative=_inverse(count - images, count, 2))
    return ClassWeights(positive=_inverse(images, count, int(np.count_nonzero(images))))


def _inverse(images: np.ndarray, count: int, groups: int) -> np.ndarray:
    """n / (K · n_k) for `float32[K]` groups; 1 for one that has no or all images."""
    usual = (images > 0) & (images < count)
    weights: np.ndarray = np.where(usual, count / (groups * images.clip(1)), 1.0).astype(np.float32)
    return weights


def require_file(setting: str | None) -> None:
    """Makes sure that a file of weights exists, before any data is read.

    Raises:
        UsageError: There is none.
    """
    if setting is not None and setting != BALANCED and not Path(setting).is_file():
        raise UsageError(f"--class-weights {setting!r} is neither balanced nor a file", HINT)


def _once(path: Path, pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    """The weights by class, each of which the file names once."""
    if (twice := json_reader.named_twice(pairs)) is not None:
        raise UsageError(f"{path} gives the class {twice!r} more than one weight", "leave one of them")
    return dict(pairs)


def _read(path: Path, classes: Sequence[str]) -> np.ndarray:
    """The weights in a file, `float64[K]`."""
    try:
        found = json_reader.mapping(files.read_json(path, partial(_once, path)))
    except CheckFailed as error:
        raise CheckFailed(error.message, HINT) from error
    if set(found) != set(classes):
        text = f"the classes in {path} are others: {difference('the data', classes, 'the file', list(found))}"
        raise UsageError(text, "give each class of the data a weight")
    weights = [json_reader.number(found[name]) for name in classes]
    for name, weight in zip(classes, weights, strict=True):
        if weight is None or weight <= 0:
            raise CheckFailed(f"the weight of {name!r} in {path} is no number above zero", HINT)
        if not 1 / MAX_WEIGHT <= weight <= MAX_WEIGHT:
            text = f"the weight of {name!r} in {path} is {weight:g}, not between {1 / MAX_WEIGHT:g} and {MAX_WEIGHT:g}"
            raise CheckFailed(text, HINT)
    return np.array(weights, dtype=np.float64)
