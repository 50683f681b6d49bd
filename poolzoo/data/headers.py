"""Sizes of image files by their headers: each is read once in a process, and not opened again to be decoded."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, BinaryIO, Final

from poolzoo.data.sizes import Size

SAMPLE: Final = 64  # images whose headers tell whether sizes are mixed, before all are read
_known: dict[str, list[int]] = {}  # path → bytes, time, height, width
_open: dict[str, BinaryIO] = {}  # files whose header was read and that nobody has decoded yet


def sample(files: Sequence[Path]) -> Sequence[Path]:
    """Some of the files, evenly spaced, whose sizes stand for all: `SAMPLE` to twice as many, or all of fewer."""
    return files[:: max(1, len(files) // SAMPLE)]


def close() -> None:
    """Closes the files whose header was read and that nobody decoded."""
    while _open:
        _open.popitem()[1].close()


def remembered(read: Callable[[BinaryIO], Size | None]) -> Callable[[Path], Size | None]:
    """Makes of a function that reads a header one that opens a file only where its size is not known.

    The file stays open for who decodes it next, in `opened`.
    """

    @wraps(read)
    def size_of(path: Path) -> Size | None:
        name = os.path.abspath(path)
        try:
            about = path.stat()
            row = _known.get(name)
            if row is not None and row[:2] == [about.st_size, about.st_mtime_ns]:
                return row[2], row[3]
            file = path.open("rb")
        except OSError:
            return None
        found = read(file)
        if found is None:
            file.close()
            return None
        _open[name] = file
        _known[name] = [about.st_size, about.st_mtime_ns, *found]
        return found

    return size_of


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The file that is open since its header was read, at its start; else the path."""
    file = _open.pop(os.path.abspath(path), None)
    if file is None:
        yield path
        return
    with file:
        file.seek(0)
        yield file
