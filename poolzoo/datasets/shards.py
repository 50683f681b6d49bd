"""`shards:PATTERN`: WebDataset tar files, such as `shards:data/{train,test}-{0000..0009}.tar`, or a folder of them.

A sample is an image with its label in a `.cls`, `.json` or `.txt` of the same key. A word in a file's name tells its
split. Images are read where they lie in the tar files, in any order.
"""

from __future__ import annotations

import glob
import io
import json
import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

from poolzoo.common import output
from poolzoo.common.errors import UsageError
from poolzoo.data.source import cache_dir
from poolzoo.datasets import places, shard_index
from poolzoo.datasets.labels import SplitLabels, label_names, split_labels
from poolzoo.datasets.split_names import split_of_file
from poolzoo.plugin.image_index import ImageIndex, Names
from poolzoo.plugin.spec import Dataset

MAX_NAMES: Final = 1_000_000
MAX_DIGITS: Final = 18
HINT: Final = "such as shards:data/train-{0000..0009}.tar, or the folder of the tar files"


@dataclass(frozen=True)
class ShardStorage:
    """Images in tar files, by the file and the bytes in it.

    Attributes:
        place: What was typed, for messages.
        paths: The tar files.
        shards: The file of each row, `int32[N]`.
        offsets: Where its bytes begin, `int64[N]`.
        sizes: How many they are, `int64[N]`.
    """

    place: str
    paths: tuple[str, ...]
    shards: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray

    def open(self, row: int, name: str) -> BinaryIO:
        """The bytes of a member."""
        size = int(self.sizes[row])
        with open(self.paths[self.shards[row]], "rb", buffering=0) as file:
            content = os.pread(file.fileno(), size, int(self.offsets[row]))
        if len(content) < size:
            raise OSError(f"{self.paths[self.shards[row]]} ends within {name}")
        return io.BytesIO(content)

    def stamp(self, row: int, name: str) -> tuple[int, int]:
        """The bytes of a member, and the time of its file."""
        return int(self.sizes[row]), os.stat(self.paths[self.shards[row]]).st_mtime_ns


def open_shards(place: str, *, splits: Sequence[str] = ("train", "test", "val"), multilabel: bool = False) -> Dataset:
    """The data set in WebDataset shards. Reads the headers of the tar files, once.

    Args:
        place: A pattern with braces or `*`, a file, or a folder of `.tar` files.
        splits: Those that are needed; the first that there is gives the names of the classes.
        multilabel: Whether a sample may have several labels.

    Raises:
        UsageError: A file is missing, or a sample has no label.
        CheckFailed: A file is damaged.
    """
    by_split: dict[str, list[Path]] = {}
    for path in _paths(place):
        by_split.setdefault(split_of_file(path), []).append(path)
    root = os.path.commonpath([path.parent for paths in by_split.values() for path in paths])
    reader = _Reader(place, root, SplitLabels(place, multilabel=multilabel))
    for split in [one for one in by_split if one in splits] or by_split:
        reader.read(split, by_split[split])
    return reader.dataset(splits)


def _paths(place: str) -> list[Path]:
    """The files that a pattern means, each once, in order."""
    from webdataset.shardlists import expand_urls

    if "://" in place or place.startswith("pipe:"):
        raise UsageError(f"shards:{place} are no files", "download them, and name the files")
    if os.path.isdir(os.path.expanduser(place)):
        found = sorted(Path(place).expanduser().glob("*.tar"))
        if not found:
            raise UsageError(f"folder {place} holds no .tar file", HINT)
        return found
    if names_meant(place) > MAX_NAMES:
        raise UsageError(f"shards:{place} means more than {MAX_NAMES:,} files", HINT)
    paths = []
    for text in dict.fromkeys(expand_urls(place)):
        text = os.path.expanduser(text)
        named = sorted(glob.glob(text)) if glob.has_magic(text) and not os.path.exists(text) else [text]
        if not named:
            raise UsageError(f"no file is like {text}", HINT)
        paths += [Path(one) for one in named]
    for path in paths:
        places.require_file(path, HINT)
    return paths


