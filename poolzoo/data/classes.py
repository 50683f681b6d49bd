"""What a classifier needs of its classes: at least two, each with images to learn from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from poolzoo.common import output
from poolzoo.common.errors import UsageError
from poolzoo.data.labels import counts

FEWEST = 2  # with one class every answer is right
NAMED = 5  # classes that a message names


def require(data: str, classes: Sequence[str], labels: np.ndarray, limit: int | None = None) -> None:
    """Makes sure that there are training images of at least two classes; of several labels, of at least one.

    Args:
        data: What `--data` named, for the message.
        classes: The names of the labels.
        labels: Of the training images, `int64[N]`, or `uint8[N, K]` for several labels.
        limit: What `--limit` left of them at most.

    Raises:
        UsageError: There are fewer; it says what a classifier needs.
    """
    if labels.ndim == 2:
        if not labels.any():
            raise UsageError(f"no training image of {data} has a label", "give labels, or a larger --limit")
        return
    found = [classes[label] for label in np.unique(labels)]
    if len(found) >= FEWEST:
        return
    kind, _, folder = data.partition(":")
    hint = f"add images of another class in {folder}/train/<class>/" if kind == "folder" else "take other data"
    if limit is not None:
        hint = f"--limit {limit} may have left the others out; otherwise {hint}"
    raise UsageError(
        f"{data} has training images of one class only ({found[0]}); "
        "a classifier needs at least two classes with training images",
        hint,
    )


def require_names(what: str, classes: Sequence[str]) -> None:
    """Makes sure that a trained network tells at least two classes apart.

    Raises:
        UsageError: It knows one class, so that every answer is right.
    """
    if len(classes) < FEWEST:
        raise UsageError(
            f"{what} knows one class only ({', '.join(classes)}): every answer is right, whatever it computes",
            "a classifier needs at least two classes with training images; train it again",
        )


def tell_unlearnable(classes: Sequence[str], train: np.ndarray, test: np.ndarray) -> None:
    """Says which classes have test images and no training images."""
    in_test = counts(test, len(classes))
    missing = np.flatnonzero((counts(train, len(classes)) == 0) & (in_test > 0)).tolist()
    if missing:
        listed = [f"{classes[label]} ({in_test[label]})" for label in missing]
        result = "all of these will be wrong" if test.ndim == 1 else "the label cannot be learned"
        output.warn(
            f"no training image of {named(listed)}, in brackets the test images: {result}",
            "add training images, or take the test images away",
        )


def tell_missing_labels(classes: Sequence[str], train: np.ndarray, val: np.ndarray) -> None:
    """Says which labels no image to train on or to validate on has.

    Args:
        classes: The names of the K labels.
        train: Labels of the images to train on, `uint8[N, K]`.
        val: Labels of the validation images, `uint8[n, K]`.

    Raises:
        UsageError: No validation image has a label.
    """
    if not val.any():
        raise UsageError("no validation image has a label, so that no epoch is better than another", "give more images")
    unlearned = [name for name, count in zip(classes, train.sum(0), strict=True) if not count]
    if unlearned:
        output.warn(f"no image to train on has the label {named(unlearned)}", "add such images, or leave the label out")
    unchosen = [name for name, count in zip(classes, val.sum(0), strict=True) if not count]
    if unchosen:
        output.warn(f"no validation image has the label {named(unchosen)}: its threshold is 0.5")


def named(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
