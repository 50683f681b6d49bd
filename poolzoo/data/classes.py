"""What a classifier needs of its classes: at least two, each with images to learn from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from poolzoo.common import output
from poolzoo.common.errors import UsageError

FEWEST = 2  # with one class every answer is right
NAMED = 5  # classes that a message names


def require(data: str, classes: Sequence[str], labels: np.ndarray, limit: int | None = None) -> None:
    """Makes sure that there are training images of at least two classes.

    Args:
        data: What `--data` named, for the message.
        classes: The names of the labels.
        labels: Of the training images, `int64[N]`.
        limit: What `--limit` left of them at most.

    Raises:
        UsageError: There are fewer; it says what a classifier needs.
    """
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
    missing = np.setdiff1d(test, train)
    if len(missing):
        tested = np.bincount(test, minlength=len(classes))
        counts = [f"{classes[label]} ({tested[label]})" for label in missing]
        output.warn(
            f"no training image of {named(counts)}, in brackets the test images: all of these will be wrong",
            "add training images, or take the test images away",
        )


def named(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