def names_meant(pattern: str) -> float:
    """How many names a pattern with braces means, without making them: `{a,b-{00..09}}` means 11."""
    counts: dict[str, float] = {}

    def product(text: str) -> float:
        return math.prod(counts.get(character, 1.0) for character in text)

    text = re.sub(r"[\U000F0000-\U0010FFFF]", "", pattern)  # which stand for what is counted
    while found := re.search(r"\{([^{}]*)\}", text):
        ends = re.fullmatch(r"(-?\d+)\.\.(-?\d+)(?:\.\.-?(\d+))?", found[1])
        if ends and max(map(len, ends[0].split(".."))) > MAX_DIGITS:
            return math.inf
        step = max(1, int(ends[3] or 1)) if ends else 1
        size = 1 + abs(int(ends[1]) - int(ends[2])) // step if ends else sum(map(product, found[1].split(",")))
        counts[sign := chr(0xF0000 + len(counts))] = size
        text = text[: found.start()] + sign + text[found.end() :]
    return sum(map(product, text.split("::")))


class _Reader:
    """Reads the headers of shards, and collects where images lie."""

    def __init__(self, place: str, root: str, labels: SplitLabels) -> None:
        self.place = place
        self.root = root
        self.labels = labels
        self.others = 0
        self.indices: dict[str, tuple[ShardStorage, Names]] = {}

    def read(self, split: str, paths: Sequence[Path]) -> None:
        """Adds the shards of a split.

        Raises:
            UsageError: A sample has no label, or several where one is meant.
        """
        names, found, kept = [], [], cache_dir()
        with output.progress(f"indexing {split} shards", len(paths)) as bar:
            for number, path in enumerate(paths):
                shard = shard_index.read(path, kept)
                below = os.path.relpath(path, self.root)
                names.append(Names.of(f"{below}/{name}" for name in shard.names))
                for name, text in zip(shard.names, shard.labels, strict=True):
                    self.labels.add(split, self._labels_in(path, name, text))
                found.append((np.full(len(shard.offsets), number, np.int32), shard.offsets, shard.sizes))
                self.others += shard.others
                bar.update(number)
        shards, offsets, sizes = (np.concatenate(column) for column in zip(*found, strict=True))
        if not len(shards):
            raise UsageError(f"shards:{self.place} hold no {split} image", "a sample has an image, such as 0001.jpg")
        storage = ShardStorage(self.root, tuple(map(str, paths)), shards, offsets, sizes)
        self.indices[split] = storage, _joined(names)

    def _labels_in(self, path: Path, name: str, text: str) -> list[str]:
        where = f"{path}: {name}"
        if not text and not self.labels.multilabel:
            hint = "a sample's label is its .cls, .json (label) or .txt, and follows it: tar --sort=name"
            raise UsageError(f"{where} has no label", hint)
        value = json.loads(text) if text else None
        try:
            found = split_labels(value) if self.labels.multilabel and isinstance(value, str) else label_names(value)
        except TypeError as error:
            raise UsageError(f"{where}: {error}", "a label is a text or a whole number") from None
        if len(found) != 1 and not self.labels.multilabel:
            text = f"{where} has {len(found)} labels ({', '.join(found[:3])})"
            raise UsageError(text, "add --task multilabel, or give it one")
        return found

    def dataset(self, splits: Sequence[str]) -> Dataset:
        """The data set, whose classes are those of the first of the splits that there is."""
        known = self.labels.splits
        classes = self.labels.classes(next((split for split in splits if split in known), known[0]))

        def index(split: str, cache_dir: Path) -> ImageIndex:
            storage, names = self.indices[split]
            return ImageIndex(storage, names, self.labels.places(split, classes))

        said = [f"ignored: {self.others:,} samples without an image"] if self.others else []
        return Dataset(
            name="shards", summary=self.place, index=index, splits=known, classes=classes, remarks=lambda: said
        )


def _joined(parts: Iterable[Names]) -> Names:
    encoded, ends, start = [], [], 0
    for part in parts:
        encoded.append(part.encoded)
        ends.append(part.ends + start)
        start += len(part.encoded)
    return Names(b"".join(encoded), np.concatenate(ends))
