"""Metrics of either task: one label per image, or any number of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from poolzoo.metrics import classification, multilabel, thresholds
from poolzoo.metrics.calibration import Calibration
from poolzoo.metrics.decisions import Decision
from poolzoo.metrics.multilabel_results import MultilabelMetrics
from poolzoo.metrics.results import AnyMetrics, Metrics


def choose_decision(logits: np.ndarray, labels: np.ndarray, calibration: Calibration | None = None) -> Decision:
    """How a network decides, from validation images: with several labels, the thresholds with the largest F1.

    Args:
        logits: `float[N, K]`.
        labels: `int64[N]`, or `uint8[N, K]` for several labels.
        calibration: What logits go through before they become probabilities; thresholds are chosen after it.
    """
    decision = Decision(calibration=calibration)
    if labels.ndim == 2:
        return replace(decision, thresholds=thresholds.choose_thresholds(decision.calibrated(logits), labels))
    return decision


def compute(logits: np.ndarray, labels: np.ndarray, classes: Sequence[str], decision: Decision) -> AnyMetrics:
    """All metrics, of calibrated probabilities where the decision has a calibration.

    Args:
        logits: As the network gives them, `float[N, K]`.
        labels: `int64[N]`, or `uint8[N, K]` for several labels.
        classes: Names of the classes or labels.
        decision: How logits become labels.
    """
    logits, decision = decision.calibrated(logits), replace(decision, calibration=None)
    if decision.thresholds is None:
        return classification.compute(logits, labels, classes)
    return multilabel.compute(logits, labels, classes, decision)


def score(logits: np.ndarray, labels: np.ndarray) -> float:
    """The score of the task, 0–1: accuracy, or for labels `uint8[N, K]` mAP (NaN if no image has a label)."""
    if labels.ndim == 2:
        return multilabel.mean_average_precision(logits, labels)
    return classification.accuracy(logits, labels)


def flip_averaged_score(logits: np.ndarray, flipped_logits: np.ndarray, labels: np.ndarray) -> float:
    """The score of the mean probabilities of images and their mirror images.

    Args:
        logits: Of the images, `float[N, K]`.
        flipped_logits: Of the mirrored images.
        labels: `int64[N]`, or `uint8[N, K]` for several labels.
    """
    average = multilabel.flip_averaged_logits if labels.ndim == 2 else classification.flip_averaged_logits
    return score(average(logits, flipped_logits), labels)


def show(metrics: AnyMetrics) -> None:
    """Prints the metrics as tables and sentences."""
    if isinstance(metrics, MultilabelMetrics):
        multilabel.show(metrics)
    else:
        classification.show(metrics)


def main_score(metrics: AnyMetrics) -> float:
    """Accuracy, or mAP."""
    return metrics.accuracy if isinstance(metrics, Metrics) else metrics.map
