"""Refuses work whose size is known and does not fit into memory, before it begins.

A process that runs out of memory is killed, or fails in whatever allocates next; so what is known to be large is
compared with what is available first.
"""

from __future__ import annotations

import os
from typing import Final

from poolzoo.common import resources, variables
from poolzoo.common.errors import EnvironmentProblem

WORKING: Final = 512 << 20  # bytes that are left for what training itself needs beside its data
DATA_HINT: Final = (
    "use a smaller --image-size or --limit; POOLZOO_CACHE_LIMIT=GB and POOLZOO_CACHE=DIR keep decoded images on disk"
)


def fits(bytes_needed: int) -> bool:
    """Whether each process of this machine can hold so much; yes where nothing tells what is available."""
    available = resources.available_memory()
    # The first process reads alone; when the others begin, what it holds is no longer available.
    waiting = _processes() if os.environ.get("LOCAL_RANK", "0") == "0" else _processes() - 1
    return available is None or bytes_needed * waiting + WORKING <= available


def require(what: str, bytes_needed: int, hint: str = DATA_HINT) -> None:
    """Makes sure that each process of this machine can hold something.

    Args:
        what: In words, in the plural.
        bytes_needed: In one process.
        hint: What makes it smaller.

    Raises:
        EnvironmentProblem: It is more than is available.
    """
    if fits(bytes_needed):
        return
    each = f" in each of {_processes()} processes" if _processes() > 1 else ""
    needed, left = resources.size(bytes_needed), resources.size(resources.available_memory() or 0)
    text = f"{what}, {needed}{each}, do not fit into memory: {left} are available"
    raise EnvironmentProblem(text, hint)


def _processes() -> int:
    return variables.whole_number("LOCAL_WORLD_SIZE", 1)
