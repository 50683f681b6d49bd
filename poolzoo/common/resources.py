"""How much of the machine is ours: processors and memory, after affinity, cgroup quotas and rlimits; and what we hold.

A container sees the whole machine in `/proc`. What it may use stands in its control group, or in one around it: the
tightest limit on the way up to the root counts, in both versions of cgroups.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

ROOT: Final = "/"
_UNLIMITED: Final = 1 << 60  # version 1 writes the largest multiple of a page that fits 63 bits for "no limit"


class Held(NamedTuple):
    """Something large in memory: what, its bytes, and what makes it smaller."""

    what: str
    bytes: int
    hint: str


HELD: dict[str, Held] = {}


def hold(what: str, bytes_held: int, hint: str) -> None:
    """Remembers what is in memory, for the error of an allocation that fails."""
    HELD[what] = Held(what, bytes_held, hint)


def largest() -> Held | None:
    """The largest of what is remembered."""
    return max(HELD.values(), key=lambda held: held.bytes, default=None)


def size(count: int) -> str:
    """Bytes in words, such as `1.5 GB`."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


class _Group(NamedTuple):
    """One directory of a cgroup hierarchy, and the version that it is written in."""

    path: str
    version: int

    def number(self, name: str) -> int | None:
        """The number in a file; None where there is no file, or no limit in it."""
        try:
            return int(_text(self.path, name))
        except (OSError, ValueError):
            return None

    def field(self, name: str, key: str) -> int:
        """One line of a file of names and numbers; 0 where it is missing."""
        try:
            lines = (line.split() for line in _text(self.path, name).splitlines())
            return next((int(line[1]) for line in lines if line[0] == key), 0)
        except (OSError, ValueError, IndexError):
            return 0


def cpus(root: Path | str = ROOT) -> int:
    """Processors that this process may keep busy: those of its affinity mask, or fewer where a quota allows less."""
    allowed = _affinity()
    quota = cpu_quota(root)
    return allowed if quota is None else min(allowed, quota)


def thread_limit(root: Path | str = ROOT) -> int | None:
    """What a library may start at most that counts processors itself; None where it counts right."""
    quota = cpu_quota(root)
    return quota if quota is not None and quota < _affinity() else None


def cpu_quota(root: Path | str = ROOT) -> int | None:
    """Processors that the cgroup's quota of CPU time is worth, rounded up; None without a quota."""
    shares = []
    for group in _groups("cpu", root):
        if group.version == 2:
            shares.append(_v2_share(group.path))
        else:
            quota, period = group.number("cpu.cfs_quota_us"), group.number("cpu.cfs_period_us")
            shares.append(quota / period if quota and period and quota > 0 else None)
    found = [share for share in shares if share is not None]
    return max(1, math.ceil(min(found))) if found else None


def available_memory(root: Path | str = ROOT) -> int | None:
    """Bytes that this process can still allocate; None where nothing tells.

    The least of what the machine has available, what the cgroups leave, and what the rlimits leave. Pages of files in
    the cache of a cgroup count as free, because the kernel drops them first.
    """
    found = [_machine_available(root), *(_left(group) for group in _groups("memory", root)), *_rlimits(root)]
    known = [bytes_left for bytes_left in found if bytes_left is not None]
    return max(0, min(known)) if known else None


def _text(directory: Path | str, file: str) -> str:
    with open(os.path.join(directory, file), encoding="utf-8") as opened:
        return opened.read()


def _affinity() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows
        return os.cpu_count() or 1


def _groups(controller: str, root: Path | str) -> Iterator[_Group]:
    """This process's cgroup that has a controller, and all around it, in every hierarchy that is mounted."""
    try:
        lines = _text(root, "proc/self/cgroup").splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if not names:  # version 2; version 1 may be mounted beside it
            mounts, version = ("sys/fs/cgroup", "sys/fs/cgroup/unified"), 2
        elif controller in names.split(","):
            mounts, version = (f"sys/fs/cgroup/{names}", f"sys/fs/cgroup/{controller}"), 1
        else:
            continue
        for mount in (os.path.join(root, mount) for mount in mounts):
            if not os.path.isdir(mount):
                continue
            # In a container the path may be the host's, which is not there: then the mount is the container's own.
            parts = [part for part in path.split("/") if part and part != ".."]
            for depth in range(len(parts), -1, -1):
                place = os.path.join(mount, *parts[:depth])
                if os.path.isdir(place):
                    yield _Group(place, version)


def _v2_share(directory: str) -> float | None:
    try:
        quota, period = _text(directory, "cpu.max").split()
        return int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # no file, or "max"
        return None


def _left(group: _Group) -> int | None:
    limits = ("memory.max", "memory.high") if group.version == 2 else ("memory.limit_in_bytes",)
    known = [limit for name in limits if (limit := group.number(name)) is not None and limit < _UNLIMITED]
    used = group.number("memory.current" if group.version == 2 else "memory.usage_in_bytes")
    if not known or used is None:
        return min(known, default=None)
    cached = group.field("memory.stat", "inactive_file" if group.version == 2 else "total_inactive_file")
    return min(known) - used + cached


def _machine_available(root: Path | str) -> int | None:
    kilobytes = _kilobytes(root, "proc/meminfo", "MemAvailable")
    return None if kilobytes is None else kilobytes * 1024


def _rlimits(root: Path | str) -> Iterator[int]:
    """What the limits on the address space and on the data segment leave."""
    try:
        import resource
    except ImportError:  # Windows
        return
    for limit, field in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        soft, _ = resource.getrlimit(limit)
        used = _kilobytes(root, "proc/self/status", field)
        if soft != resource.RLIM_INFINITY and used is not None:
            yield soft - used * 1024


def _kilobytes(root: Path | str, file: str, field: str) -> int | None:
    try:
        lines = (line.partition(":") for line in _text(root, file).splitlines())
        return next((int(rest.split()[0]) for name, _, rest in lines if name == field), None)
    except (OSError, ValueError, IndexError):
        return None
