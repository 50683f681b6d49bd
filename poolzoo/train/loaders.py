"""Where a learner's inputs come from: images, maps of a frozen backbone, or features that were computed before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from poolzoo.data import blocks
from poolzoo.data.batches import ALL, BatchLoader, Rank, sent
from poolzoo.model.network import Network, Preprocess
from poolzoo.train.device import DevicePolicy

IMAGES, MAP = "images", "map"  # what a learner can read; vectors go by their pooling's spec
Inputs = Mapping[str, Tensor]


@dataclass(frozen=True)
class Part:
    """Some of a step's inputs and labels, for one backward pass."""

    x: Tensor
    labels: Tensor
    other: Tensor | None
    weight: float

    def loss(self, logits: Tensor, smoothing: float) -> Tensor:
        """Mean cross entropy (Szegedy et al., 2016, for the smoothing), towards two labels where images were mixed.

        Args:
            logits: `float32[n, classes]`.
            smoothing: Rank of the label that is spread evenly over all classes.
        """
        loss = F.cross_entropy(logits, self.labels, label_smoothing=smoothing)
        if self.other is None:
            return loss
        return torch.lerp(F.cross_entropy(logits, self.other, label_smoothing=smoothing), loss, self.weight)


@dataclass(frozen=True)
class Step:
    """What one step learns from: inputs by name, labels `int64[n]`, and those of a mixture as in `Batch`."""

    inputs: Inputs
    labels: Tensor
    other: Tensor | None = None
    weight: float = 1.0

    def split(self, reads: str, parts: int) -> list[Part]:
        """The step in parts of nearly equal size."""
        x = self.inputs[reads]
        if parts == 1:
            return [Part(x, self.labels, self.other, self.weight)]
        others = [None] * parts if self.other is None else self.other.tensor_split(parts)
        pieces = zip(x.tensor_split(parts), self.labels.tensor_split(parts), others, strict=True)
        return [Part(*piece, self.weight) for piece in pieces]


class Loader(Protocol):
    """Serves the steps of an epoch, the same for the same number, and the validation images in their order."""

    def __len__(self) -> int: ...

    def epoch(self, number: int, start: int = 0) -> Iterator[Step]: ...

    def validation(self) -> Iterator[Inputs]: ...


class ImageLoader:
    """Images, augmented and normalized on the device; behind a frozen backbone, the maps that it gives for them.

    Args:
        batches: Of the images to learn from.
        images: All images, `uint8[N, H, W, 3]`.
        held: Indices of those to validate on, this process's.
        preprocess: Normalizes and resizes.
        policy: The device's.
        at_once: How many images to validate on at a time.
        frozen: The network whose backbone is frozen; None where the images themselves are read.
    """

    def __init__(
        self,
        batches: BatchLoader,
        images: np.ndarray,
        held: np.ndarray,
        preprocess: Preprocess,
        policy: DevicePolicy,
        at_once: int,
        frozen: Network | None = None,
    ) -> None:
        self.batches, self.rows, self.held, self.at_once = batches, blocks.Rows(images), held, at_once
        self.preprocess, self.policy, self.frozen = preprocess, policy, frozen

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, number: int, start: int = 0) -> Iterator[Step]:
        for batch in self.batches.epoch(number, start):
            yield Step(self._inputs(batch.images), batch.labels, batch.other, batch.weight)

    def validation(self) -> Iterator[Inputs]:
        for start in range(0, len(self.held), self.at_once):
            part = self.rows[self.held[start : start + self.at_once]]
            yield self._inputs(sent(part, self.policy.device))

    def _inputs(self, images: Tensor) -> Inputs:
        x = self.preprocess(images).contiguous(memory_format=self.policy.memory_format)
        if self.frozen is None:
            return {IMAGES: x}
        return {MAP: frozen_map(self.frozen, x, self.policy)}


@torch.no_grad()
def frozen_map(network: Network, x: Tensor, policy: DevicePolicy) -> Tensor:
    """The backbone's map for normalized images, without gradients and in eval mode."""
    network.backbone.eval()
    with policy.context():
        return network.forward_map(x)


class Features(Protocol):
    """Stored features of a set of images, in one or several views of each."""

    views: int

    def take(self, view: np.ndarray, chosen: np.ndarray, device: torch.device) -> Tensor: ...


class FeatureLoader:
    """Features that a frozen backbone gave once for every view of every image.

    Args:
        stores: The features of all training images, by what reads them: maps, or vectors by their pooling's spec.
        labels: Of all training images, `int64[N]`.
        chosen: Indices of those to learn from.
        held: Indices of those to validate on, in their order.
        batch_size: Images a batch over all processes.
        seed: Of the order and of the choice among views.
        device: Where they are needed.
        at_once: How many images to validate on at a time.
        share: Which part of each batch is this process's.
    """

    def __init__(
        self,
        stores: Mapping[str, Features],
        labels: np.ndarray,
        chosen: np.ndarray,
        held: np.ndarray,
        batch_size: int,
        seed: int,
        device: torch.device,
        at_once: int,
        share: Rank = ALL,
    ) -> None:
        self.at_once = at_once
        self.stores, self.labels, self.chosen, self.held = stores, labels, chosen, held
        self.batch_size, self.seed, self.device, self.share = min(batch_size, len(chosen)), seed, device, share
        self.views = next(iter(stores.values())).views

    def __len__(self) -> int:
        return len(self.chosen) // self.batch_size

    def epoch(self, number: int, start: int = 0) -> Iterator[Step]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        order = self.chosen[torch.randperm(len(self.chosen), generator=generator).numpy()]
        views = torch.randint(self.views, (len(self.labels),), generator=generator).numpy()
        for step in range(start, len(self)):
            batch = order[step * self.batch_size : (step + 1) * self.batch_size]
            mine = batch[self.share.rank :: self.share.size]
            labels = sent(self.labels[mine], self.device)
            yield Step(_Taken(self.stores, views[mine], mine, self.device), labels)

    def validation(self) -> Iterator[Inputs]:
        mine = self.held[self.share.rank :: self.share.size]
        for start in range(0, len(mine), self.at_once):
            part = mine[start : start + self.at_once]
            yield _Taken(self.stores, np.zeros(len(part), np.int64), part, self.device)


class _Taken(dict[str, Tensor]):
    """The features of a batch, each kind of them read when the first learner asks for it."""

    def __init__(
        self, stores: Mapping[str, Features], views: np.ndarray, chosen: np.ndarray, device: torch.device
    ) -> None:
        super().__init__()
        self._stores, self._views, self._chosen, self._device = stores, views, chosen, device

    def __missing__(self, name: str) -> Tensor:
        self[name] = self._stores[name].take(self._views, self._chosen, self._device)
        return self[name]
