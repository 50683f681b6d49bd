"""Where training gets its inputs: images, feature maps of a frozen backbone, or features computed in advance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from typing import Final, Protocol

import numpy as np
import torch
from torch import Tensor

from poolzoo.data.batches import SINGLE_PROCESS, Batch, BatchLoader, Rank
from poolzoo.data.blocks import ImageArray
from poolzoo.data.epoch_order import Sampler, epoch_order
from poolzoo.data.streaming.images import batches
from poolzoo.data.transfer import to_device
from poolzoo.model.network import Network, Preprocess
from poolzoo.train.device import DevicePolicy
from poolzoo.train.teacher import Teacher

# Keys of the inputs that a module can train on; pooled vectors have the spec of their pooling as key.
IMAGES: Final = "images"
FEATURE_MAP: Final = "map"
Inputs = Mapping[str, Tensor]


@dataclass(frozen=True)
class MicroBatch:
    """The inputs and labels of one backward pass.

    Attributes:
        x: Inputs of one kind, `[n, …]`.
        labels: `int64[n]`, or `uint8[n, K]` for several labels.
        mixed_labels: Labels of the images that were mixed in, of the same form; None without mixup and CutMix.
        label_weight: Weight of `labels` in the loss; `mixed_labels` have the rest.
        teacher_logits: Of a teacher for the same images, `float32[n, classes]`; None without one.
    """

    x: Tensor
    labels: Tensor
    mixed_labels: Tensor | None
    label_weight: float
    teacher_logits: Tensor | None = None


@dataclass(frozen=True)
class TrainingBatch:
    """The inputs of one step by their keys, with labels as in `poolzoo.data.batches.Batch`."""

    inputs: Inputs
    labels: Tensor
    mixed_labels: Tensor | None = None
    label_weight: float = 1.0
    teacher_logits: Tensor | None = None

    def split(self, input_key: str, parts: int) -> list[MicroBatch]:
        """Divides the batch into parts of nearly equal size.

        Args:
            input_key: Which inputs to take.
            parts: How many parts.
        """

        def divided(values: Tensor | None) -> Sequence[Tensor | None]:
            return [None] * parts if values is None else values.tensor_split(parts) if parts > 1 else [values]

        x = self.inputs[input_key]
        return [
            MicroBatch(
                x=x, labels=labels, mixed_labels=mixed, label_weight=self.label_weight, teacher_logits=teacher_logits
            )
            for x, labels, mixed, teacher_logits in zip(
                x.tensor_split(parts) if parts > 1 else [x],
                self.labels.tensor_split(parts) if parts > 1 else [self.labels],
                divided(self.mixed_labels),
                divided(self.teacher_logits),
                strict=True,
            )
        ]


class Loader(Protocol):
    """Serves the batches of an epoch, the same for the same epoch number, and the validation inputs in their order."""

    def __len__(self) -> int:
        """Steps an epoch."""
        ...

    def epoch(self, number: int, start: int = 0) -> Iterator[TrainingBatch]:
        """The batches of an epoch, beginning with batch `start`."""
        ...

    def validation(self) -> Iterator[Inputs]:
        """The validation inputs of this process."""
        ...


def endless(loader: Loader) -> Iterator[TrainingBatch]:
    """The batches of the first epoch, of the second, and so on."""
    return chain.from_iterable(loader.epoch(number) for number in count(1))


class ImageLoader:
    """Augmented and normalized images, or the feature maps of a frozen backbone for them.

    Args:
        batches: Serves the training images.
        images: All images, `uint8[N, H, W, 3]`; perhaps decoded when asked.
        val_indices: Of this process's validation images, `int64[n]`.
        preprocess: Normalizes and resizes.
        policy: The device.
        eval_batch_size: Validation images a batch.
        frozen_network: The network whose frozen backbone runs here; None to serve images.
        teacher: Gives logits for the augmented images; None without one.
        teacher_logits: Its logits for all images, where these are the same in every epoch; None to run it.
    """

    def __init__(
        self,
        batches: BatchLoader,
        images: ImageArray,
        val_indices: np.ndarray,
        preprocess: Preprocess,
        policy: DevicePolicy,
        eval_batch_size: int,
        frozen_network: Network | None = None,
        teacher: Teacher | None = None,
        teacher_logits: Features | None = None,
    ) -> None:
        self.batches = batches
        self.val_indices = val_indices
        self.preprocess = preprocess
        self.policy = policy
        self.eval_batch_size = eval_batch_size
        self.frozen_network = frozen_network
        self.teacher = teacher
        self.teacher_logits = teacher_logits
        self.images = images

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, number: int, start: int = 0) -> Iterator[TrainingBatch]:
        for batch in self.batches.epoch(number, start):
            yield TrainingBatch(
                inputs=self._inputs(batch.images),
                labels=batch.labels,
                mixed_labels=batch.mixed_labels,
                label_weight=batch.label_weight,
                teacher_logits=self._teach(batch),
            )

    def _teach(self, batch: Batch) -> Tensor | None:
        if self.teacher_logits is not None:
            first_view = np.zeros(len(batch.indices), np.int64)
            return self.teacher_logits.take(first_view, batch.indices, self.policy.device)
        return None if self.teacher is None else self.teacher.logits(batch.images)

    def validation(self) -> Iterator[Inputs]:
        for part in batches(self.images, self.val_indices, self.eval_batch_size):
            yield self._inputs(to_device(part, self.policy.device))

    def _inputs(self, images: Tensor) -> Inputs:
        x = self.preprocess(images).contiguous(memory_format=self.policy.memory_format)
        if self.frozen_network is None:
            return {IMAGES: x}
        return {FEATURE_MAP: frozen_feature_map(self.frozen_network, x, self.policy)}


@torch.no_grad()
def frozen_feature_map(network: Network, x: Tensor, policy: DevicePolicy) -> Tensor:
    """The backbone's feature map for normalized images, without gradients and in eval mode."""
    network.backbone.eval()
    with policy.context():
        return network.forward_map(x)


