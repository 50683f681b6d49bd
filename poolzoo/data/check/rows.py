"""The rows of a check, kept in a file that only grows, so that a second check looks at what is new alone.

A row is written whole, many at once; what a killed process left behind the last whole row is cut off. Rows of images
that are gone stay until they are most of the file. Two checks of one place take turns: the second keeps nothing.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from poolzoo.common import files, output
from poolzoo.data.check.look import ROW

_MAX_STALE: Final = 2  # times as many rows as are needed, beyond which the file starts again


class Rows:
    """Rows in a file by their numbers, and their numbers by their keys."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        file.truncate(file.seek(0, os.SEEK_END) // ROW.itemsize * ROW.itemsize)
        self._count = file.seek(0, os.SEEK_END) // ROW.itemsize

    def __len__(self) -> int:
        return self._count

    def find(self, keys: np.ndarray) -> np.ndarray:
        """The numbers of the rows with keys `uint64[N, 2]`; -1 where there is none."""
        known = self.all()["key"].copy() if self._count else np.empty((0, 2), np.uint64)
        found = np.full(len(keys), -1, np.int64)
        if not len(known):
            return found
        order = np.argsort(known[:, 0], kind="stable")
        place = np.minimum(np.searchsorted(known[order, 0], keys[:, 0], side="right") - 1, len(known) - 1)
        row = order[np.maximum(place, 0)]
        same = (known[row] == keys).all(1)
        found[same] = row[same]
        return found

    def append(self, rows: np.ndarray) -> np.ndarray:
        """Writes rows at the end; gives their numbers.

        Raises:
            OSError: The disk is full; no part of them stays.
        """
        size = self._count * ROW.itemsize
        try:
            self._file.seek(size)
            self._file.write(np.ascontiguousarray(rows).tobytes())
            self._file.flush()
        except OSError:
            self._file.truncate(size)
            raise
        numbers = np.arange(self._count, self._count + len(rows))
        self._count += len(rows)
        return numbers

    def all(self) -> np.ndarray:
        """All rows as a memory map, `ROW[N]`."""
        if not self._count:
            return np.empty(0, ROW)
        return np.memmap(self._file, ROW, "r", shape=(self._count,))

    def drop(self) -> None:
        """Forgets all rows."""
        self._file.truncate(0)
        self._count = 0


@contextmanager
def kept(path: Path, needed: int) -> Iterator[Rows]:
    """The rows of a place; of a temporary file where they cannot be kept. Makes Ctrl-C say what stays.

    Args:
        path: The file that keeps them.
        needed: How many images there are.
    """
    file = _opened(path)
    with file or tempfile.TemporaryFile() as used:
        rows = Rows(used)
        if len(rows) > _MAX_STALE * needed + 10_000:
            rows.drop()
        try:
            yield rows
        except KeyboardInterrupt as stop:
            if file is not None and len(rows):
                stop.args = (f"the same command continues it: what was found of {len(rows):,} images is kept",)
            raise


def _opened(path: Path) -> Any:
    """The file, locked; None where it cannot be written, or another check has it."""
    try:
        files.make_private(path.parent)
        file = open(path, "r+b" if path.exists() else "w+b")  # noqa: SIM115 - closed by who called
        with suppress(OSError):  # another user's
            path.chmod(0o600)  # it has a small picture of each image
    except OSError as error:
        output.detail(f"{path} cannot be written: {error.strerror or error}")
        return None
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:  # Windows
        pass
    except OSError:
        output.detail(f"{path} is in use by another check")
        file.close()
        return None
    return file
