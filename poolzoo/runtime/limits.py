"""What a session of a runtime may take of this machine: seconds for each request, and resident memory."""

from __future__ import annotations

import contextlib
import mmap
import os
from dataclasses import dataclass
from typing import Final

from poolzoo.common import resources
from poolzoo.runtime import process_tree

SECONDS: Final = 300.0  # that opening, converting, or one batch may take
MEMORY_SHARE: Final = 0.8  # of what is available, that a session may hold


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a session may take: seconds for each request, and bytes of resident memory (None for no limit)."""

    seconds: float = SECONDS
    memory: int | None = None

    @classmethod
    def default(cls, seconds: float | None = None) -> Limits:
        """The limits on this machine."""
        available = resources.available_memory()
        memory = None if available is None else int(MEMORY_SHARE * available)
        return cls(seconds=SECONDS if seconds is None else seconds, memory=memory)


def resident_memory(pid: int) -> int:
    """The bytes of resident memory of a process and its descendants; 0 where the system does not tell."""
    total = 0
    if not os.path.exists("/proc/self/statm"):
        return total
    for one in (pid, *process_tree.descendants(pid)):
        with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{one}/statm", "rb") as file:
            total += int(file.read().split()[1]) * mmap.PAGESIZE
    return total