class Features(Protocol):
    """Stored features of N images, in one or several views of each."""

    @property
    def views(self) -> int:
        """Number of views."""
        ...

    def take(self, view: np.ndarray, indices: np.ndarray, device: torch.device) -> Tensor:
        """Features `[n, …]` of the images `indices`, each in the view that `view` gives, both `int64[n]`."""
        ...


class FeatureLoader:
    """Features of a frozen backbone that were computed once for every view of every image.

    Args:
        stores: The features of all training images by input key.
        labels: Of all training images, `int64[N]`, or `uint8[N, K]` for several labels.
        train_indices: Of the images to train on.
        val_indices: Of the images to validate on, in their order, of all processes.
        batch_size: Images a batch over all processes.
        seed: Of the order and of the choice among views.
        device: Where batches are needed.
        eval_batch_size: Validation images a batch.
        rank: The process, which gets its shard of each batch.
        sampler: How often an epoch draws each image.
        teacher_logits: Of a teacher for every view of all training images; None without one.
    """

    def __init__(
        self,
        stores: Mapping[str, Features],
        labels: np.ndarray,
        train_indices: np.ndarray,
        val_indices: np.ndarray,
        batch_size: int,
        seed: int,
        device: torch.device,
        eval_batch_size: int,
        rank: Rank = SINGLE_PROCESS,
        sampler: Sampler = "all",
        teacher_logits: Features | None = None,
    ) -> None:
        self.sampler = sampler
        self.teacher_logits = teacher_logits
        self.stores = stores
        self.labels = labels
        self.train_indices = train_indices
        self.val_indices = val_indices
        self.batch_size = min(batch_size, len(train_indices))
        self.seed = seed
        self.device = device
        self.eval_batch_size = eval_batch_size
        self.rank = rank
        self.views = next(iter(stores.values())).views

    def __len__(self) -> int:
        return len(self.train_indices) // self.batch_size

    def epoch(self, number: int, start: int = 0) -> Iterator[TrainingBatch]:
        order = epoch_order(self.labels[self.train_indices], self.seed, number, self.sampler)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        torch.randperm(len(self.train_indices), generator=generator)  # the generator gives the order first
        views = torch.randint(self.views, (len(self.labels),), generator=generator).numpy()
        for step in range(start, len(self)):
            draws = self.rank.shard(np.arange(step * self.batch_size, (step + 1) * self.batch_size))
            mine = self.train_indices[order.positions[draws]]
            labels = to_device(self.labels[mine], self.device)
            shown = views[self.train_indices[order.rows[draws]]]
            logits = None
            if self.teacher_logits is not None:
                logits = self.teacher_logits.take(shown, mine, self.device)
            inputs = LazyInputs(self.stores, views=shown, indices=mine, device=self.device)
            yield TrainingBatch(inputs=inputs, labels=labels, teacher_logits=logits)

    def validation(self) -> Iterator[Inputs]:
        mine = self.rank.shard(self.val_indices)
        for start in range(0, len(mine), self.eval_batch_size):
            part = mine[start : start + self.eval_batch_size]
            yield LazyInputs(self.stores, views=np.zeros(len(part), np.int64), indices=part, device=self.device)


class LazyInputs(dict[str, Tensor]):
    """The features of a batch by input key; each is read when it is first used.

    Args:
        stores: Stored features by input key.
        views: The view of each image, `int64[n]`.
        indices: The images, `int64[n]`.
        device: Where the features are needed.
    """

    def __init__(
        self, stores: Mapping[str, Features], views: np.ndarray, indices: np.ndarray, device: torch.device
    ) -> None:
        super().__init__()
        self._stores = stores
        self._views = views
        self._indices = indices
        self._device = device

    def __missing__(self, key: str) -> Tensor:
        self[key] = self._stores[key].take(self._views, self._indices, self._device)
        return self[key]
