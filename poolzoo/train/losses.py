"""The objective of training: the loss, a score of the training images, and the score that chooses the best epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from poolzoo.metrics import classification, decisions, multilabel
from poolzoo.metrics.tasks import CLASSIFICATION, MULTILABEL, TASKS, Task
from poolzoo.train.loaders import MicroBatch
from poolzoo.train.settings import Settings

# The default of `--label-smoothing`. Smoothing of independent labels would only pull probabilities towards 0.5.
LABEL_SMOOTHING: Final = {CLASSIFICATION: 0.1, MULTILABEL: 0.0}


class Objective(Protocol):
    """What a task trains for. Logits are `float32[n, classes]`.

    Attributes:
        task: The task and the names of its scores.
        score_dtype: Of `train_score`.
    """

    task: ClassVar[Task]
    score_dtype: ClassVar[torch.dtype]

    def loss(self, logits: Tensor, part: MicroBatch) -> Tensor:
        """Mean loss of the images of one backward pass, towards the labels of both images where two were mixed."""
        ...

    def train_score(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Sum of the scores 0–1 of images, on the device; the mean is shown as training progresses."""
        ...

    def val_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of validation images, without smoothing and weights."""
        ...

    def val_score(self, logits: np.ndarray, labels: np.ndarray) -> float:
        """The score 0–1 of all validation images that chooses the best epoch."""
        ...

    def is_decided(self, logits: np.ndarray) -> np.ndarray:
        """`bool[n]`: whether the logits of an image are finite where the decision needs them."""
        ...


@dataclass(frozen=True)
class CrossEntropy:
    """One label per image: softmax and cross entropy. Labels are `int64[n]`.

    Attributes:
        label_smoothing: Fraction of the label that is spread over all classes (Szegedy et al., 2016).
    """

    task: ClassVar[Task] = TASKS[CLASSIFICATION]
    score_dtype: ClassVar[torch.dtype] = torch.int64
    label_smoothing: float = 0.0

    def loss(self, logits: Tensor, part: MicroBatch) -> Tensor:
        """Mean cross entropy."""
        loss = F.cross_entropy(logits, part.labels, label_smoothing=self.label_smoothing)
        if part.mixed_labels is None:
            return loss
        mixed_loss = F.cross_entropy(logits, part.mixed_labels, label_smoothing=self.label_smoothing)
        return torch.lerp(mixed_loss, loss, part.label_weight)

    def train_score(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Number of images whose largest logit is the label's."""
        # NaN logits give a NaN loss, which ends the run, so that argmax need not handle them.
        return (logits.argmax(1) == labels).sum()

    def val_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean cross entropy."""
        return F.cross_entropy(logits, labels)

    def val_score(self, logits: np.ndarray, labels: np.ndarray) -> float:
        """Accuracy."""
        return classification.accuracy(logits, labels)

    def is_decided(self, logits: np.ndarray) -> np.ndarray:
        """Whether the largest logit is finite."""
        decided: np.ndarray = classification.predictions(logits) != decisions.NO_CLASS
        return decided


@dataclass(frozen=True)
class BinaryCrossEntropy:
    """Any number of labels per image: a sigmoid and a binary cross entropy for each. Labels are `uint8[n, classes]`.

    Attributes:
        label_smoothing: Fraction ε by which targets move towards 0.5: `y (1 − ε) + ε / 2`, as Keras does.
    """

    task: ClassVar[Task] = TASKS[MULTILABEL]
    score_dtype: ClassVar[torch.dtype] = torch.float32
    label_smoothing: float = 0.0

    def loss(self, logits: Tensor, part: MicroBatch) -> Tensor:
        """Mean over images and labels. The target of a mixed image is the weighted mean of the labels of both."""
        target = part.labels.to(logits.dtype)
        if part.mixed_labels is not None:
            target = torch.lerp(part.mixed_labels.to(logits.dtype), target, part.label_weight)
        if self.label_smoothing:
            target = target * (1 - self.label_smoothing) + self.label_smoothing / 2
        return F.binary_cross_entropy_with_logits(logits, target)

    def train_score(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Sum of each image's F1 at a probability of 0.5; 1 where an image has no label and gets none."""
        predicted, positive = logits > 0, labels > 0
        total = predicted.sum(1) + positive.sum(1)
        twice_hits = 2 * (predicted & positive).sum(1)
        return torch.where(total > 0, twice_hits / total.clamp(min=1), 1.0).sum()

    def val_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean binary cross entropy."""
        return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))

    def val_score(self, logits: np.ndarray, labels: np.ndarray) -> float:
        """mAP over the labels that a validation image has."""
        return multilabel.mean_average_precision(logits, labels)

    def is_decided(self, logits: np.ndarray) -> np.ndarray:
        """Whether all logits of an image are finite."""
        return decisions.is_finite(logits)


def objective(settings: Settings) -> Objective:
    """The objective that complete settings describe."""
    smoothing = settings.label_smoothing or 0.0
    if TASKS[settings.task].is_multilabel:
        return BinaryCrossEntropy(label_smoothing=smoothing)
    return CrossEntropy(label_smoothing=smoothing)
