"""Work on many images in blocks of so many bytes, not of so many images: one bound on memory for any image size."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import Any, Final, Protocol

import numpy as np

BLOCK_BYTES: Final = 16 << 20  # of images that are copied, converted or hashed at a time; small enough for a cache
RESIDENT_BYTES: Final = 16 << 20  # of a mapped file that are read before its pages are given back


class ImageArray(Protocol):
    """What networks are trained and tested on: an array `uint8[N, H, W, 3]`, or what decodes images when asked."""

    @property
    def shape(self) -> tuple[int, ...]:
        """N, H, W and 3."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """`uint8`."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, chosen: Any, /) -> np.ndarray:
        """Some of the images, by `int64[n]` or a slice; one by its place."""
        ...


def row_bytes(array: ImageArray) -> int:
    """Bytes of one row, without reading it."""
    return int(np.prod(array.shape[1:], dtype=np.int64)) * array.dtype.itemsize


class Rows:
    """Rows of an array by their indices; of one that is mapped from a file few pages stay in this process.

    The kernel keeps the pages in its cache and counts them as this process's memory for as long as they are mapped.
    Mapping a page again costs a fraction of a microsecond.

    Args:
        array: `[N, …]`, in memory or mapped from a file that is not written to, or images that are decoded when asked.
    """

    def __init__(self, array: ImageArray) -> None:
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


def _mapped_file(array: ImageArray) -> mmap.mmap | None:
    """The mapping that an array is a view of, read-only; None where there is none, or the system has no advice."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    if not isinstance(base, mmap.mmap) or not isinstance(array, np.ndarray):
        return None
    return base if not array.flags.writeable and hasattr(mmap, "MADV_DONTNEED") else None


def gather(array: ImageArray, chosen: np.ndarray) -> np.ndarray:
    """The chosen rows, copied a block at a time, so that few pages of a mapped file stay in this process."""
    found = np.empty((len(chosen), *array.shape[1:]), array.dtype)
    for (start, end), part in zip(starts(len(chosen), row_bytes(array)), parts(array, chosen), strict=True):
        found[start:end] = part
    return found


def rows(each_bytes: int, block_bytes: int | None = None) -> int:
    """How many rows of so many bytes make a block: at least one."""
    return max(1, (block_bytes or BLOCK_BYTES) // max(1, each_bytes))


def starts(count: int, each_bytes: int) -> Iterator[tuple[int, int]]:
    """Where blocks of `count` rows begin and end."""
    step = rows(each_bytes)
    for start in range(0, count, step):
        yield start, min(start + step, count)


def parts(images: ImageArray, chosen: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Copies of an array, or of its chosen rows, a block at a time.

    Args:
        images: `[N, …]`, in memory, mapped from a file, or decoded when asked.
        chosen: Indices, `int64[n]`; None for all.
    """
    source = Rows(images)
    for start, end in starts(len(images) if chosen is None else len(chosen), row_bytes(images)):
        yield source[slice(start, end) if chosen is None else chosen[start:end]]
