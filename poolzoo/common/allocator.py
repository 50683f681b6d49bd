"""Keeps the memory of one training step for the next, and gives back what was needed for something else.

glibc hands each large block back to the system when it is freed and faults it in again, page by page, at the next step.
Without this, training small networks on a CPU spends a third of its time in the kernel, as
`benchmarks/train/allocator.py` measures.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8
_NEVER = 2**31 - 1
_RARELY = (50_000, 20, 100)  # objects until the youngest are looked at, and how often until older ones are
_TOP_PAD = 1 << 20  # bytes by which the heap grows at least: more of it stays unused in every arena


@cache
def keep() -> bool:
    """Tells glibc to keep freed memory in this process; does nothing, and says False, where there is no glibc."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    kept = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _NEVER), (_M_TOP_PAD, _TOP_PAD))
    one_for_all_threads = (_M_ARENA_MAX, 1)  # or each thread keeps the most that it ever needed
    return all(mallopt(key, value) for key, value in (*kept, one_for_all_threads))


def release(generation: int = 2) -> None:
    """Gives back memory that nothing refers to; glibc keeps what was freed in small pieces until it is asked.

    Args:
        generation: The oldest objects to look at, as for `gc.collect`: 1 for those made since the last release.
    """
    gc.collect(generation)  # the exporter leaves whole graphs behind in circles
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def rare_collections() -> Iterator[None]:
    """Within it, Python looks for garbage in circles a seventieth as often: what imports make is none, and stays."""
    before = gc.get_threshold()
    gc.set_threshold(*_RARELY)
    try:
        yield
    finally:
        gc.set_threshold(*before)
