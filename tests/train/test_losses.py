"""Losses for unequal classes and from a teacher, against scikit-learn, torch and torchvision."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from poolzoo.common.errors import CheckFailed, UsageError
from poolzoo.train.class_weights import class_weights
from poolzoo.train.loaders import MicroBatch
from poolzoo.train.losses import BinaryCrossEntropy, CrossEntropy, Distillation

CLASSES = ("ant", "bee", "cat", "dog")
LABELS = np.repeat([0, 1, 3], [20, 3, 77])  # no cat
WEIGHTS = torch.tensor([0.3, 2.0, 1.0, 0.7])


def batch(n: int = 12, several: bool = False, mixed: bool = False, seed: int = 0) -> tuple[torch.Tensor, MicroBatch]:
    generator = torch.Generator().manual_seed(seed)

    def labels() -> torch.Tensor:
        if several:
            return torch.randint(2, (n, 4), generator=generator, dtype=torch.uint8)
        return torch.randint(4, (n,), generator=generator)

    logits = (3 * torch.randn(n, 4, generator=generator)).requires_grad_()
    teacher = 3 * torch.randn(n, 4, generator=generator)
    part = MicroBatch(
        x=torch.empty(n),
        labels=labels(),
        mixed_labels=labels() if mixed else None,
        label_weight=0.3 if mixed else 1.0,
        teacher_logits=teacher,
    )
    return logits, part


def soft_targets(part: MicroBatch, smoothing: float) -> torch.Tensor:
    """What mixup and label smoothing make of the labels, `float32[n, 4]`."""
    target = F.one_hot(part.labels, 4).float()
    if part.mixed_labels is not None:
        target = part.label_weight * target + (1 - part.label_weight) * F.one_hot(part.mixed_labels, 4)
    return (1 - smoothing) * target + smoothing / 4


# --- Weights of classes ----------------------------------------------------------------------------------------------


def test_balanced_weights_are_those_of_scikit_learn():
    found = class_weights("balanced", LABELS, CLASSES)
    expected = compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=LABELS)
    np.testing.assert_allclose(found.positive[[0, 1, 3]], expected, rtol=1e-6)
    assert found.positive[2] == 1
    assert found.positive[LABELS].mean() == pytest.approx(1)


def test_balanced_weights_of_several_labels_are_scikit_learns_per_label():
    labels = (np.random.default_rng(0).random((200, 4)) < [0.02, 0.5, 0.9, 0]).astype(np.uint8)
    found = class_weights("balanced", labels, CLASSES)
    for label in range(3):
        no, yes = compute_class_weight("balanced", classes=np.array([0, 1]), y=labels[:, label])
        assert found.positive[label] == pytest.approx(yes)
        assert found.negative[label] == pytest.approx(no)
    assert found.positive[3] == found.negative[3] == 1


def test_weights_from_a_file_have_mean_one_over_the_images(tmp_path):
    file = tmp_path / "weights.json"
    file.write_text(json.dumps({"dog": 1, "cat": 9, "bee": 10, "ant": 2}))
    found = class_weights(str(file), LABELS, CLASSES).positive
    assert found[LABELS].mean() == pytest.approx(1)
    np.testing.assert_allclose(found / found[3], [2, 10, 9, 1], rtol=1e-6)


def test_weights_of_other_classes_are_refused(tmp_path):
    file = tmp_path / "weights.json"
    file.write_text(json.dumps({"dog": 1, "cat": 9, "bee": 10}))
    with pytest.raises(UsageError, match="only the data has 'ant'"):
        class_weights(str(file), LABELS, CLASSES)
    for wrong in (0, -1, "2", None, True, float("nan")):
        file.write_text(json.dumps({"dog": 1, "cat": 9, "bee": 10, "ant": wrong}))
        with pytest.raises(CheckFailed, match="ant"):
            class_weights(str(file), LABELS, CLASSES)


def test_class_with_two_weights_is_refused(tmp_path):
    (tmp_path / "weights.json").write_text('{"dog": 1, "cat": 9, "bee": 10, "ant": 2, "cat": 3}')
    with pytest.raises(UsageError, match="'cat' more than one weight"):
        class_weights(str(tmp_path / "weights.json"), LABELS, CLASSES)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("mixed", [False, True])
def test_weighted_cross_entropy_is_that_of_torch(smoothing, mixed):
    logits, part = batch(mixed=mixed)
    ours = CrossEntropy(label_smoothing=smoothing, weights=WEIGHTS).loss(logits, part)
    theirs = F.cross_entropy(logits, soft_targets(part, smoothing), weight=WEIGHTS, reduction="sum") / len(logits)
    torch.testing.assert_close(ours, theirs)
    if not mixed:
        theirs = F.cross_entropy(logits, part.labels, weight=WEIGHTS, reduction="sum", label_smoothing=smoothing)
        torch.testing.assert_close(ours, theirs / len(logits))


def test_a_file_of_weights_is_the_pos_weight_of_torch(tmp_path):
    file = tmp_path / "weights.json"
    file.write_text(json.dumps(dict(zip(CLASSES, WEIGHTS.tolist(), strict=True))))
    logits, part = batch(several=True)
    found = class_weights(str(file), part.labels.numpy(), CLASSES)
    ours = BinaryCrossEntropy(positive=torch.tensor(found.positive), negative=torch.tensor(found.negative))
    theirs = F.binary_cross_entropy_with_logits(logits, part.labels.float(), pos_weight=WEIGHTS)
    torch.testing.assert_close(ours.loss(logits, part), theirs)


# --- Focal loss ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0.5, 2.0, 5.0])
def test_focal_loss_of_two_classes_is_that_of_torchvision(gamma):
    logits, part = batch(n=50)
    labels = part.labels % 2
    two = MicroBatch(x=part.x, labels=labels, mixed_labels=None, label_weight=1.0)
    ours = CrossEntropy(gamma=gamma).loss(logits[:, :2], two)
    theirs = sigmoid_focal_loss(logits[:, 1] - logits[:, 0], labels.float(), alpha=-1, gamma=gamma, reduction="mean")
    torch.testing.assert_close(ours, theirs)


def test_focal_loss_of_several_labels_is_that_of_torchvision():
    logits, part = batch(n=50, several=True)
    ours = BinaryCrossEntropy(gamma=2.0).loss(logits, part)
    theirs = sigmoid_focal_loss(logits, part.labels.float(), alpha=-1, gamma=2.0, reduction="mean")
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("several", [False, True])
def test_focal_loss_is_linear_in_mixed_and_smoothed_targets(several):
    logits, part = batch(mixed=True, several=several)
    kind = BinaryCrossEntropy if several else CrossEntropy

    def of(labels: torch.Tensor, smoothing: float) -> torch.Tensor:
        whole = MicroBatch(x=part.x, labels=labels, mixed_labels=None, label_weight=1.0)
        return kind(gamma=2.0, label_smoothing=smoothing).loss(logits, whole)

    expected = 0.3 * of(part.labels, 0.1) + 0.7 * of(part.mixed_labels, 0.1)
    torch.testing.assert_close(kind(gamma=2.0, label_smoothing=0.1).loss(logits, part), expected)


def test_focal_loss_without_focus_is_cross_entropy():
    logits, part = batch(mixed=True)
    tiny = CrossEntropy(gamma=1e-9, label_smoothing=0.1).loss(logits, part)
    torch.testing.assert_close(tiny, CrossEntropy(label_smoothing=0.1).loss(logits, part), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("several", [False, True])
def test_gradients_of_certain_predictions_are_finite(several):
    logits = torch.tensor([[200.0, -200.0, -200.0, -200.0]] * 2, requires_grad=True)
    labels = torch.tensor([[1, 0, 0, 0], [0, 1, 0, 0]], dtype=torch.uint8) if several else torch.tensor([0, 1])
    part = MicroBatch(x=logits, labels=labels, mixed_labels=None, label_weight=1.0)
    kind = BinaryCrossEntropy if several else CrossEntropy
    loss = kind(gamma=0.5, label_smoothing=0.1).loss(logits, part)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


# --- Distillation ----------------------------------------------------------------------------------------------------


def test_distillation_is_the_equation_of_hinton():
    logits, part = batch(mixed=True)
    temperature, weight = 3.0, 0.6
    ours = CrossEntropy(label_smoothing=0.1, distillation=Distillation(temperature, weight)).loss(logits, part)
    p = (part.teacher_logits.double() / temperature).softmax(1)
    q = (logits.double() / temperature).softmax(1)
    divergence = (p * (p.log() - q.log())).sum(1).mean()
    hard = F.cross_entropy(logits, soft_targets(part, 0.1))
    expected = (1 - weight) * hard + weight * temperature**2 * divergence
    torch.testing.assert_close(ours.double(), expected.double())


def test_distillation_of_several_labels_treats_each_as_a_coin():
    logits, part = batch(several=True)
    temperature, weight = 2.0, 0.6
    ours = BinaryCrossEntropy(distillation=Distillation(temperature, weight)).loss(logits, part)
    p, q = ((x.double() / temperature).sigmoid() for x in (part.teacher_logits, logits))
    divergence = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()
    hard = F.binary_cross_entropy_with_logits(logits, part.labels.float())
    expected = (1 - weight) * hard + weight * temperature**2 * divergence
    torch.testing.assert_close(ours.double(), expected.double(), rtol=1e-4, atol=1e-5)


def test_a_student_equal_to_its_teacher_gets_no_gradient():
    logits, part = batch()
    same = MicroBatch(part.x, part.labels, None, 1.0, teacher_logits=logits.detach())
    CrossEntropy(distillation=Distillation(2.0, 1.0)).loss(logits, same).backward()
    torch.testing.assert_close(logits.grad, torch.zeros_like(logits), atol=1e-6, rtol=0)
