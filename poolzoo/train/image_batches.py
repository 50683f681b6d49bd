"""The training images of a prepared run in augmented batches: from an array, or read ahead by threads."""

from __future__ import annotations

import numpy as np

from poolzoo.data.augment.augmentation import Augmentation
from poolzoo.data.batches import SINGLE_PROCESS, BatchLoader, Rank
from poolzoo.data.epoch_order import Sampler
from poolzoo.data.streaming.images import StreamedImages
from poolzoo.data.streaming.loader import StreamLoader
from poolzoo.train.prepare import PreparedRun


def batch_loader(
    prepared: PreparedRun,
    batch_size: int,
    augmentation: Augmentation,
    indices: np.ndarray | None = None,
    rank: Rank = SINGLE_PROCESS,
    sampler: Sampler = "all",
) -> BatchLoader:
    """What serves the training images of a run.

    Args:
        prepared: The run.
        batch_size: Images a batch over all processes.
        augmentation: Random changes of the images.
        indices: Of the images to serve, `int64[n]`; None for all.
        rank: The process, which gets its shard of each batch.
        sampler: How often an epoch draws each image.
    """
    data, settings, device = prepared.data, prepared.settings, prepared.policy.device
    if not isinstance(data.images, StreamedImages):
        return BatchLoader(
            data.images,
            data.labels,
            batch_size,
            augmentation,
            settings.seed,
            device,
            rank=rank,
            indices=indices,
            sampler=sampler,
        )
    return StreamLoader(
        data.images,
        data.labels,
        batch_size,
        augmentation,
        settings.seed,
        device,
        rank=rank,
        indices=indices,
        crops=data.crops if augmentation.crop_scale is not None else None,
        skipped=data.images.skipped,
        threads=settings.data_workers,
        sampler=sampler,
    )
