"""The streamed images of a run, with what keeps them; and a split to test a network on, decoded or streamed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from poolzoo.data import disk, headers, source
from poolzoo.data.blocks import ImageArray
from poolzoo.data.identity import file_digests
from poolzoo.data.image_facts import Facts
from poolzoo.data.labels import plain
from poolzoo.data.reader import Reader
from poolzoo.data.resize import Fit
from poolzoo.data.sizes import Size
from poolzoo.data.streaming import keeping
from poolzoo.data.streaming.images import StreamedImages
from poolzoo.data.streaming.keeping import Part
from poolzoo.data.streaming.photographs import CropSource, Encoded, Reduced
from poolzoo.data.streaming.row_file import RowFile
from poolzoo.data.streaming.skipped import Skipped
from poolzoo.plugin.image_index import ImageIndex
from poolzoo.plugin.spec import Dataset, Split


@dataclass(frozen=True)
class Streams:
    """Streamed images.

    Attributes:
        train: The training images, resized and center-cropped; those to validate on are kept.
        test: The test images.
        crops: Where random crops of the training images come from; None where none are wanted.
    """

    train: StreamedImages
    test: StreamedImages
    crops: CropSource | None


@dataclass(frozen=True)
class Loaded:
    """A split to test on.

    Attributes:
        images: `uint8[N, H, W, 3]`, decoded, or decoded when asked.
        labels: `int64[N]`, or `uint8[N, K]` of several.
        facts: About the images.
        index: Of the images; None of a data set of decoded arrays.
    """

    images: ImageArray
    labels: np.ndarray
    facts: Facts
    index: ImageIndex | None = None


def load_split(dataset: Dataset, split: Split, size: Size) -> Loaded:
    """A split at (height, width): decoded where that is quick, else decoded when its images are asked for.

    Raises:
        BrokenImages: An image cannot be read; of streamed ones where they may be left out, more than that.
        PluginFailed: The data set does not give what its contract says.
    """
    reader = source.reader(dataset)
    if reader is None or keeping.is_quick([Part(reader.index(split), size, split=split)]):
        images, labels = source.load_split(dataset, split, size)
        facts = source.facts_about(dataset, split, images)
        return Loaded(images, labels, facts, None if reader is None else _readable(reader, split))
    headers.close()
    index = reader.index(split)
    if reader.reading.skip is not None:
        found = StreamedImages(index, size, reader.reading.how).unreadable(np.arange(len(index)))
        if found:
            index = index.take(np.flatnonzero(reader.keep(split, found, source.cache_dir())))
    facts = Facts(file_digests(index), None, index.names, of_files=True)
    return Loaded(StreamedImages(index, size, reader.reading.how), plain(index.labels), facts, index)


def _readable(reader: Reader, split: Split) -> ImageIndex:
    """The index of a split that was decoded, without the images that were left out."""
    index = reader.index(split)
    names = reader.facts[split].names
    if names is None or len(names) == len(index):
        return index
    kept = set(names)
    return index.take(np.array([place for place, name in enumerate(index.names) if name in kept], np.int64))


def parts_of(reader: Reader, *, crops: bool) -> list[Part]:
    """What a run needs of the images of a reader, to decide how they are kept.

    Args:
        reader: Of the images.
        crops: Whether random crops of the training images are wanted.
    """
    size = reader.decide("train")
    return [Part(reader.index("train"), size, crops), Part(reader.index("test"), size, split="test")]


def open_streams(
    index: Mapping[Split, ImageIndex],
    digests: Mapping[Split, np.ndarray],
    size: Size,
    how: Fit,
    val_indices: np.ndarray,
    *,
    crops: bool,
    mode: keeping.Mode,
    shelf: disk.Shelf,
    threads: int | None,
    skipped: Skipped,
) -> Streams:
    """The images of a run, none of which is decoded before it is asked for.

    Args:
        index: Of "train" and "test".
        digests: Of their files, `uint8[N, 8]`.
        size: Height and width.
        how: In which way images are brought to that size.
        val_indices: Of the training images to validate on, `int64[n]`.
        crops: Whether random crops are wanted.
        mode: Whether images are reduced.
        shelf: Where reduced images are kept.
        threads: How many decode; None for one a processor.
        skipped: The training images that cannot be read, as they come up.
    """
    keep = None
    if crops:
        keep = np.zeros(len(index["train"]), bool)
        keep[val_indices] = True
    fitted = Part(index["train"], size, count=None if keep is None else len(val_indices))
    tested = Part(index["test"], size, split="test")
    parts = [fitted, tested, *([Part(index["train"], size, crops=True)] if crops else [])]
    kept: list[RowFile | None] = [None] * len(parts)
    if mode == "reduced":
        every = [digests["train"], digests["test"], digests["train"]]
        kept = keeping.rows(shelf, parts, every[: len(parts)], how)
    source: CropSource | None = None
    if crops:
        train = index["train"]
        source = Reduced(train, size, kept[2], how) if mode == "reduced" else Encoded(train, how)
    return Streams(
        train=StreamedImages(index["train"], size, how, threads, kept=kept[0], keep=keep, skipped=skipped),
        test=StreamedImages(index["test"], size, how, threads, kept=kept[1]),
        crops=source,
    )
