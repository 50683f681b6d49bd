"""Settings that follow from the data, the device and the number of processes where the user gave none."""

from __future__ import annotations

from dataclasses import replace
from typing import Final, Literal, cast

import torch

from poolzoo.common.errors import UsageError
from poolzoo.data.augment.augmentation import Augmentation
from poolzoo.data.augment.options import parse_crop_scale, parse_policy
from poolzoo.data.batches import Rank
from poolzoo.train import losses, optimizer
from poolzoo.train.device import DevicePolicy
from poolzoo.train.levels import with_level
from poolzoo.train.settings import Settings
from poolzoo.train.splits import DataSplits

LARGEST_BATCH: Final = 256
FEWEST_STEPS: Final = 40  # an epoch, so that a schedule by steps is smooth
IMAGES_SEEN: Final = 400_000  # in all epochs together, within the two limits below
FEWEST_EPOCHS: Final = 9
MAX_EPOCHS: Final = 60


def default_epochs(images: int) -> int:
    """The number of epochs that shows 400,000 images, from 9 to 60.

    Args:
        images: Number of images to train on.
    """
    return min(MAX_EPOCHS, max(FEWEST_EPOCHS, round(IMAGES_SEEN / images)))


def default_batch_size(images: int) -> int:
    """The largest power of two, at most 256, that gives an epoch at least 40 steps.

    Args:
        images: Number of images to train on.
    """
    size = LARGEST_BATCH
    while size > 2 and images // size < FEWEST_STEPS:
        size //= 2
    return size


def complete_settings(settings: Settings, data: DataSplits, policy: DevicePolicy, lr: float, rank: Rank) -> Settings:
    """Fills in every setting that has no value.

    Args:
        settings: As the user gave them.
        data: The data of the run.
        policy: The device.
        lr: The learning rate.
        rank: This process.

    Raises:
        UsageError: There are too few images for the processes, or the batch size cannot be divided among them.
    """
    count = len(data.train_indices)
    batch_size = _batch_size(settings.batch_size, count, rank)
    for purpose, images in (("to validate on", len(data.val_indices)), ("to test on", len(data.test.labels))):
        if images < rank.world_size:
            text = f"{images} images {purpose} are too few for {rank.world_size} processes, which need one each"
            raise UsageError(text, f"start at most {images}")
    settings = with_level(settings, photographs=data.photographs)
    smoothing = losses.LABEL_SMOOTHING[settings.task] if settings.label_smoothing is None else settings.label_smoothing
    weight_decay = optimizer.WEIGHT_DECAYS.get(settings.optimizer, 0.0)
    return replace(
        settings,
        epochs=settings.epochs or (None if settings.time_budget or settings.steps else default_epochs(count)),
        batch_size=batch_size,
        lr=lr,
        weight_decay=weight_decay if settings.weight_decay is None else settings.weight_decay,
        label_smoothing=smoothing,
        threads=torch.get_num_threads(),
        device=policy.device.type if rank.is_distributed else str(policy.device),
        shift=_default_shift(settings, min(data.size)) if settings.shift is None else settings.shift,
        flip=_default_flip(settings, data) if settings.flip == "auto" else settings.flip,
        precision="bfloat16" if policy.autocast is not None else "float32",
        compile="on" if policy.compiled else "off",
        validation=data.validation,
        data_cache=settings.data_cache and (data.keeping or settings.data_cache),
    )


def _default_shift(settings: Settings, side: int) -> int:
    """A sixteenth of the image; nothing where random crops move it, or where nothing changes."""
    if settings.augment == "none" or settings.has_random_crops:
        return 0
    return min(max(1, side // 16), side - 1)


def _default_flip(settings: Settings, data: DataSplits) -> str:
    """Alternating flips where they keep the label. Without any change it stays "auto": "off" would say they do not."""
    if settings.augment == "none":
        return "auto"
    return "alternating" if data.flip else "off"


def _batch_size(given: int | None, count: int, rank: Rank) -> int:
    """The batch size over all processes: at most all images, and the same part for each process.

    Args:
        given: The user's; None for the default.
        count: Number of images to train on.
        rank: This process.
    """
    processes = rank.world_size
    if count < processes:
        option = f"--batch-size {given}: " if given is not None else ""
        text = f"{option}{count} images to train on are too few for {processes} processes, which need one each"
        raise UsageError(text, f"start at most {count}")
    if given is not None and given <= count and given % processes:
        hint = f"such as --batch-size {given - given % processes or processes}"
        raise UsageError(f"--batch-size {given} cannot be divided among {processes} processes", hint)
    batch_size = min(given or default_batch_size(count), count)
    return max(processes, batch_size - batch_size % processes)


def augmentation_for(settings: Settings, data: DataSplits) -> Augmentation:
    """The augmentation that complete settings describe.

    Raises:
        UsageError: A shift or a cutout is as large as the images.
    """
    side = min(data.size)
    for option, pixels in (("--shift", settings.shift or 0), ("--cutout", settings.cutout)):
        if pixels >= side:
            raise UsageError(f"{option} {pixels} is too large for images of {side} pixels", f"at most {side - 1}")
    return Augmentation(
        shift=settings.shift or 0,
        flip="off" if settings.flip == "auto" else cast(Literal["off", "random", "alternating"], settings.flip),
        cutout=settings.cutout,
        mixup=settings.mixup,
        cutmix=settings.cutmix,
        crop_scale=parse_crop_scale(settings.crop_scale or "none"),
        policy=parse_policy(settings.policy or "none"),
        color_jitter=settings.color_jitter or 0.0,
        erasing=settings.erasing or 0.0,
    )
