"""Two indices of encoded images, one behind the other."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from poolzoo.plugin.image_index import FileStorage, ImageIndex, Names, Storage


@dataclass(frozen=True)
class JoinedStorage:
    """The rows of a first storage, and those of a second one behind them."""

    first: Storage
    second: Storage
    start: int  # row of the first image of the second

    @property
    def place(self) -> str:
        return self.first.place

    def open(self, row: int, name: str) -> BinaryIO:
        """The image, opened."""
        return self.first.open(row, name) if row < self.start else self.second.open(row - self.start, name)

    def stamp(self, row: int, name: str) -> tuple[int, int]:
        """Of the image."""
        return self.first.stamp(row, name) if row < self.start else self.second.stamp(row - self.start, name)


def join(first: ImageIndex, second: ImageIndex) -> ImageIndex:
    """One index of both; files below two folders are named from the folder above these."""
    labels = np.concatenate([first.labels, second.labels])
    one, other = first.storage, second.storage
    if isinstance(one, FileStorage) and isinstance(other, FileStorage):
        place = os.path.commonpath([one.place, other.place])
        names = _names(_below(place, first), _below(place, second))
        return ImageIndex(FileStorage(place), names, labels)
    names = _names(first.names, second.names)
    if one is other:
        return ImageIndex(one, names, labels, np.concatenate([rows(first), rows(second)]))
    start = int(rows(first).max(initial=-1)) + 1
    return ImageIndex(
        JoinedStorage(one, other, start), names, labels, np.concatenate([rows(first), rows(second) + start])
    )


def rows(index: ImageIndex) -> np.ndarray:
    """The rows of an index in its storage, `int64[N]`."""
    return np.arange(len(index), dtype=np.int64) if index.rows is None else index.rows


def _below(place: str, index: ImageIndex) -> Names:
    between = os.path.relpath(index.storage.place, place)
    return index.names if between == "." else Names.of(f"{between}/{name}" for name in index.names)


def _names(first: Names, second: Names) -> Names:
    return Names(first.encoded + second.encoded, np.concatenate([first.ends, second.ends + len(first.encoded)]))
