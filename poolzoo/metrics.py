"""Logits for many images, and the figures that say how good they are. Fractions are 0–1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from torch import nn

from poolzoo import output
from poolzoo.train.device import DevicePolicy


def predict_logits(
    network: nn.Module,
    preprocess: nn.Module,
    images: np.ndarray,
    policy: DevicePolicy,
    batch_size: int = 256,
    label: str = "evaluating",
) -> np.ndarray:
    """`uint8[N, h, w, 3] → float32[N, classes]`, in eval mode; the network's mode is put back."""
    was_training = network.training
    network.eval()
    parts = []
    with torch.inference_mode(), policy.context(), output.progress(label, len(images)) as bar:
        for start in range(0, len(images), batch_size):
            batch = torch.from_numpy(np.ascontiguousarray(images[start : start + batch_size])).to(policy.device)
            x = preprocess(batch).contiguous(memory_format=policy.memory_format)
            parts.append(network(x).float())
            bar.update(start + len(batch))
        logits = torch.cat(parts).cpu().numpy()
    network.train(was_training)
    return logits


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share of the images whose largest logit is the label's."""
    return float((logits.argmax(1) == labels).mean())


def compute(logits: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Accuracy, macro precision, recall and F1, the same for each class, and the confusion matrix (rows: truth).

    The macro means run over the classes that occur in `labels`.
    """
    predicted, indices = logits.argmax(1), np.arange(len(classes))
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=indices, average=None, zero_division=0.0
    )
    present = support > 0
    return {
        "accuracy": float((predicted == labels).mean()),
        "precision": float(precision[present].mean()),
        "recall": float(recall[present].mean()),
        "f1": float(f1[present].mean()),
        "n": len(labels),
        "per_class": [
            {"class": name, "precision": float(p), "recall": float(r), "f1": float(f), "n": int(n)}
            for name, p, r, f, n in zip(classes, precision, recall, f1, support, strict=True)
        ],
        "confusion": confusion_matrix(labels, predicted, labels=indices).tolist(),
    }


def headline(full: dict[str, Any]) -> dict[str, Any]:
    """The figures without the tables."""
    return {key: full[key] for key in ("accuracy", "precision", "recall", "f1", "n")}


def show(full: dict[str, Any]) -> None:
    """Prints the figures, the table of classes and the confusion matrix."""
    rows = [(c["class"], c["n"], *(f"{c[k]:.3f}" for k in ("precision", "recall", "f1"))) for c in full["per_class"]]
    rows.append(("macro mean", full["n"], *(f"{full[k]:.3f}" for k in ("precision", "recall", "f1"))))
    output.table(("class", "n", "precision", "recall", "F1"), rows, right=(1, 2, 3, 4))
    if len(full["confusion"]) <= 20:
        names = [c["class"] for c in full["per_class"]]
        output.data("")
        matrix = [(name, *row) for name, row in zip(names, full["confusion"], strict=True)]
        output.table(("truth \\ predicted", *(n[:6] for n in names)), matrix, right=tuple(range(1, len(names) + 1)))
    output.data("")
    output.data(f"accuracy {full['accuracy']:.4f} on {full['n']} images")
