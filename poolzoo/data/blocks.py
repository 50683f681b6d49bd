"""Work on many images in blocks of so many bytes, not of so many images: one bound on memory for any image size."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

BLOCK_BYTES: Final = 16 << 20  # of images that are copied, converted or hashed at a time; small enough for a cache
RESIDENT_BYTES: Final = 16 << 20  # of a mapped file that are read before its pages are given back


class Rows:
    """Rows of an array by their indices; of one that is mapped from a file few pages stay in this process.

    The kernel keeps the pages in its cache and counts them as this process's memory for as long as they are mapped.
    Mapping a page again costs a fraction of a microsecond.

    Args:
        array: `[N, …]`, in memory or mapped from a file that is not written to.
    """

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self._file = _mapped_file(array)
        self._read = 0

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, chosen: np.ndarray | slice) -> np.ndarray:
        """A copy of the chosen rows."""
        found = np.array(self.array[chosen]) if isinstance(chosen, slice) else self.array[chosen]
        self._read += found.nbytes
        if self._file is not None and self._read > RESIDENT_BYTES:
            self._read = 0
            self._file.madvise(mmap.MADV_DONTNEED)
        return found


def _mapped_file(array: np.ndarray) -> mmap.mmap | None:
    """The mapping that an array is a view of, read-only; None where there is none, or the system has no advice."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    right = isinstance(base, mmap.mmap) and not array.flags.writeable and hasattr(mmap, "MADV_DONTNEED")
    return base if right else None


def gather(array: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The chosen rows, copied a block at a time, so that few pages of a mapped file stay in this process."""
    found = np.empty((len(chosen), *array.shape[1:]), array.dtype)
    for (start, end), part in zip(starts(len(chosen), array[:1].nbytes), parts(array, chosen), strict=True):
        found[start:end] = part
    return found


def rows(row_bytes: int, block_bytes: int | None = None) -> int:
    """How many rows of so many bytes make a block: at least one."""
    return max(1, (block_bytes or BLOCK_BYTES) // max(1, row_bytes))


def starts(count: int, row_bytes: int) -> Iterator[tuple[int, int]]:
    """Where blocks of `count` rows begin and end."""
    step = rows(row_bytes)
    for start in range(0, count, step):
        yield start, min(start + step, count)


def parts(images: np.ndarray, chosen: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Copies of an array, or of its chosen rows, a block at a time.

    Args:
        images: `[N, …]`, in memory or mapped from a file.
        chosen: Indices, `int64[n]`; None for all.
    """
    source = Rows(images)
    for start, end in starts(len(images) if chosen is None else len(chosen), images[:1].nbytes):
        yield source[slice(start, end) if chosen is None else chosen[start:end]]
