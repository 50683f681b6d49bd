"""Batches of images that are read while the network trains: random crops, or whole images at one size."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from poolzoo.data.augment.augmentation import Augmentation
from poolzoo.data.augment.crops import CropSampler, mirror
from poolzoo.data.batches import SINGLE_PROCESS, Batch, BatchLoader, Epoch, Rank
from poolzoo.data.blocks import ImageArray
from poolzoo.data.epoch_order import Sampler
from poolzoo.data.streaming import prefetch
from poolzoo.data.streaming.images import StreamedImages
from poolzoo.data.streaming.photographs import CropSource, Keeper
from poolzoo.data.streaming.skipped import Skipped


class StreamLoader(BatchLoader):
    """Serves training images that are read ahead by threads, the same for any number of these.

    In the place of an image that cannot be read comes the next one that can.

    Args:
        images: `uint8[N, H, W, 3]`: what is served without random crops, and what tells the size.
        labels: `int64[N]`.
        batch_size: Images a batch over all processes; at most as many as there are indices.
        augmentation: Random changes of the images.
        seed: Seed of the order and of the augmentation.
        device: Where the batches are needed.
        rank: The process, which gets its shard of each batch.
        indices: Of the images to serve, `int64[n]`; None for all.
        crops: Where random crops come from; needed with `augmentation.crop_scale`.
        skipped: The images that cannot be read.
        threads: How many read; None for one a processor.
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
        crops: CropSource | None = None,
        skipped: Skipped | None = None,
        threads: int | None = None,
        sampler: Sampler = "all",
    ) -> None:
        super().__init__(
            images, labels, batch_size, augmentation, seed, device, rank=rank, indices=indices, sampler=sampler
        )
        self.source = images
        self.crops = crops
        self.skipped = skipped or Skipped(None, len(self.indices))
        self.threads = prefetch.workers(threads)

    def read(self, epoch: Epoch, batches: Iterable[np.ndarray]) -> Generator[Batch, None, None]:
        scale = self.augmentation.crop_scale
        sampler = None
        if scale is not None:
            sampler = CropSampler(scale, self.augmentation.crop_ratio, seed=self.seed, epoch=epoch.number)
        read_from: tuple[object, ...] = (self.crops, self.source)
        kept = [one for one in read_from if isinstance(one, Keeper)]
        for one in kept:
            one.refresh()
        order, flipped = epoch.order, epoch.params.flipped
        wanted: list[np.ndarray] = []

        def noted() -> Iterable[np.ndarray]:
            for draws in batches:
                wanted.append(draws)
                yield draws

        def fill(draw: int, out: np.ndarray) -> int:
            row = int(order.rows[draw])
            shown = self._fill(int(order.positions[draw]), int(self.indices[row]), out, sampler)
            if flipped[row]:
                mirror(out)
            return shown

        mirrored = replace(epoch.params, flipped=np.zeros_like(flipped))  # what is left to change

        try:
            with closing(prefetch.filled(fill, noted(), (*self.images.size, 3), self.threads)) as found:
                for batch, shown in found:
                    rows = order.rows[wanted.pop(0)]
                    keys = self.indices[rows]
                    yield self._batch(self.images.change(batch, keys, mirrored, rows, self.augmentation), shown)
        finally:
            for one in kept:
                one.flush()

    def _fill(self, position: int, row: int, out: np.ndarray, sampler: CropSampler | None) -> int:
        """Writes an image, or the next one that can be read; gives the place of that in `indices`."""

        def read(place: int) -> None:
            self._read(int(self.indices[place]), row, out, sampler)

        def where(place: int) -> Path:
            return self._where(int(self.indices[place]))

        return self.skipped.read(position, len(self.indices), read, where)

    def _read(self, index: int, row: int, out: np.ndarray, sampler: CropSampler | None) -> None:
        if sampler is not None and self.crops is not None:
            self.crops.crop(index, lambda full: sampler.box(row, full), out)
        elif isinstance(self.source, StreamedImages):
            self.source.fill(index, out)
        else:
            out[:] = self.source[index]

    def _where(self, index: int) -> Path:
        if isinstance(self.source, StreamedImages):
            return self.source.index.where(index)
        return self.crops.where(index) if self.crops is not None else Path(f"image {index}")
