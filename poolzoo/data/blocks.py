"""Work on many images in blocks of so many bytes, not of so many images: one bound on memory for any image size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

BLOCK_BYTES: Final = 16 << 20  # of images that are copied, converted or hashed at a time; small enough for a cache


def rows(row_bytes: int, block_bytes: int = BLOCK_BYTES) -> int:
    """How many rows of so many bytes make a block: at least one."""
    return max(1, block_bytes // max(1, row_bytes))


def starts(count: int, row_bytes: int) -> Iterator[tuple[int, int]]:
    """Where blocks of `count` rows begin and end."""
    step = rows(row_bytes)
    for start in range(0, count, step):
        yield start, min(start + step, count)


def parts(images: np.ndarray, chosen: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """An array, or its chosen rows, a block at a time.

    Args:
        images: `[N, …]`, in memory or mapped from a file.
        chosen: Indices, `int64[n]`; None for all, which are not copied then.
    """
    row_bytes = images[:1].nbytes
    for start, end in starts(len(images) if chosen is None else len(chosen), row_bytes):
        yield images[start:end] if chosen is None else images[chosen[start:end]]
