"""Batches of augmented training images, and how the processes of a run divide them."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from poolzoo.data.augment.augmentation import Augmentation, AugmentedImages, EpochParams, MixParams
from poolzoo.data.blocks import ImageArray
from poolzoo.data.epoch_order import EpochOrder, Sampler, epoch_order
from poolzoo.data.transfer import to_device


@dataclass(frozen=True)
class Rank:
    """One process among those that train together, as torch.distributed numbers them.

    Attributes:
        rank: Number of this process, 0 to world_size − 1.
        world_size: Number of processes.
    """

    rank: int = 0
    world_size: int = 1

    @property
    def is_zero(self) -> bool:
        """Whether this is the process that writes files and messages."""
        return self.rank == 0

    @property
    def is_distributed(self) -> bool:
        """Whether there are other processes."""
        return self.world_size > 1

    def shard(self, rows: np.ndarray) -> np.ndarray:
        """The rows that this process works on: every `world_size`-th one, starting with row `rank`."""
        return rows[self.rank :: self.world_size]


SINGLE_PROCESS: Final = Rank()


@dataclass(frozen=True)
class Batch:
    """Images on the device with their labels.

    Attributes:
        images: `uint8[n, H, W, 3]`, or `float32` of the same range after mixup.
        labels: `int64[n]`, or `uint8[n, K]` for several labels.
        indices: Which images of the split these are, `int64[n]`, on the host.
        mixed_labels: Labels of the images that were mixed in, of the same form; None without mixup and CutMix.
        label_weight: Weight of `labels` in the loss; `mixed_labels` have the rest.
    """

    images: Tensor
    labels: Tensor
    indices: np.ndarray
    mixed_labels: Tensor | None = None
    label_weight: float = 1.0


@dataclass(frozen=True)
class Epoch:
    """What an epoch draws: the order of its images, and the random parameters of each draw."""

    number: int
    order: EpochOrder
    params: EpochParams


class BatchLoader:
    """Serves the training images in augmented batches, the same for the same seed and epoch.

    Args:
        images: `uint8[N, H, W, 3]`, in memory, mapped from a file, or decoded when asked.
        labels: `int64[N]`, or `uint8[N, K]` for several labels.
        batch_size: Images a batch over all processes; at most as many as there are indices.
        augmentation: Random changes of the images.
        seed: Seed of the order and of the augmentation.
        device: Where the batches are needed.
        rank: The process, which gets its shard of each batch.
        indices: Of the images to serve, `int64[n]`; None for all.
        sampler: How often an epoch draws each image.
    """

    def __init__(
        self,
        images: ImageArray,
        labels: np.ndarray,
        batch_size: int,
        augmentation: Augmentation,
        seed: int,
        device: torch.device,
        rank: Rank = SINGLE_PROCESS,
        indices: np.ndarray | None = None,
        sampler: Sampler = "all",
    ) -> None:
        self.indices = np.arange(len(images)) if indices is None else indices
        self.images = AugmentedImages(images, device)
        self.sampler = sampler
        self._host_labels = labels[self.indices]
        self.labels = torch.from_numpy(self._host_labels).to(device)
        self.batch_size = min(batch_size, len(self.indices))
        self.augmentation = augmentation
        self.seed = seed
        self.device = device
        self.rank = rank

    def __len__(self) -> int:
        """Batches an epoch. The last, incomplete batch is dropped; the order changes in every epoch."""
        return len(self.indices) // self.batch_size

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The batches of epoch `number`, beginning with batch `start`."""
        epoch = self.draw(number)
        with closing(self.read(epoch, self._draws(start))) as read:
            for step in range(start, len(self)):
                shown = next(read)
                mix = MixParams.sample(self.augmentation, self.images.size, seed=(self.seed, number, step))
                if mix is None:
                    yield shown
                    continue
                # Of one process the images that are mixed in are its own, from the end of the batch.
                others = next(read) if self.rank.is_distributed else None
                yield Batch(
                    images=mix.apply(shown.images, shown.images.flip(0) if others is None else others.images),
                    labels=shown.labels,
                    indices=shown.indices,
                    mixed_labels=shown.labels.flip(0) if others is None else others.labels,
                    label_weight=mix.weight,
                )

    def draw(self, number: int) -> Epoch:
        """The order and the random parameters of an epoch."""
        order = epoch_order(self._host_labels, self.seed, number, self.sampler)
        return Epoch(number=number, order=order, params=self._params(number))

    def in_order(self, number: int) -> Epoch:
        """The images in their own order, with the random parameters of an epoch."""
        places = np.arange(len(self.indices))
        return Epoch(number=number, order=EpochOrder(positions=places, rows=places), params=self._params(number))

    def _params(self, number: int) -> EpochParams:
        count, size = len(self.indices), self.images.size
        return EpochParams.sample(count, size, self.augmentation, seed=self.seed, epoch=number)

    def _draws(self, start: int) -> Iterator[np.ndarray]:
        """This process's part of each batch; among several also of what is mixed in: the same batch from its end."""
        mixes = self.rank.is_distributed and (self.augmentation.mixup or self.augmentation.cutmix)
        for step in range(start, len(self)):
            whole_batch = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
            yield self.rank.shard(whole_batch)
            if mixes:
                yield self.rank.shard(whole_batch[::-1])

    def read(self, epoch: Epoch, batches: Iterable[np.ndarray]) -> Generator[Batch, None, None]:
        """Augmented images in batches, before any two of them are mixed.

        Args:
            epoch: What the epoch draws.
            batches: Which draws of it, `int64[n]` each.
        """
        for draws in batches:
            positions, rows = epoch.order.positions[draws], epoch.order.rows[draws]
            images = self.images.take(
                self.indices[positions], epoch.params, rows, self.augmentation, keys=self.indices[rows]
            )
            yield self._batch(images, positions)

    def _batch(self, images: Tensor, positions: np.ndarray) -> Batch:
        labels = self.labels[to_device(positions, self.device)]
        return Batch(images=images, labels=labels, indices=self.indices[positions])
