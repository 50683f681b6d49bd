"""Batches of augmented training images, and how the processes of a run divide them."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from poolzoo.data.augmentation import Augmentation, AugmentedImages, EpochParams, MixParams, to_device
from poolzoo.data.blocks import ImageArray


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
        labels: `int64[n]`.
        mixed_labels: Labels of the images that were mixed in, `int64[n]`; None without mixup and CutMix.
        label_weight: Weight of `labels` in the loss; `mixed_labels` have the rest.
    """

    images: Tensor
    labels: Tensor
    mixed_labels: Tensor | None = None
    label_weight: float = 1.0


class BatchLoader:
    """Serves the training images in augmented batches, the same for the same seed and epoch.

    Args:
        images: `uint8[N, H, W, 3]`, in memory, mapped from a file, or decoded when asked.
        labels: `int64[N]`.
        batch_size: Images a batch over all processes; at most as many as there are indices.
        augmentation: Random changes of the images.
        seed: Seed of the order and of the augmentation.
        device: Where the batches are needed.
        rank: The process, which gets its shard of each batch.
        indices: Of the images to serve, `int64[n]`; None for all.
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
    ) -> None:
        self.indices = np.arange(len(images)) if indices is None else indices
        self.images = AugmentedImages(images, device)
        self.labels = torch.from_numpy(labels[self.indices]).to(device)
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
        params = self.params(number)
        with closing(self.read(params, number, self._positions(params, start))) as read:
            for step in range(start, len(self)):
                images, labels = next(read)
                mix = MixParams.sample(self.augmentation, self.images.size, seed=(self.seed, number, step))
                if mix is None:
                    yield Batch(images=images, labels=labels)
                    continue
                # Of one process the images that are mixed in are its own, from the end of the batch.
                others, other_labels = next(read) if self.rank.is_distributed else (images.flip(0), labels.flip(0))
                yield Batch(
                    images=mix.apply(images, others),
                    labels=labels,
                    mixed_labels=other_labels,
                    label_weight=mix.weight,
                )

    def params(self, number: int) -> EpochParams:
        """The order and the random parameters of an epoch."""
        count, size = len(self.indices), self.images.size
        return EpochParams.sample(count, size, self.augmentation, seed=self.seed, epoch=number)

    def _positions(self, params: EpochParams, start: int) -> Iterator[np.ndarray]:
        """This process's part of each batch; among several also of what is mixed in: the same batch from its end."""
        mixes = self.rank.is_distributed and (self.augmentation.mixup or self.augmentation.cutmix)
        for step in range(start, len(self)):
            whole_batch = params.order[step * self.batch_size : (step + 1) * self.batch_size]
            yield self.rank.shard(whole_batch)
            if mixes:
                yield self.rank.shard(whole_batch[::-1]).copy()

    def read(
        self, params: EpochParams, number: int, batches: Iterable[np.ndarray]
    ) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Augmented images, `uint8[n, H, W, 3]`, and their labels, `int64[n]`, on the device.

        Args:
            params: Of the epoch.
            number: Of the epoch.
            batches: Which images, as places in `indices`, `int64[n]` each.
        """
        for positions in batches:
            images = self.images.take(self.indices[positions], params, positions, self.augmentation)
            yield images, self.labels[to_device(positions, self.device)]
