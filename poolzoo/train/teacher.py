"""`--distill-from`: the teacher, a finished run or a published network with the same classes as the data."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from poolzoo.artifacts import run
from poolzoo.artifacts.schema import TeacherSource
from poolzoo.common.errors import CheckFailed, UsageError
from poolzoo.data import sizes
from poolzoo.data.class_mismatch import difference
from poolzoo.data.sizes import Size
from poolzoo.data.transfer import to_device
from poolzoo.metrics.tasks import CLASSIFICATION
from poolzoo.model.network import Preprocess
from poolzoo.model.published_classifier import published_classifier
from poolzoo.train import footprint
from poolzoo.train.device import DevicePolicy
from poolzoo.train.finite import first_non_finite
from poolzoo.train.settings import Settings


@dataclass(frozen=True)
class Teacher:
    """A network in eval mode that labels the student's images.

    Attributes:
        name: As it was given.
        network: Normalized images to logits, on the device.
        preprocess: From the student's stored images to the network's input, by the network's own statistics.
        columns: Which logit of the network each class of the data has, `int64[K]`.
        data_size: Height and width of the stored images.
        policy: The device.
        digest: The sha256 of its weights and of how it sees images.
    """

    name: str
    network: nn.Module
    preprocess: Preprocess
    columns: np.ndarray
    data_size: Size
    policy: DevicePolicy
    digest: str

    def to_json(self, settings: Settings) -> TeacherSource:
        """What `config.json` says of it; of a run the name of its directory, whose path is private."""
        return {
            "name": Path(self.name).name if is_run(self.name) else self.name,
            "sha256": self.digest,
            "temperature": settings.distill_temperature,
            "weight": settings.distill_weight,
        }

    @cached_property
    def batch_size(self) -> int:
        """Images at once, which bounds its memory."""
        measured = footprint.measure(self.network, self.preprocess, size=self.data_size, policy=self.policy)
        return footprint.eval_batch_size(measured, self.policy)

    @cached_property
    def _columns(self) -> Tensor:
        return to_device(self.columns, self.policy.device)

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """The logits for images on the device, by the classes of the data.

        Args:
            images: `uint8[n, H, W, 3]`, or `float32` of the same range.

        Returns:
            `float32[n, K]`.
        """
        parts = []
        with self.policy.context():
            for part in torch.split(images, self.batch_size):
                x = self.preprocess(part).contiguous(memory_format=self.policy.memory_format)
                parts.append(self.network(x).float())
        return torch.cat(parts)[:, self._columns]


def load_teacher(name: str, task: str, classes: Sequence[str], data_size: Size, policy: DevicePolicy) -> Teacher:
    """Loads the teacher that `--distill-from` names.

    Args:
        name: A run directory, or a backbone's spec.
        task: Of the student.
        classes: Names of the classes of the data.
        data_size: Height and width of the stored images.
        policy: The device.

    Raises:
        UsageError: There is no such run or network, its task or its classes are others, or it would see the images
            distorted.
        CheckFailed: The run is damaged, or a weight of the teacher is NaN or infinite.
        EnvironmentProblem: Published weights cannot be downloaded.
    """
    network: nn.Module
    if is_run(name):
        found = run.load_run(Path(name))
        network, known, trained_for = found.network, found.classes, run.decision_of(found.config).task.name
        mean, std = found.preprocess.statistics
        height, width = found.config["poolzoo"]["image_size"]
    else:
        published = published_classifier(name)
        network, known, trained_for = published.network, published.classes, CLASSIFICATION
        mean, std = published.resolved.item.mean, published.resolved.item.std
        height, width = published.size
    if trained_for != task:
        text = f"the teacher {name} was trained for {trained_for}, so that its logits mean something else for {task}"
        raise UsageError(text, f"name a run that was trained with --task {task}")
    if set(known) != set(classes) or len(known) != len(classes):
        text = f"the classes of the teacher {name} are others: {difference('the data', classes, 'it', known)}"
        raise UsageError(text, "name a run that was trained on the same classes")
    if data_size[0] * width != data_size[1] * height:
        seen, stored = sizes.show((height, width)), sizes.show(data_size)
        text = f"the teacher {name} sees {seen}, which would distort images of {stored}"
        raise UsageError(text, f"give --image-size of the proportions {seen}")
    if broken := first_non_finite(network.named_parameters()):
        raise CheckFailed(f"{broken} of the teacher {name} holds NaN or infinity", "name a run that trained well")
    places = {label: place for place, label in enumerate(known)}
    preprocess = Preprocess(mean=mean, std=std, data_size=data_size, image_size=(height, width))
    digest = hashlib.sha256(run.weights_bytes(network.state_dict()))
    digest.update(repr((mean, std, height, width, known)).encode())
    policy.place(network.eval().requires_grad_(False))
    return Teacher(
        name=name,
        network=network,
        preprocess=preprocess.to(policy.device),
        columns=np.array([places[one] for one in classes]),
        data_size=data_size,
        policy=policy,
        digest=digest.hexdigest(),
    )


def is_run(name: str) -> bool:
    """Whether a teacher is a run directory; else it is a backbone."""
    return (Path(name) / "run.toml").is_file()


def require_teacher(name: str | None) -> None:
    """Makes sure that a teacher is a run or a known backbone, before any data is read.

    Raises:
        UsageError: It is neither.
    """
    if name is None or is_run(name):
        return
    if Path(name).exists():
        raise UsageError(f"the teacher {name!r} is no run: it has no run.toml", "give the directory of a finished run")
    from poolzoo.plugin import loader

    try:
        loader.catalog().backbone(name)
    except UsageError as error:
        text = f"the teacher {name!r} is neither a run directory nor a backbone"
        raise UsageError(text, error.hint or "poolzoo list backbones shows them") from None
