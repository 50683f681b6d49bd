"""Sizes of encoded images by their headers: each is read once in a process, and not opened again to be decoded."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import BinaryIO, Final

from poolzoo.data.sizes import Size
from poolzoo.plugin.image_index import FileStorage, ImageIndex

SAMPLE: Final = 64  # images whose headers tell whether sizes are mixed, before all are read
_Key = tuple[str, int, int]
_known: dict[_Key, list[int]] = {}  # image → bytes, time, height, width
_open: dict[_Key, BinaryIO] = {}  # files whose header was read and that nobody has decoded yet


def sample(count: int) -> range:
    """Positions of some of so many images, evenly spaced, whose sizes stand for all: `SAMPLE` to twice as many."""
    return range(0, count, max(1, count // SAMPLE))


def close() -> None:
    """Closes the files whose header was read and that nobody decoded."""
    while _open:
        _open.popitem()[1].close()


def remembered(read: Callable[[BinaryIO], Size | None]) -> Callable[[ImageIndex, int], Size | None]:
    """Makes of a function that reads a header one that opens an image of an index only where its size is not known.

    The file stays open for who decodes it next, in `opened`.
    """

    @wraps(read)
    def size_of(index: ImageIndex, position: int) -> Size | None:
        key = _key(index, position)
        try:
            stamp = index.stamp(position)
            row = _known.get(key)
            if row is not None and tuple(row[:2]) == stamp:
                return row[2], row[3]
            file = index.open(position)
        except OSError:
            return None
        found = read(file)
        if found is None:
            file.close()
            return None
        _open[key] = file
        _known[key] = [*stamp, *found]
        return found

    return size_of


@contextmanager
def opened(index: ImageIndex, position: int) -> Iterator[BinaryIO]:
    """The file that is open since its header was read, at its start; else it is opened."""
    file = _open.pop(_key(index, position), None) if _open else None
    with index.open(position) if file is None else file as image:
        image.seek(0)
        yield image


def _key(index: ImageIndex, position: int) -> _Key:
    """What tells an image from any other: its path, or its row in a plugin's storage, where names may come again."""
    path = os.path.abspath(index.where(position))
    if isinstance(index.storage, FileStorage):
        return path, 0, 0
    return path, id(index.storage), position if index.rows is None else int(index.rows[position])
