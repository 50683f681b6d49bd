"""The data of a run: both splits, limited, decoded or streamed, and what is held out of them to validate."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np

from poolzoo.common import output
from poolzoo.common.errors import UsageError
from poolzoo.data import blocks, sizes, source
from poolzoo.data import labels as label_checks
from poolzoo.data.blocks import ImageArray
from poolzoo.data.identity import DataIdentity, file_digests
from poolzoo.data.image_facts import Facts
from poolzoo.data.images import fit_array
from poolzoo.data.reader import Reader
from poolzoo.data.sizes import Size
from poolzoo.data.statistics import ChannelStatistics, channel_statistics
from poolzoo.data.streaming import keeping
from poolzoo.data.streaming.images import StreamedImages
from poolzoo.data.streaming.photographs import CropSource
from poolzoo.data.streaming.skipped import Skipped
from poolzoo.data.streaming.splits import open_streams, parts_of
from poolzoo.data.unreadable import Broken
from poolzoo.metrics.tasks import TASKS
from poolzoo.plugin.image_index import ImageIndex
from poolzoo.plugin.spec import Dataset
from poolzoo.plugin.spec import Split as Part
from poolzoo.train.levels import with_level
from poolzoo.train.settings import Settings
from poolzoo.train.validation import ValidationSplit, hold_out

LEGACY_SAMPLES: Final = 1000  # images in the digest of earlier versions
STATISTICS_SAMPLES: Final = 2000  # streamed images of which channel statistics are computed, at most
SPLITS: Final[tuple[Part, Part]] = ("train", "test")


class Split(NamedTuple):
    """Images `uint8[N, H, W, 3]`, perhaps mapped from a file or decoded when asked, and labels.

    Labels are `int64[N]`, or `uint8[N, K]` for several labels.
    """

    images: ImageArray
    labels: np.ndarray

    @classmethod
    def of(cls, arrays: tuple[ImageArray, np.ndarray]) -> Split:
        """The split with these images and labels."""
        images, labels = arrays
        return cls(images=images, labels=labels)


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
        skipped: Files that could not be read, each with the reason; while streamed images are read, there may be more.
        keeping: How the images are kept, see `poolzoo.data.streaming.keeping`; None of data sets of decoded arrays.
        crops: Where random crops of streamed training images come from; None for decoded images.
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
    skipped: list[Broken] = field(default_factory=list)
    keeping: keeping.Mode | None = None
    crops: CropSource | None = None

    @property
    def images(self) -> ImageArray:
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

    @property
    def photographs(self) -> bool:
        """Whether the images were of mixed sizes, or larger than they are kept, along both sides."""
        return _are_reduced(self.original_size, self.size)

    @cached_property
    def digest(self) -> str:
        """A digest of all training images at their size."""
        return self._digest_of("train", self.images)

    @cached_property
    def test_digest(self) -> str:
        """A digest of all test images at their size."""
        return self._digest_of("test", self.test.images)

    def _digest_of(self, split: Part, images: ImageArray) -> str:
        digest = hashlib.sha256(repr(images.shape).encode())
        if isinstance(images, StreamedImages):  # the identity is that of their files
            read = (images.how, str(images.index.storage.place))
            digest.update(repr(read).encode("utf-8", "surrogateescape"))
        digest.update(np.ascontiguousarray(self.identity.splits[split].digests).data)
        return digest.hexdigest()

    def legacy_digest(self) -> str:
        """The digest in checkpoints of earlier versions: of all labels and of a sample of the images."""
        digest = hashlib.sha256(repr((self.images.shape, self.classes)).encode())
        digest.update(self.labels.tobytes())
        sample = np.arange(0, len(self.images), max(1, len(self.images) // LEGACY_SAMPLES))
        for part in blocks.parts(self.images, sample):
            digest.update(np.ascontiguousarray(part).data)
        if self.validation is not None:
            digest.update(f"{self.validation} {len(self.val_indices)}".encode())
        return digest.hexdigest()

    def statistics(self) -> ChannelStatistics:
        """Mean and standard deviation of the channels of the images to train on; of streamed ones, of a sample."""
        indices = self.train_indices
        if isinstance(self.images, StreamedImages):
            indices = indices[:: -(-len(indices) // STATISTICS_SAMPLES)]
        return channel_statistics(self.images, indices, self.channel_sums)


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
        test_part=settings.test_part,
    )
    reader = source.reader(dataset)
    if reader is not None:
        size = reader.decide("train")  # by some headers
        settings = with_level(settings, photographs=_are_reduced(reader.native, size))
    if reader is not None and settings.data_cache not in (None, "decoded"):
        parts = parts_of(reader, crops=settings.has_random_crops)
        shelf = reader.opened_shelf(source.cache_dir())
        if (mode := keeping.choose(settings.data_cache, parts, shelf)) != "decoded":
            return _streamed(settings, dataset, reader, mode)
    train = Split.of(source.load_split(dataset, "train"))
    test = Split.of(source.load_split(dataset, "test"))
    if test.images.shape[1:] != train.images.shape[1:]:
        raise UsageError(f"training and test images of {settings.data} differ in size", "add --image-size")
    _require_task(settings, train.labels, test.labels)
    classes = source.class_names(dataset, np.concatenate([train.labels, test.labels]))
    original_size: Size | None
    if reader is None:
        train = _limited(train, settings.limit, seed)
        test = _limited(test, settings.limit, seed)
        original_size = (train.images.shape[1], train.images.shape[2])
        train, test = _crop_to_aspect(train, test, settings.input_size)
    else:
        original_size = reader.native
    validation, held_out = hold_out(settings, reader, train.labels)
    facts: dict[Part, Facts] = {
        "train": source.facts_about(dataset, "train", _array(train.images)),
        "test": source.facts_about(dataset, "test", _array(test.images)),
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
        skipped=reader.skipped if reader is not None else [],
        keeping="decoded" if reader is not None else None,
    )


def _require_task(settings: Settings, train: np.ndarray, test: np.ndarray) -> None:
    """Makes sure that the labels of both splits are those of the task."""
    multilabel = TASKS[settings.task].is_multilabel
    for name, labels in (("training", train), ("test", test)):
        label_checks.require_task(settings.data, name, labels, multilabel=multilabel)
    if multilabel and train.shape[1] != test.shape[1]:
        found = f"{train.shape[1]} and {test.shape[1]} labels"
        raise UsageError(f"training and test images of {settings.data} have {found}", "give both the same labels")


def _are_reduced(original: Size | None, size: Size) -> bool:
    """Whether images of one size, or of mixed sizes, get fewer pixels along both sides."""
    return original is None or (original[0] > size[0] and original[1] > size[1])


def _streamed(settings: Settings, dataset: Dataset, reader: Reader, mode: keeping.Mode) -> DataSplits:
    """The same of encoded images that are read while the network trains; none of them is decoded now.

    Where images may be left out, those that are validated and tested on are tried now, so that their number is known.
    """
    size = reader.decide("train")
    reader.count_validation("train")
    index = {split: reader.index(split) for split in SPLITS}
    validation, held_out = hold_out(settings, reader, index["train"].labels)
    if settings.skip_broken is not None:
        index, held_out = _without_broken(reader, index, held_out, size, whole=settings.caches_features)
    digests = {split: file_digests(index[split]) for split in SPLITS}
    labels = {split: label_checks.plain(index[split].labels) for split in SPLITS}
    _require_task(settings, labels["train"], labels["test"])
    facts = {split: Facts(digests[split], None, index[split].names, of_files=True) for split in SPLITS}
    found = open_streams(
        index=index,
        digests=digests,
        size=size,
        how=settings.fit,
        val_indices=held_out.val_indices,
        crops=settings.has_random_crops,
        mode=mode,
        shelf=reader.opened_shelf(source.cache_dir()),
        threads=settings.data_workers,
        skipped=Skipped(settings.skip_broken, len(index["train"]), reader.skipped),
    )
    classes = source.class_names(dataset, labels["train"])
    return DataSplits(
        name=settings.data,
        train=Split(images=found.train, labels=labels["train"]),
        train_indices=held_out.train_indices,
        val_indices=held_out.val_indices,
        test=Split(images=found.test, labels=labels["test"]),
        classes=classes,
        flip=dataset.flip and settings.flip != "off",
        identity=DataIdentity.of(facts, labels, classes),
        original_size=reader.native,
        validation=validation,
        skipped=reader.skipped,
        keeping=mode,
        crops=found.crops,
    )


def _without_broken(
    reader: Reader, index: dict[Part, ImageIndex], held_out: ValidationSplit, size: Size, *, whole: bool
) -> tuple[dict[Part, ImageIndex], ValidationSplit]:
    """The indices and the validation split without images that cannot be read; of the training images all, or none."""
    wanted = {"train": np.arange(len(index["train"])) if whole else held_out.val_indices}
    wanted["test"] = np.arange(len(index["test"]))
    kept: dict[Part, ImageIndex] = {}
    for split in SPLITS:
        images = StreamedImages(index[split], size, reader.reading.how)
        kept[split] = index[split]
        if found := images.unreadable(wanted[split]):
            keep = reader.keep(split, found, source.cache_dir())
            kept[split] = index[split].take(np.flatnonzero(keep))
            if split == "train":
                places = np.cumsum(keep) - 1
                held_out = ValidationSplit(*(places[part[keep[part]]] for part in held_out))
    return kept, held_out


def _limited(split: Split, limit: int | None, seed: int) -> Split:
    images, labels = source.limited(_array(split.images), split.labels, limit=limit, seed=seed)
    return Split(images=images, labels=labels)


def _array(images: ImageArray) -> np.ndarray:
    assert isinstance(images, np.ndarray)  # what `load_split` gave
    return images


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
        Split(images=fit_array(_array(train.images), size), labels=train.labels),
        Split(images=fit_array(_array(test.images), size), labels=test.labels),
    )
