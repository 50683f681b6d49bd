"""What was computed once and is kept on disk within a limit: the least recently used gives way. Knows no images."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from poolzoo.common import files, locks, npy, numerals, output
from poolzoo.common.errors import UsageError

DEFAULT_LIMIT: Final = 20.0  # GB; ImageNet's training images at 64 × 64 take 16
MAX_LIMIT: Final = 1e9  # GB
SPARE: Final = 10**9  # bytes of the disk that are left free, for the runs and bundles of the same user
ABANDONED: Final = 24 * 3600  # seconds without a write after which a build without a lock was killed
WRITTEN_BACK: Final = 32 << 20  # bytes after which the disk begins to write what it got
_HIDDEN: Final = "."  # what begins so is being built or removed; keys do not


def limit() -> int:
    """Bytes that a shelf may hold: `POOLZOO_CACHE_LIMIT` in GB, 20 without it; 0 keeps nothing.

    Raises:
        UsageError: It is not a number, or a negative one.
    """
    text = os.environ.get("POOLZOO_CACHE_LIMIT") or str(DEFAULT_LIMIT)
    try:
        gigabytes = numerals.real(text)
    except ValueError:
        gigabytes = math.nan
    if not 0 <= gigabytes <= MAX_LIMIT:
        raise UsageError(
            f"POOLZOO_CACHE_LIMIT {text!r} is not a number of gigabytes", "for example POOLZOO_CACHE_LIMIT=20"
        )
    return int(gigabytes * 1e9)


class Shelf:
    """Directories by key under one root, all together within a limit.

    What is found is whole: an entry is built beside its place and renamed into it, and renamed away before it is
    removed. So processes may share a shelf without a lock; of two that build the same, the first keeps its own, and the
    second's is thrown away for it. Where files can be removed while they are mapped (not on Windows, where they stay),
    an entry that another process has open remains readable there after it was evicted.

        place = shelf.find(key)
        if place is None and shelf.room(size):
            with shelf.building(key) as temporary:
                write_rows(temporary / "rows.npy", count, rows)
            place = shelf.find(key)

    Methods raise `OSError` where the disk is full, or not readable or writable; a cache that cannot be kept is no
    reason to fail, so catch it and go on without. Keep one shelf as long as what it gave out is needed.

    Args:
        root: Where the directories lie; made when it is needed.
        limit_bytes: How many bytes of files may lie there, unfinished ones included.
    """

    def __init__(self, root: Path, limit_bytes: int) -> None:
        self.root = root
        self.limit_bytes = limit_bytes
        self._given: set[str] = set()

    def find(self, key: str) -> Path | None:
        """The directory of a key, now the most recently used one; None where there is none.

        What was given out stays: `room` of this same object never evicts it, so that a data set's training part does
        not give way to its test part.
        """
        place = self.root / key
        if not place.is_dir():
            return None
        with suppress(OSError):  # on a disk that is only readable it is of use all the same
            os.utime(place)
        self._given.add(key)
        return place

    def room(self, bytes_needed: int) -> bool:
        """Makes room: evicts what was least recently used, as far as needed, and removes what killed builds left.

        Returns:
            Whether so much fits now. Where it cannot, neither the limit nor the disk allowing it, nothing is evicted.
        """
        files.make_private(self.root)
        self._sweep()
        sizes = {path: size(path) for path in self.root.iterdir()}
        evictable = [path for path in sizes if path.is_dir() and path.name[0] != _HIDDEN]
        evictable = sorted((path for path in evictable if path.name not in self._given), key=_used_at)
        used, most = sum(sizes.values()), sum(sizes[path] for path in evictable)

        def fits(gained: int = 0) -> bool:
            within_limit = used - gained + bytes_needed <= self.limit_bytes
            return within_limit and bytes_needed + SPARE <= self.free() + gained

        if not fits(most):
            return False
        for path in evictable:
            if fits():
                break
            output.detail(f"removing {path}, the least recently used, for {bytes_needed / 1e6:,.0f} MB")
            if self._remove(path):
                used -= sizes[path]
        return fits()

    def free(self) -> int:
        """Bytes free on the disk of the root, which must exist."""
        return shutil.disk_usage(self.root).free

    @contextmanager
    def building(self, key: str) -> Iterator[Path]:
        """A new directory to write into, which becomes the key's when the block ends well.

        When it ends with an exception, Ctrl-C included, nothing is left; what a killed process leaves is never found,
        and removed by `room`: at once, or a day later where the file system knows no locks. Only its owner can read it,
        as what it is made of may be private.
        """
        files.make_private(self.root)
        with locks.unfinished(self.root / key, is_folder=True) as temporary:
            yield temporary
            os.utime(temporary)
            try:
                temporary.rename(self.root / key)
            except OSError:
                if not (self.root / key).is_dir():  # else another process was first, and its is as good
                    raise

    def drop(self, key: str) -> None:
        """Removes a damaged entry; nothing happens where there is none."""
        self._given.discard(key)
        self._remove(self.root / key)

    def _remove(self, path: Path) -> bool:
        """Takes a directory away at once, then its files, so that nobody finds half of it; whether it is gone."""
        doomed = locks.unfinished_name(path)
        try:
            path.rename(doomed)
        except FileNotFoundError:  # another process was faster
            return True
        except OSError:  # not ours to remove, or Windows has it mapped
            return False
        shutil.rmtree(doomed, ignore_errors=True)
        return True

    def _sweep(self) -> None:
        locks.sweep(self.root)
        for path in self.root.glob(f"{_HIDDEN}*"):
            age = time.time() - max(map(_used_at, (path, *_files(path))))
            if age > ABANDONED and not locks.is_held(path, unknown=False):  # clocks may jump
                shutil.rmtree(path, ignore_errors=True)


def _used_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # gone meanwhile
        return 0.0


def _files(path: Path) -> list[Path]:
    """All files under a directory; none where it vanishes meanwhile."""
    return [Path(folder, name) for folder, _, names in os.walk(path) for name in names]


def size(path: Path) -> int:
    """Bytes of the files under a directory, or of a file."""
    total = 0
    for file in _files(path) if path.is_dir() else (path,):
        with suppress(OSError):  # gone meanwhile
            total += file.stat().st_size
    return total


def write_rows(path: Path, count: int, rows: Iterable[np.ndarray], *, or_fewer: bool = False) -> int:
    """Writes an array of `count` rows of one shape and type to a `.npy` file, never holding more than one of them.

    Returns how many rows came: `count`, or with `or_fewer` perhaps less; of none there is nothing in the file.

    It is written like a file, not through a memory map: on a full disk that is an exception, where storing into a map
    ends the process with a bus error. When this returns, the disk has it all.

    Raises:
        OSError: The disk is full or not writable.
        ValueError: There are more or fewer rows, or they differ in shape or type.
    """
    with row_writer(path, count, or_fewer=or_fewer) as writer:
        for row in rows:
            writer.add(row[None])
    return writer.written


class RowWriter:
    """Writes rows of one shape and type to an open file; see `row_writer`.

    Attributes:
        written: Number of rows so far.
    """

    def __init__(self, file: BinaryIO, count: int) -> None:
        self.written = 0
        self.count = count
        self.form: tuple[tuple[int, ...], np.dtype[Any]] | None = None
        self._file = file
        self._begun = 0  # up to where the disk has begun to write

    def add(self, rows: np.ndarray) -> None:
        """Writes some rows, `[n, …]`.

        Raises:
            ValueError: They differ in shape or type from those before.
            OSError: The disk is full.
        """
        form = (rows.shape[1:], rows.dtype)
        if self.form is None:
            self.form = form
            self.write_header(self.count)
        if form != self.form:
            shown = [f"{dtype}{list(shape)}" for shape, dtype in (form, self.form)]
            raise ValueError(f"row {self.written} is {shown[0]}, the first {shown[1]}")
        self._file.write(np.ascontiguousarray(rows).data)
        self.written += len(rows)
        if self._file.tell() - self._begun > WRITTEN_BACK:
            self._file.flush()
            start, self._begun = self._begun, self._file.tell()
            begin_to_write(self._file.fileno(), start, self._begun)

    def write_header(self, count: int) -> None:
        """Writes what stands before the rows, of which there are `count`."""
        assert self.form is not None
        shape, dtype = self.form
        described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (count, *shape)}
        np.lib.format.write_array_header_1_0(self._file, described)


def begin_to_write(file: int, start: int, end: int) -> None:
    """Lets the disk write a part of a file without waiting for it, so that the end has little left to wait for.

    Linux begins to write pages that nobody is said to need. Those that are not written yet stay in memory.
    """
    if hasattr(os, "posix_fadvise"):
        with suppress(OSError):
            os.posix_fadvise(file, start, end - start, os.POSIX_FADV_DONTNEED)


@contextmanager
def row_writer(path: Path, count: int, *, or_fewer: bool = False) -> Iterator[RowWriter]:
    """What `write_rows` does, for rows that come in parts.

    Args:
        path: The `.npy` file.
        count: Number of rows.
        or_fewer: Whether there may be less.

    Raises:
        OSError: The disk is full or not writable.
        ValueError: There were more or fewer rows.
    """
    with path.open("wb", buffering=1 << 20) as file:
        writer = RowWriter(file, count)
        yield writer
        written = writer.written
        if or_fewer and 0 < written < count:
            file.seek(0)
            writer.write_header(written)  # as long as the first: numpy leaves room for more digits
        file.flush()
        os.fsync(file.fileno())  # or a power cut may leave a file of the right size, full of zeros
    if written > count or (written < count and not or_fewer):
        raise ValueError(f"{written} rows came where {count} were declared")


def find_rows(shelf: Shelf, key: str, name: str, shape: tuple[int, ...], dtype: str) -> np.ndarray | None:
    """The rows in a `.npy` file of an entry, memory-mapped; an entry with other rows is removed.

    Args:
        shelf: Where the entry is.
        key: Of the entry.
        name: Of its file.
        shape: Of all rows.
        dtype: Name of the type of the values.

    Returns:
        None where there is no such entry.
    """
    entry = shelf.find(key)
    if entry is None:
        return None
    try:
        rows: np.ndarray | None = npy.mapped(entry / name)
    except PermissionError:  # another user's, who may want it
        raise
    except Exception:  # whatever numpy says of a damaged file; it is made anew
        rows = None
    if rows is None or rows.shape != shape or rows.dtype != dtype:
        shelf.drop(key)
        return None
    return rows
