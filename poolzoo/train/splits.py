"""The data of a run: both splits, read and limited, and which training images are held out for validation."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np

from poolzoo.common import output
from poolzoo.common.errors import UsageError
from poolzoo.data import blocks, sizes, source, stratification
from poolzoo.data import labels as label_checks
from poolzoo.data.identity import DataIdentity
from poolzoo.data.images import fit_array
from poolzoo.data.sizes import Size
from poolzoo.data.statistics import ChannelStatistics, channel_statistics
from poolzoo.data.unreadable import Broken
from poolzoo.metrics.tasks import TASKS
from poolzoo.train.settings import Settings

VAL_FRACTION: Final = 0.1  # of the training images …
LARGEST_VAL: Final = 5000  # … and at most so many
LEGACY_SAMPLES: Final = 1000  # images in the digest of earlier versions


class Split(NamedTuple):
    """Images `uint8[N, H, W, 3]`, perhaps mapped from a file, and labels `int64[N]` or `uint8[N, K]`."""

    images: np.ndarray
    labels: np.ndarray

    @classmethod
    def of(cls, arrays: tuple[np.ndarray, np.ndarray]) -> Split:
        """The split with these images and labels."""
        images, labels = arrays
        return cls(images=images, labels=labels)


class ValidationSplit(NamedTuple):
    """Indices of the images to train on and of those held out for validation, both `int64`."""

    train_indices: np.ndarray
    val_indices: np.ndarray


@dataclass(frozen=True)
class DataSplits:
    """The images and labels of a run.

    Attributes:
        name: What `--data` named.
        train: The training split, of which some images are held out for validation.
        train_indices: Of the images to train on, `int64[n]`.
        val_indices: Of the images that choose the best epoch, `int64[n]`.
        test: The test split.
        classes: Names of the labels.
        flip: Whether a mirrored image keeps its label, according to the data set and `--flip`.
        identity: Digests of all images and labels, to be kept with a run.
        channel_sums: Sum and sum of squares of each training image's channels, `int64[N, 3, 2]`; None if unknown.
        original_size: Size of the images before resizing; None if they had several sizes.
        validation: "val" if the validation images come from `val/`; None if they are part of the training images.
        skipped: Files that could not be read, each with the reason.
    """

    name: str
    train: Split
    train_indices: np.ndarray
    val_indices: np.ndarray
    test: Split
    classes: tuple[str, ...]
    flip: bool
    identity: DataIdentity
    channel_sums: np.ndarray | None = None
    original_size: Size | None = None
    validation: str | None = None
    skipped: tuple[Broken, ...] = ()

    @property
    def images(self) -> np.ndarray:
        """The images of the training split, `uint8[N, H, W, 3]`."""
        return self.train.images

    @property
    def labels(self) -> np.ndarray:
        """The labels of the training split, `int64[N]`, or `uint8[N, K]` for several labels."""
        return self.train.labels

    @property
    def size(self) -> Size:
        """Height and width of the images."""
        return self.images.shape[1], self.images.shape[2]

    @cached_property
    def digest(self) -> str:
        """A digest of all training images."""
        digest = hashlib.sha256(repr(self.images.shape).encode())
        digest.update(np.ascontiguousarray(self.identity.splits["train"].digests).data)
        return digest.hexdigest()

    def legacy_digest(self) -> str:
        """The digest in checkpoints of earlier versions: of all labels and of a sample of the images."""
        digest = hashlib.sha256(repr((self.images.shape, self.classes)).encode())
        digest.update(self.labels.tobytes())
        for part in blocks.parts(self.images[:: max(1, len(self.images) // LEGACY_SAMPLES)]):
            digest.update(np.ascontiguousarray(part).data)
        if self.validation is not None:
            digest.update(f"{self.validation} {len(self.val_indices)}".encode())
        return digest.hexdigest()

    def statistics(self) -> ChannelStatistics:
        """Mean and standard deviation of the channels of the images to train on."""
        return channel_statistics(self.images, self.train_indices, self.channel_sums)


def read_data(settings: Settings) -> DataSplits:
    """Reads both splits of the data that settings name, limits them, and holds out validation images.

    Raises:
        PoolzooError: The data cannot be read, or memory does not suffice.
    """
    seed = settings.seed if settings.split_seed is None else settings.split_seed
    multilabel = TASKS[settings.task].is_multilabel
    dataset = source.open_dataset(
        settings.data,
        settings.input_size,
        limit=settings.limit,
        seed=seed,
        multilabel=multilabel,
        validation=settings.validation is not None,
        skip=settings.skip_broken,
        how=settings.fit,
    )
    reader = source.reader(dataset)
    train = Split.of(source.load_split(dataset, "train"))
    test = Split.of(source.load_split(dataset, "test"))
    if test.images.shape[1:] != train.images.shape[1:]:
        raise UsageError(f"training and test images of {settings.data} differ in size", "add --image-size")
    for name, split in (("training", train), ("test", test)):
        label_checks.require_task(settings.data, name, split.labels, multilabel=multilabel)
    if multilabel and train.labels.shape[1] != test.labels.shape[1]:
        found = f"{train.labels.shape[1]} and {test.labels.shape[1]} labels"
        raise UsageError(f"training and test images of {settings.data} have {found}", "give both the same labels")
    classes = source.class_names(dataset, np.concatenate([train.labels, test.labels]))
    original_size: Size | None
    if reader is None:
        train = Split.of(source.limited(train.images, train.labels, limit=settings.limit, seed=seed))
        test = Split.of(source.limited(test.images, test.labels, limit=settings.limit, seed=seed))
        original_size = (train.images.shape[1], train.images.shape[2])
        train, test = _crop_to_aspect(train, test, settings.input_size)
    else:
        original_size = reader.native
    if reader is not None and reader.validation:
        validation, indices = "val", np.arange(len(train.labels))
        held_out = ValidationSplit(indices[: -reader.validation], indices[-reader.validation :])
    elif settings.validation == "val":
        raise UsageError(f"{settings.data} has no val/ beside test/", "restore it, or start another run")
    else:
        validation, held_out = None, split_validation(train.labels, seed)
    facts = {
        "train": source.facts_about(dataset, "train", train.images),
        "test": source.facts_about(dataset, "test", test.images),
    }
    return DataSplits(
        name=settings.data,
        train=train,
        train_indices=held_out.train_indices,
        val_indices=held_out.val_indices,
        test=test,
        classes=classes,
        flip=dataset.flip and settings.flip != "off",  # --flip off declares that mirroring changes the label
        identity=DataIdentity.of(facts, {"train": train.labels, "test": test.labels}, classes),
        channel_sums=facts["train"].sums,
        original_size=original_size,
        validation=validation,
        skipped=tuple(reader.skipped) if reader is not None else (),
    )


def _crop_to_aspect(train: Split, test: Split, wanted: Size | None) -> tuple[Split, Split]:
    """Crops the center of all images if the network sees them at another aspect ratio, and says so."""
    height, width = train.images.shape[1:3]
    if wanted is None or height * wanted[1] == width * wanted[0]:
        return train, test  # the network resizes them on the device
    original = (height, width)
    if message := sizes.change(original, wanted, overruled=True):
        output.say(message)
    size = sizes.stored(original, wanted)
    return (
        Split(images=fit_array(train.images, size), labels=train.labels),
        Split(images=fit_array(test.images, size), labels=test.labels),
    )


def split_validation(labels: np.ndarray, seed: int) -> ValidationSplit:
    """Holds out a tenth of each class or label for validation, about 5,000 images in all at most.

    Args:
        labels: Of the training images, `int64[N]`, or `uint8[N, K]` for several labels.
        seed: Of the choice.

    Raises:
        UsageError: There are too few images.
    """
    fraction = min(VAL_FRACTION, LARGEST_VAL / len(labels))
    held_out = np.zeros(len(labels), bool)
    if labels.ndim == 2:
        wanted = max(1, round(fraction * len(labels)))
        held_out[stratification.choose(labels, wanted, seed, at_least_one=True)] = True
    else:
        order = np.random.default_rng(seed).permutation(len(labels))
        for label in np.unique(labels):
            members = order[labels[order] == label]
            if len(members) > 1:
                held_out[members[: max(1, round(fraction * len(members)))]] = True
    if held_out.sum() == 0 or (~held_out).sum() < 2:
        raise UsageError(
            f"{len(labels)} training images are too few to train and to validate on",
            "give at least two images a class, or a larger --limit",
        )
    return ValidationSplit(train_indices=np.flatnonzero(~held_out), val_indices=np.flatnonzero(held_out))
