"""Sizes of image files by their headers: each is read once, for all runs, and not opened again to be decoded.

What was read stays known in `<cache>/headers.json`, by the file's path, size and time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Any, BinaryIO, Final

from poolzoo import bundle

Size = tuple[int, int]
_MOST: Final = 20_000  # files that are remembered, the latest ones: 2 MB
_FORMAT: Final = 1  # of the file

_known: dict[str, list[int]] = {}  # path → bytes, time, height, width
_new: set[str] = set()  # those of them that the file lacks
_open: dict[str, BinaryIO] = {}  # files whose header was read and that nobody has decoded yet
_place: Path | None = None


def sample(files: Sequence[Path], most: int = 64) -> Sequence[Path]:
    """Some of the files, evenly spaced, whose sizes stand for all: `most` to twice as many, or all of fewer."""
    return files[:: max(1, len(files) // most)]


def keep_in(cache_dir: Path | None) -> None:
    """Takes up what was kept in a directory, and keeps the rest there too; None keeps nothing on disk."""
    global _place
    place = cache_dir and cache_dir / "headers.json"
    if place == _place:
        return
    _place = place
    if place is None:
        return
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):  # a cache: what is damaged is made anew
        found = json.loads(place.read_text(encoding="utf-8"))
        if found["format"] == _FORMAT:
            _known.update({path: row for path, row in found["files"].items() if len(row) == 4})


def write() -> None:
    """Keeps what was read since the last call, and closes the files that nobody decoded."""
    while _open:
        _open.popitem()[1].close()
    if _place is None or not _new:
        return
    rows = dict(list(_known.items())[-_MOST:])
    with suppress(OSError):  # a cache that cannot be written is no reason to fail, and `store` has said so
        _place.parent.mkdir(parents=True, exist_ok=True)
        bundle.write_atomically(_place, json.dumps({"format": _FORMAT, "files": rows}))
        _new.clear()


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
        _known.pop(name, None)  # so that it becomes the latest
        _known[name] = [about.st_size, about.st_mtime_ns, *found]
        _new.add(name)
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
