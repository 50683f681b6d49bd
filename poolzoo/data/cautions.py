"""The two worst facts about data that reading it tells at no cost: leakage, and classes of very different size.

`poolzoo data check` looks for more, and at every image. Images that stream are read while a network trains, so that
nothing is known of their pixels before: of them only the second fact is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from poolzoo.common import output
from poolzoo.data.identity import DataIdentity, SplitIdentity

MIN_IMBALANCE: Final = 10  # times the smallest class that the largest one has to have


def tell(source: str, identity: DataIdentity, classes: Sequence[str]) -> None:
    """Says how many test images are training images too, and how unequal classes are; nothing where all is well.

    Args:
        source: What `--data` named.
        identity: Digests and labels of the images of "train" and "test".
        classes: Names of the labels.
    """
    train, test = identity.splits["train"], identity.splits["test"]
    if not (train.of_files or test.of_files):  # whose digests are of names, sizes and times
        _tell_leaked(source, train, test)
    counts = train.labels.sum(0) if train.labels.ndim == 2 else np.bincount(train.labels, minlength=len(classes))
    present = np.flatnonzero(counts)
    small, large = int(present[counts[present].argmin()]), int(counts.argmax())
    if counts[large] >= MIN_IMBALANCE * counts[small]:
        images = "training image" if counts[small] == 1 else "training images"
        text = f"classes are unequal: {counts[small]:,} {images} of {classes[small]}"
        hint = "accuracy hides small classes; --class-weights balanced or --sampler balanced weigh them up"
        if train.labels.ndim == 2:  # the sampler needs one label an image
            hint = "--class-weights balanced weighs small ones up"
        output.warn(f"{text}, {counts[large]:,} of {classes[large]}", hint)


def _tell_leaked(source: str, train: SplitIdentity, test: SplitIdentity) -> None:
    known, images = (np.ascontiguousarray(split.digests).view(np.uint64).ravel() for split in (train, test))
    if leaked := int(np.isin(images, known).sum()):
        verb = "is a training image" if leaked == 1 else "are training images"
        text = f"{leaked:,} of {len(images):,} test images {verb} too, so that the test accuracy is too good"
        output.warn(text, f"poolzoo data check {source}")
