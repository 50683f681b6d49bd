"""Sizes of encoded images by their headers: each is read once in a process, and not opened again to be decoded."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import BinaryIO, Final

from poolzoo.data.sizes import Size
from poolzoo.plugin.image_index import ImageIndex

SAMPLE: Final = 64  # images whose headers tell whether sizes are mixed, before all are read
_known: dict[str, list[int]] = {}  # path → bytes, time, height, width
_open: dict[str, BinaryIO] = {}  # files whose header was read and that nobody has decoded yet


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
        name = _name(index, position)
        try:
            stamp = index.stamp(position)
            row = _known.get(name)
            if row is not None and tuple(row[:2]) == stamp:
                return row[2], row[3]
            file = index.open(position)
        except OSError:
            return None
        found = read(file)
        if found is None:
            file.close()
            return None
        _open[name] = file
        _known[name] = [*stamp, *found]
        return found

    return size_of


@contextmanager
def opened(index: ImageIndex, position: int) -> Iterator[BinaryIO]:
    """The file that is open since its header was read, at its start; else it is opened."""
    file = _open.pop(_name(index, position), None) if _open else None
    with index.open(position) if file is None else file as image:
        image.seek(0)
        yield image


def _name(index: ImageIndex, position: int) -> str:
    return os.path.abspath(index.where(position))
