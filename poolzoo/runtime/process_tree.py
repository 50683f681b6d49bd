"""The descendants of a process, and their end: processes that a runtime starts may leave its group and its session."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
PAUSE: Final = 0.005  # seconds between two looks at what is left
PATIENCE: Final = 5.0  # seconds, after which processes that cannot be ended are left alone


def descendants(pid: int, proc: Path = PROC) -> list[int]:
    """The descendants of a process, parents first; those of ended parents belong to who adopts orphans.

    Args:
        pid: The process.
        proc: Where Linux lists processes. Where it lists no children, the program `ps` is asked.
    """
    listed = None if (proc / "self/task").is_dir() and _lists_children(proc) else _children_by_ps()
    found: list[int] = []
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        children = _children(proc, one) if listed is None else listed.get(one, [])
        found += children
        waiting += children
    return found


def end_descendants(pid: int) -> None:
    """Kills the descendants of a process until there are none; those that are its own children are reaped."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found = descendants(pid)
        for one in found:
            with contextlib.suppress(OSError):
                os.kill(one, signal.SIGKILL)
        if pid == os.getpid():
            reap()
        if not found or time.monotonic() > deadline:
            return
        time.sleep(PAUSE)


def reap() -> dict[int, int]:
    """Collects the children of this process that have ended; the exit code of each, or minus its signal."""
    found = {}
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            found[ended[0]] = os.waitstatus_to_exitcode(ended[1])
    return found


def _lists_children(proc: Path) -> bool:
    return (proc / "self/task" / str(os.getpid()) / "children").is_file()


def _children(proc: Path, pid: int) -> list[int]:
    """The children of every thread of a process."""
    found: list[int] = []
    with contextlib.suppress(OSError, ValueError):
        for thread in os.listdir(proc / str(pid) / "task"):
            with contextlib.suppress(OSError):
                found += map(int, (proc / str(pid) / "task" / thread / "children").read_bytes().split())
    return found


def _children_by_ps() -> dict[int, list[int]]:
    """The children of every process; none where there is no `ps`, as on Windows."""
    found: dict[int, list[int]] = {}
    from poolzoo.common.programs import find_program

    if (program := find_program("ps")) is None:
        return {}
    with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
        command = [program, "-A", "-o", "pid=,ppid="]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as ps:
            text = ps.communicate(timeout=PATIENCE)[0]
        for line in text.splitlines():
            child, parent = map(int, line.split())
            if child != ps.pid:
                found.setdefault(parent, []).append(child)
    return found
