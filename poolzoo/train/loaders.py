"""Where training gets its inputs: images, feature maps of a frozen backbone, or features computed in advance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from poolzoo.data import stream
from poolzoo.data.augmentation import to_device
from poolzoo.data.batches import SINGLE_PROCESS, BatchLoader, Rank
from poolzoo.data.blocks import ImageArray
from poolzoo.model.network import Network, Preprocess
from poolzoo.train.device import DevicePolicy

# Keys of the inputs that a module can train on; pooled vectors have the spec of their pooling as key.
IMAGES: Final = "images"
FEATURE_MAP: Final = "map"
Inputs = Mapping[str, Tensor]


@dataclass(frozen=True)
class MicroBatch:
    """The inputs and labels of one backward pass.

    Attributes:
        x: Inputs of one kind, `[n, …]`.
        labels: `int64[n]`.
        mixed_labels: Labels of the images that were mixed in, `int64[n]`; None without mixup and CutMix.
        label_weight: Weight of `labels` in the loss; `mixed_labels` have the rest.
    """

    x: Tensor
    labels: Tensor
    mixed_labels: Tensor | None
    label_weight: float

    def loss(self, logits: Tensor, label_smoothing: float) -> Tensor:
        """Mean cross entropy, towards two labels where images were mixed.

        Args:
            logits: `float32[n, classes]`.
            label_smoothing: Fraction of the label that is spread over all classes (Szegedy et al., 2016).
        """
        loss = F.cross_entropy(logits, self.labels, label_smoothing=label_smoothing)
        if self.mixed_labels is None:
            return loss
        mixed_loss = F.cross_entropy(logits, self.mixed_labels, label_smoothing=label_smoothing)
        return torch.lerp(mixed_loss, loss, self.label_weight)


@dataclass(frozen=True)
class TrainingBatch:
    """The inputs of one step by their keys, with labels as in `poolzoo.data.batches.Batch`."""

    inputs: Inputs
    labels: Tensor
    mixed_labels: Tensor | None = None
    label_weight: float = 1.0

    def split(self, input_key: str, parts: int) -> list[MicroBatch]:
        """Divides the batch into parts of nearly equal size.

        Args:
            input_key: Which inputs to take.
            parts: How many parts.
        """
        x = self.inputs[input_key]
        if parts == 1:
            return [MicroBatch(x=x, labels=self.labels, mixed_labels=self.mixed_labels, label_weight=self.label_weight)]
        mixed = [None] * parts if self.mixed_labels is None else self.mixed_labels.tensor_split(parts)
        return [
            MicroBatch(x=x, labels=labels, mixed_labels=mixed_labels, label_weight=self.label_weight)
            for x, labels, mixed_labels in zip(
                x.tensor_split(parts), self.labels.tensor_split(parts), mixed, strict=True
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
    ) -> None:
        self.batches = batches
        self.val_indices = val_indices
        self.preprocess = preprocess
        self.policy = policy
        self.eval_batch_size = eval_batch_size
        self.frozen_network = frozen_network
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
            )

    def validation(self) -> Iterator[Inputs]:
        for part in stream.batches(self.images, self.val_indices, self.eval_batch_size):
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
        labels: Of all training images, `int64[N]`.
        train_indices: Of the images to train on.
        val_indices: Of the images to validate on, in their order, of all processes.
        batch_size: Images a batch over all processes.
        seed: Of the order and of the choice among views.
        device: Where batches are needed.
        eval_batch_size: Validation images a batch.
        rank: The process, which gets its shard of each batch.
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
    ) -> None:
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
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        order = self.train_indices[torch.randperm(len(self.train_indices), generator=generator).numpy()]
        views = torch.randint(self.views, (len(self.labels),), generator=generator).numpy()
        for step in range(start, len(self)):
            whole_batch = order[step * self.batch_size : (step + 1) * self.batch_size]
            mine = self.rank.shard(whole_batch)
            labels = to_device(self.labels[mine], self.device)
            inputs = LazyInputs(self.stores, views=views[mine], indices=mine, device=self.device)
            yield TrainingBatch(inputs=inputs, labels=labels)

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
