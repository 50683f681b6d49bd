"""From logits and labels to metrics: predictions, accuracy, and everything in `Metrics`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch

from poolzoo.common import output
from poolzoo.metrics import decisions
from poolzoo.metrics.decisions import ONE_LABEL
from poolzoo.metrics.intervals import calibration_error, wilson_interval
from poolzoo.metrics.results import ClassMetrics, Metrics, format_score, untested_classes, untested_note

NO_CLASS: Final = decisions.NO_CLASS
LARGEST_MATRIX: Final = 20  # classes up to which `show` prints the confusion matrix
LARGEST_NAME: Final = 6  # characters of a class name above a column of that matrix


def flip_averaged_logits(logits: np.ndarray, flipped_logits: np.ndarray) -> np.ndarray:
    """Log of the mean softmax of each image and its mirror image.

    This is test-time augmentation by horizontal flip. It doubles the work and suits no images that mean something else
    when mirrored, such as digits. The softmax of the result is the mean, so the result can be used as logits.

    Args:
        logits: Of the images, `float[…, classes]`.
        flipped_logits: Of the mirrored images, the same shape.

    Returns:
        `float32[…, classes]`.
    """
    views = (torch.from_numpy(each).double().log_softmax(-1) for each in (logits, flipped_logits))
    mean: np.ndarray = (torch.logaddexp(*views) - math.log(2)).float().numpy()
    return mean


def predictions(logits: np.ndarray) -> np.ndarray:
    """`float[N, classes] → int64[N]`: the class with the largest logit; NO_CLASS where that is NaN or infinite."""
    return ONE_LABEL.decide(logits)


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Fraction of the images whose largest logit is the label's."""
    return float((predictions(logits) == labels).mean())


def top_accuracy(logits: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Fraction of the images whose label is among the `k` largest logits; ties go to the lower class index."""
    own = np.take_along_axis(logits, labels[:, None], 1)
    earlier = np.arange(logits.shape[1]) < labels[:, None]
    ahead = (logits > own) | ((logits == own) & earlier)
    return float(((ahead.sum(1) < k) & (predictions(logits) != NO_CLASS)).mean())


def compute(logits: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> Metrics:
    """Computes all metrics of a classifier.

    Macro means run over the classes that occur in `labels`. A class that occurs and is never predicted has precision
    0, as with scikit-learn's `zero_division=0`. Images whose largest logit is NaN or infinite count as wrong and stand
    in no column of the confusion matrix. `ece` is None then, and a warning gives their number.

    Args:
        logits: `float[N, classes]`.
        labels: `int64[N]`.
        classes: Names of the classes.
    """
    predicted = predictions(logits)
    matrix = confusion_matrix(labels, predicted, num_classes=len(classes))
    support = np.bincount(labels, minlength=len(classes))
    true_positives = matrix.diagonal()
    predicted_counts = matrix.sum(0)
    precision = _ratio(true_positives, predicted_counts)
    recall = _ratio(true_positives, support)
    f1 = _ratio(2 * true_positives, support + predicted_counts)
    present = support > 0
    correct = predicted == labels
    if non_finite := int((predicted == NO_CLASS).sum()):
        output.warn(
            f"the network gives NaN or infinity for {non_finite} of {len(labels)} images; they count as wrong",
            "try --device cpu, or train again with a smaller --lr",
        )
    return Metrics(
        accuracy=float(correct.mean()),
        interval=wilson_interval(int(correct.sum()), len(labels)),
        top5=top_accuracy(logits, labels, k=5) if len(classes) > 5 else None,
        ece=calibration_error(logits, correct) if not non_finite else None,
        precision=float(precision[present].mean()),
        recall=float(recall[present].mean()),
        f1=float(f1[present].mean()),
        n=len(labels),
        per_class=tuple(
            ClassMetrics(
                name=name,
                precision=float(precision[index]) if present[index] else None,
                recall=float(recall[index]) if present[index] else None,
                f1=float(f1[index]) if present[index] else None,
                n=int(support[index]),
            )
            for index, name in enumerate(classes)
        ),
        confusion=tuple(tuple(row) for row in matrix.tolist()),
    )


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Number of images by true class (row) and predicted class (column); NO_CLASS has no column.

    Args:
        labels: `int64[N]`.
        predicted: `int64[N]`.
        num_classes: Rows and columns.

    Returns:
        `int64[num_classes, num_classes]`.
    """
    known = predicted != NO_CLASS
    cells = labels[known] * num_classes + predicted[known]
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """`part / whole`, 0 where the whole is 0."""
    ratio: np.ndarray = np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
    return ratio


def show(metrics: Metrics) -> None:
    """Prints the table of classes, the confusion matrix if it is small, and the metrics of all images."""
    rows = [
        (row.name, row.n, format_score(row.precision), format_score(row.recall), format_score(row.f1))
        for row in metrics.per_class
    ]
    means = (format_score(metrics.precision), format_score(metrics.recall), format_score(metrics.f1))
    rows.append(("macro mean", metrics.n, *means))
    output.table(("class", "n", "precision", "recall", "F1"), rows, right=(1, 2, 3, 4))
    names = [row.name for row in metrics.per_class]
    if len(names) <= LARGEST_MATRIX:
        output.data("")
        matrix = [(name, *row) for name, row in zip(names, metrics.confusion, strict=True)]
        headers = ("truth \\ predicted", *(name[:LARGEST_NAME] for name in names))
        output.table(headers, matrix, right=tuple(range(1, len(names) + 1)))
    output.data("")
    if note := untested_note(untested_classes(metrics.per_class)):
        output.data(note)
    low, high = metrics.interval
    output.data(f"accuracy {metrics.accuracy:.4f} on {metrics.n} images (95 % interval {low:.4f} to {high:.4f})")
    if metrics.top5 is not None:
        output.data(f"top-5 accuracy {metrics.top5:.4f}")
    if metrics.ece is not None:
        output.data(f"expected calibration error {metrics.ece:.4f}")
