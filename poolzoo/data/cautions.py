"""The two worst facts about data that reading it tells at no cost: leakage, and classes of very different size.

`poolzoo data check` looks for more, and at every image. Streamed images are read while a network trains. Their
pixels are unknown before, so that only the second fact is said of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from poolzoo.common import output
from poolzoo.data.identity import DataIdentity, SplitIdentity
from poolzoo.data.labels import counts as label_counts

MIN_IMBALANCE: Final = 10  # times the smallest class that the largest one has to have


def warn(source: str, identity: DataIdentity, classes: Sequence[str]) -> None:
    """Says how many test images are training images too, and how unequal classes are; nothing where all is well.

    Args:
        source: What `--data` named.
        identity: Digests and labels of the images of "train" and "test".
        classes: Names of the labels.
    """
    train, test = identity.splits["train"], identity.splits["test"]
    if not (train.of_files or test.of_files):  # other images may have a name, a size and a time in common
        _tell_leaked(source, train, test)
    counts = label_counts(train.labels, len(classes))
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
