"""Logits for many images, and the figures that say how good they are. Fractions are 0–1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch

from poolzoo.common import output
from poolzoo.metrics.intervals import calibration_error, wilson_interval
from poolzoo.metrics.per_class import about_untested, figure

NO_CLASS: Final = -1  # the prediction from logits of which none is the largest


def mean_of_views(plain: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
    """Log of the mean softmax of each image and its mirror image, from the logits of both, `float[…, classes]`.

    The simplest test-time augmentation, at twice the work: not for images that mean something else when mirrored, such
    as digits. The softmax of what it returns is that mean again, so that it stands wherever logits do.
    """
    views = (torch.from_numpy(logits).double().log_softmax(-1) for logits in (plain, mirrored))
    return (torch.logaddexp(*views) - math.log(2)).float().numpy()


def predictions(logits: np.ndarray) -> np.ndarray:
    """`float[N, classes] → int64[N]`: the class with the largest logit; NO_CLASS where that is NaN or infinite."""
    return np.where(np.isfinite(logits.max(1)), logits.argmax(1), NO_CLASS)


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Rank of the images whose largest logit is the label's."""
    return float((predictions(logits) == labels).mean())


def top_accuracy(logits: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Rank of the images whose label is among the `k` largest logits; of equal ones the first class comes first."""
    own = np.take_along_axis(logits, labels[:, None], 1)
    first = np.arange(logits.shape[1]) < labels[:, None]
    ahead = (logits > own) | ((logits == own) & first)
    return float(((ahead.sum(1) < k) & (predictions(logits) != NO_CLASS)).mean())


def compute(logits: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Accuracy, macro precision, recall and F1, the same for each class, and the confusion matrix (rows: truth).

    The macro means run over the classes that occur in `labels`; of another class all three are undefined, and None. A
    class that occurs and is never predicted has precision 0, as with scikit-learn's `zero_division=0`. Beside them:
    `interval`, the 95 % interval of the accuracy; `top5`, None for five classes or fewer; `ece`, the expected
    calibration error.

    Images whose largest logit is NaN or infinite count as wrong and stand in no column of the confusion matrix; `ece`
    is None then, since their confidence is no number, and a warning tells how many they are.
    """
    predicted = predictions(logits)
    matrix, support = confusion(labels, predicted, len(classes)), np.bincount(labels, minlength=len(classes))
    right_of, named = matrix.diagonal(), matrix.sum(0)
    precision, recall, f1 = _ratio(right_of, named), _ratio(right_of, support), _ratio(2 * right_of, support + named)
    present = support > 0
    right = predicted == labels
    if lost := int((predicted == NO_CLASS).sum()):
        output.warn(
            f"the network gives NaN or infinity for {lost} of {len(labels)} images; they count as wrong",
            "try --device cpu, or train again with a smaller --lr",
        )
    return {
        "accuracy": float(right.mean()),
        "interval": list(wilson_interval(int(right.sum()), len(labels))),
        "top5": top_accuracy(logits, labels, 5) if len(classes) > 5 else None,
        "ece": calibration_error(logits, right) if not lost else None,
        "precision": float(precision[present].mean()),
        "recall": float(recall[present].mean()),
        "f1": float(f1[present].mean()),
        "n": len(labels),
        "per_class": [
            {
                "class": name,
                **{
                    key: float(value) if n else None
                    for key, value in zip(("precision", "recall", "f1"), values, strict=True)
                },
                "n": int(n),
            }
            for name, *values, n in zip(classes, precision, recall, f1, support, strict=True)
        ],
        "confusion": matrix.tolist(),
    }


def confusion(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """How often each class (row) was predicted as each (column), `int64[classes, classes]`; NO_CLASS has no column."""
    known = predicted != NO_CLASS
    return np.bincount(labels[known] * classes + predicted[known], minlength=classes**2).reshape(classes, classes)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """`part / whole`, 0 where the whole is 0."""
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)


def headline(full: dict[str, Any]) -> dict[str, Any]:
    """The figures without the tables."""
    return {key: full[key] for key in ("accuracy", "precision", "recall", "f1", "n")}


def show(full: dict[str, Any]) -> None:
    """Prints the figures, the table of classes and the confusion matrix."""
    rows = [(c["class"], c["n"], *(figure(c[k]) for k in ("precision", "recall", "f1"))) for c in full["per_class"]]
    rows.append(("macro mean", full["n"], *(figure(full[k]) for k in ("precision", "recall", "f1"))))
    output.table(("class", "n", "precision", "recall", "F1"), rows, right=(1, 2, 3, 4))
    if len(full["confusion"]) <= 20:
        names = [c["class"] for c in full["per_class"]]
        output.data("")
        matrix = [(name, *row) for name, row in zip(names, full["confusion"], strict=True)]
        output.table(("truth \\ predicted", *(n[:6] for n in names)), matrix, right=tuple(range(1, len(names) + 1)))
    output.data("")
    if sentence := about_untested(full["per_class"]):
        output.data(sentence)
    low, high = full["interval"]
    output.data(f"accuracy {full['accuracy']:.4f} on {full['n']} images (95 % interval {low:.4f} to {high:.4f})")
    if full["top5"] is not None:
        output.data(f"top-5 accuracy {full['top5']:.4f}")
    if full["ece"] is not None:
        output.data(f"expected calibration error {full['ece']:.4f}")
