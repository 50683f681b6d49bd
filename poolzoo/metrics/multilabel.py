"""From logits of several labels to metrics: ranking scores, and everything in `MultilabelMetrics`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from poolzoo.common import output
from poolzoo.metrics import bootstrap, ranking
from poolzoo.metrics.activations import sigmoid
from poolzoo.metrics.decisions import Decision, is_finite
from poolzoo.metrics.intervals import classwise_calibration_error
from poolzoo.metrics.multilabel_results import LabelMetrics, MultilabelMetrics
from poolzoo.metrics.results import format_score, untested_classes, untested_note


def ranking_scores(logits: np.ndarray) -> np.ndarray:
    """`float[N, K]`: the logits, and −∞ for images whose logits are not all finite, so that they rank last."""
    return np.where(is_finite(logits)[:, None], logits, -np.inf)


def mean_average_precision(logits: np.ndarray, labels: np.ndarray) -> float:
    """mAP of logits `float[N, K]` for labels `uint8[N, K]`, over the labels that an image has; NaN if none has any."""
    return ranking.mean_average_precision(ranking_scores(logits), labels)


def flip_averaged_logits(logits: np.ndarray, flipped_logits: np.ndarray) -> np.ndarray:
    """Logits of the mean probability of each image and its mirror image, `float32[…, K]`.

    Args:
        logits: Of the images, `float[…, K]`.
        flipped_logits: Of the mirrored images, the same shape.
    """
    views = [each.astype(np.float64) for each in (logits, flipped_logits)]
    positive = np.logaddexp(*(-np.logaddexp(0, -each) for each in views))
    negative = np.logaddexp(*(-np.logaddexp(0, each) for each in views))
    mean: np.ndarray = (positive - negative).astype(np.float32)
    return mean


def compute(logits: np.ndarray, labels: np.ndarray, classes: Sequence[str], decision: Decision) -> MultilabelMetrics:
    """Computes all metrics of a network with several labels.

    Macro means and mAP run over the labels that occur. A label that occurs and is never predicted has precision 0, as
    with scikit-learn's `zero_division=0`. Micro means count every decision, also those about labels that no image has.
    Images whose logits are not all finite get no label and rank last. `ece` is None then, and a warning gives their
    number.

    Args:
        logits: `float[N, K]`.
        labels: `uint8[N, K]` of zeros and ones.
        classes: Names of the labels.
        decision: With the threshold of each label.
    """
    assert decision.thresholds is not None
    predicted, positive = decision.decide(logits), labels > 0
    scores = ranking_scores(logits)
    support, given, hits = positive.sum(0), predicted.sum(0), (predicted & positive).sum(0)
    ap = ranking.average_precision(scores, labels)
    precision, recall, f1 = _ratio(hits, given), _ratio(hits, support), _ratio(2 * hits, support + given)
    present = support > 0
    if non_finite := int((~is_finite(logits)).sum()):
        output.warn(
            f"the network gives NaN or infinity for {non_finite} of {len(labels)} images; they get no label",
            "try --device cpu, or train again with a smaller --lr",
        )
    found = bootstrap.intervals(scores, labels, predicted)
    return MultilabelMetrics(
        map=_mean(ap, present),
        interval=found["map"],
        precision=_mean(precision, present),
        recall=_mean(recall, present),
        f1=_mean(f1, present),
        f1_interval=found["f1"],
        micro_precision=float(hits.sum() / max(1, given.sum())),
        micro_recall=float(hits.sum() / max(1, support.sum())),
        micro_f1=float(2 * hits.sum() / max(1, given.sum() + support.sum())),
        micro_f1_interval=found["micro_f1"],
        exact=float((predicted == positive).all(1).mean()),
        ece=classwise_calibration_error(sigmoid(logits), positive) if not non_finite else None,
        n=len(labels),
        per_class=tuple(
            LabelMetrics(
                name=name,
                threshold=decision.thresholds[index],
                ap=float(ap[index]) if present[index] else None,
                precision=float(precision[index]) if present[index] else None,
                recall=float(recall[index]) if present[index] else None,
                f1=float(f1[index]) if present[index] else None,
                n=int(support[index]),
                predicted=int(given[index]),
            )
            for index, name in enumerate(classes)
        ),
    )


def _mean(values: np.ndarray, present: np.ndarray) -> float:
    """The mean over the labels that occur; 0 where none does."""
    return float(values[present].mean()) if present.any() else 0.0


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """`part / whole`, 0 where the whole is 0."""
    ratio: np.ndarray = np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
    return ratio


TABLE = ("label", "n", "threshold", "AP", "precision", "recall", "F1")


def table_rows(metrics: MultilabelMetrics) -> list[tuple[object, ...]]:
    """The rows of the table of labels below the headers `TABLE`, with the macro means as the last."""
    rows: list[tuple[object, ...]] = [
        (row.name, row.n, f"{row.threshold:.3f}", *map(format_score, (row.ap, row.precision, row.recall, row.f1)))
        for row in metrics.per_class
    ]
    means = map(format_score, (metrics.map, metrics.precision, metrics.recall, metrics.f1))
    return [*rows, ("macro mean", metrics.n, "", *means)]


def sentences(metrics: MultilabelMetrics) -> list[str]:
    """The metrics of all labels together, as sentences."""
    low, high = metrics.interval
    f1_low, f1_high = metrics.f1_interval
    micro_low, micro_high = metrics.micro_f1_interval
    lines = [untested_note(untested_classes(metrics.per_class), "AP, precision")]
    lines += [
        f"mAP {metrics.map:.4f} on {metrics.n} images (95 % interval {low:.4f} to {high:.4f}).",
        f"Macro F1 {metrics.f1:.4f} ({f1_low:.4f} to {f1_high:.4f}), "
        f"micro F1 {metrics.micro_f1:.4f} ({micro_low:.4f} to {micro_high:.4f}).",
        f"The set of labels is right on {metrics.exact:.4f} of the images.",
    ]
    if metrics.ece is not None:
        lines.append(f"Class-wise calibration error {metrics.ece:.4f}.")
    return [line for line in lines if line]


def show(metrics: MultilabelMetrics) -> None:
    """Prints the table of labels and the metrics of all labels together."""
    output.table(TABLE, table_rows(metrics), right=tuple(range(1, len(TABLE))))
    output.data("")
    for line in sentences(metrics):
        output.data(line)
