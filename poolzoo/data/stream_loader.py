"""Batches of images that are read while the network trains: random crops, or whole images at one size."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from poolzoo.data import prefetch
from poolzoo.data.augmentation import Augmentation, EpochParams, to_device
from poolzoo.data.batches import SINGLE_PROCESS, BatchLoader, Rank
from poolzoo.data.blocks import ImageArray
from poolzoo.data.crops import CropSampler
from poolzoo.data.photographs import CropSource, Keeper
from poolzoo.data.skipped import Skipped
from poolzoo.data.stream import StreamedImages


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
    ) -> None:
        super().__init__(images, labels, batch_size, augmentation, seed, device, rank, indices)
        self.source = images
        self.crops = crops
        self.skipped = skipped or Skipped(None, len(self.indices))
        self.threads = prefetch.workers(threads)

    def read(
        self, params: EpochParams, number: int, batches: Iterable[np.ndarray]
    ) -> Generator[tuple[Tensor, Tensor], None, None]:
        scale = self.augmentation.crop_scale
        sampler = None
        if scale is not None:
            sampler = CropSampler(scale, self.augmentation.crop_ratio, seed=self.seed, epoch=number)
        read_from: tuple[object, ...] = (self.crops, self.source)
        kept = [one for one in read_from if isinstance(one, Keeper)]
        for one in kept:
            one.refresh()
        wanted: list[np.ndarray] = []

        def noted() -> Iterable[np.ndarray]:
            for positions in batches:
                wanted.append(positions)
                yield positions

        def fill(position: int, out: np.ndarray) -> int:
            shown = self._fill(position, out, sampler)
            if params.flipped[position]:
                out[:] = torch.from_numpy(out).flip(1).numpy()  # a seventh of the time of numpy's
            return shown

        mirrored = replace(params, flipped=np.zeros_like(params.flipped))  # what is left to change

        try:
            with closing(prefetch.filled(fill, noted(), (*self.images.size, 3), self.threads)) as found:
                for batch, shown in found:
                    positions = wanted.pop(0)
                    indices = self.indices[positions]
                    augmented = self.images.change(batch, indices, mirrored, positions, self.augmentation)
                    yield augmented, self.labels[to_device(shown, self.device)]
        finally:
            for one in kept:
                one.flush()

    def _fill(self, position: int, out: np.ndarray, sampler: CropSampler | None) -> int:
        """Writes an image, or the next one that can be read; gives the place of that in `indices`."""

        def read(place: int) -> None:
            self._read(int(self.indices[place]), out, sampler)

        def where(place: int) -> Path:
            return self._where(int(self.indices[place]))

        return self.skipped.read(position, len(self.indices), read, where)

    def _read(self, index: int, out: np.ndarray, sampler: CropSampler | None) -> None:
        if sampler is not None and self.crops is not None:
            self.crops.crop(index, lambda full: sampler.box(index, full), out)
        elif isinstance(self.source, StreamedImages):
            self.source.fill(index, out)
        else:
            out[:] = self.source[index]

    def _where(self, index: int) -> Path:
        if isinstance(self.source, StreamedImages):
            return self.source.index.where(index)
        return self.crops.where(index) if self.crops is not None else Path(f"image {index}")
