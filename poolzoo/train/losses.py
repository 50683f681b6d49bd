"""The objective of training: the loss, a score of the training images, and the score that chooses the best epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Final, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from poolzoo.metrics import classification, decisions, multilabel
from poolzoo.metrics.tasks import CLASSIFICATION, MULTILABEL, TASKS, Task
from poolzoo.train.class_weights import ClassWeights
from poolzoo.train.loaders import MicroBatch
from poolzoo.train.settings import Settings

# The default of `--label-smoothing`. Smoothing of independent labels would only pull probabilities towards 0.5.
LABEL_SMOOTHING: Final = {CLASSIFICATION: 0.1, MULTILABEL: 0.0}
Divergence = Callable[[Tensor, Tensor], Tensor]


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
class Distillation:
    """Training towards a teacher's logits as well (Hinton, Vinyals and Dean, 2015, arXiv 1503.02531).

    With α = `weight` and the temperature T the loss is `(1 − α) · loss + α T² · divergence(teacher / T, student / T)`.

    Attributes:
        temperature: T, by which both logits are divided. T² keeps the size of the gradients.
        weight: α.
    """

    temperature: float
    weight: float

    def join(self, loss: Tensor, divergence: Divergence, logits: Tensor, part: MicroBatch) -> Tensor:
        """The loss towards labels and teacher.

        Args:
            loss: Towards the labels.
            divergence: Of the student from the teacher, from the logits of both.
            logits: Of the student.
            part: Has the logits of the teacher.
        """
        assert part.teacher_logits is not None
        softened = divergence(part.teacher_logits / self.temperature, logits / self.temperature)
        return torch.lerp(loss, softened * self.temperature**2, self.weight)


@dataclass(frozen=True)
class CrossEntropy:
    """One label per image: softmax and cross entropy. Labels are `int64[n]`.

    Label smoothing, class weights and focal loss are linear in the target, so that they combine with mixup. For a
    target distribution q and probabilities p the loss is `−Σ_k w_k q_k (1 − p_k)^γ log p_k`, averaged over images.

    Attributes:
        label_smoothing: Fraction of the label that is spread over all classes (Szegedy et al., 2016).
        weights: Weight w of each class, `float32[K]` on the device; None for 1.
        gamma: Exponent γ of the focal loss (Lin et al., 2017); 0 for cross entropy.
        distillation: How a teacher's logits join the loss.
    """

    task: ClassVar[Task] = TASKS[CLASSIFICATION]
    score_dtype: ClassVar[torch.dtype] = torch.int64
    label_smoothing: float = 0.0
    weights: Tensor | None = None
    gamma: float = 0.0
    distillation: Distillation | None = None

    def loss(self, logits: Tensor, part: MicroBatch) -> Tensor:
        """Mean loss towards the labels, and towards the teacher if there is one."""
        loss = self._towards(logits, part.labels)
        if part.mixed_labels is not None:
            loss = torch.lerp(self._towards(logits, part.mixed_labels), loss, part.label_weight)
        if self.distillation is None:
            return loss
        return self.distillation.join(loss, self._divergence, logits, part)

    def _towards(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.weights is None and not self.gamma:
            return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        log_p = F.log_softmax(logits, 1)
        terms = -log_p
        if self.gamma:
            terms = terms * _focus(-torch.expm1(log_p), self.gamma)
        if self.weights is not None:
            terms = terms * self.weights
        own = terms.gather(1, labels[:, None]).mean()
        return torch.lerp(own, terms.mean(), self.label_smoothing) if self.label_smoothing else own

    @staticmethod
    def _divergence(teacher: Tensor, student: Tensor) -> Tensor:
        """KL divergence of the student's softmax from the teacher's, averaged over images."""
        target = F.log_softmax(teacher, 1)
        return F.kl_div(F.log_softmax(student, 1), target, reduction="batchmean", log_target=True)

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
        positive, negative: Weight of images that have and that lack each label, `float32[K]` on the device; both None
            for 1.
        gamma: Exponent of the focal loss, as in `CrossEntropy`.
        distillation: How a teacher's logits join the loss.
    """

    task: ClassVar[Task] = TASKS[MULTILABEL]
    score_dtype: ClassVar[torch.dtype] = torch.float32
    label_smoothing: float = 0.0
    positive: Tensor | None = None
    negative: Tensor | None = None
    gamma: float = 0.0
    distillation: Distillation | None = None

    def loss(self, logits: Tensor, part: MicroBatch) -> Tensor:
        """Mean over images and labels. The target of a mixed image is the weighted mean of the labels of both."""
        target = part.labels.to(logits.dtype)
        if part.mixed_labels is not None:
            target = torch.lerp(part.mixed_labels.to(logits.dtype), target, part.label_weight)
        if self.label_smoothing:
            target = target * (1 - self.label_smoothing) + self.label_smoothing / 2
        loss = self._towards(logits, target)
        if self.distillation is None:
            return loss
        return self.distillation.join(loss, self._divergence, logits, part)

    def _towards(self, logits: Tensor, target: Tensor) -> Tensor:
        if self.positive is None and self.negative is None and not self.gamma:
            return F.binary_cross_entropy_with_logits(logits, target)
        yes, no = -F.logsigmoid(logits), -F.logsigmoid(-logits)
        if self.gamma:
            p = logits.sigmoid()
            yes, no = yes * _focus(1 - p, self.gamma), no * _focus(p, self.gamma)
        if self.positive is not None and self.negative is not None:
            yes, no = yes * self.positive, no * self.negative
        return torch.lerp(no, yes, target).mean()

    @staticmethod
    def _divergence(teacher: Tensor, student: Tensor) -> Tensor:
        """KL divergence of the student's probability of each label from the teacher's, averaged over images."""
        target = teacher.sigmoid()
        cross, own = (F.binary_cross_entropy_with_logits(x, target, reduction="sum") for x in (student, teacher))
        return (cross - own) / (len(student) * student.shape[1])

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


def _focus(wrong: Tensor, gamma: float) -> Tensor:
    """(1 − p)^γ, whose derivative is finite where a probability p is 1.

    Args:
        wrong: 1 − p.
        gamma: The exponent γ.
    """
    return wrong.clamp(min=torch.finfo(wrong.dtype).eps).pow(gamma)


def objective(settings: Settings, weights: ClassWeights | None, device: torch.device) -> Objective:
    """The objective that complete settings describe.

    Args:
        settings: The settings.
        weights: Of the classes, if they differ.
        device: Where the losses are computed.
    """
    assert settings.focal_gamma is not None  # `Settings` checks it
    smoothing = settings.label_smoothing or 0.0
    distillation = None
    if settings.distill_from is not None:
        distillation = Distillation(temperature=settings.distill_temperature, weight=settings.distill_weight)

    def on_device(values: np.ndarray | None) -> Tensor | None:
        return None if values is None else torch.from_numpy(values).to(device)

    positive = on_device(None if weights is None else weights.positive)
    if TASKS[settings.task].is_multilabel:
        return BinaryCrossEntropy(
            label_smoothing=smoothing,
            positive=positive,
            negative=on_device(None if weights is None else weights.negative),
            gamma=settings.focal_gamma,
            distillation=distillation,
        )
    return CrossEntropy(
        label_smoothing=smoothing, weights=positive, gamma=settings.focal_gamma, distillation=distillation
    )
