"""Memory of large batches, which later ones take over when nobody refers to them any more.

It comes from the system and not from the heap. There, small blocks settle in what a batch has left, so that the next
batch does not fit and the heap grows, where `common.allocator` keeps it.
"""

from __future__ import annotations

import mmap
import weakref
from collections import deque
from typing import Final

import numpy as np

SMALLEST: Final = 1 << 20  # bytes; smaller arrays come from the heap
# Private where the system asks: processes that fork must not share it.
_FLAGS: Final = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
_FREE: Final[deque[mmap.mmap]] = deque(maxlen=8)  # the oldest goes back to the system


def empty(shape: tuple[int, ...]) -> np.ndarray:
    """`uint8` of a shape with any content."""
    count = int(np.prod(shape))
    if count < SMALLEST:
        return np.empty(shape, np.uint8)
    buffer = _take(count) or mmap.mmap(-1, count, **_FLAGS)
    owner: np.ndarray = np.frombuffer(buffer, np.uint8, count)  # every view of it refers to it
    weakref.finalize(owner, _FREE.append, buffer).atexit = False
    return owner.reshape(shape)


def _take(count: int) -> mmap.mmap | None:
    """A free buffer of at least `count` bytes and less than twice that."""
    for _ in range(len(_FREE)):
        try:
            buffer = _FREE.popleft()
        except IndexError:  # another thread was faster
            break
        if count <= len(buffer) < 2 * count:
            return buffer
        _FREE.append(buffer)
    return None
