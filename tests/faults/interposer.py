"""The preloaded library that counts operations on files and injects faults: built once, and told what to do."""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
from pathlib import Path
from typing import Final, NamedTuple

SOURCE: Final = Path(__file__).with_name("interpose.c")
VARIABLE: Final = "FAULTS_PLAN"
NOTHING, SIGNAL, FAIL_ONCE, FAIL_FROM, JUMP, SHORT, NO_LOCKS = range(7)
_FORM: Final = struct.Struct("qqiiiiii4096s")


class Progress(NamedTuple):
    """How many operations there were, and whether the fault has happened."""

    count: int
    happened: bool


def build(folder: Path) -> Path:
    """Compiles the library; needs a C compiler on Linux."""
    library = folder / "interpose.so"
    command = ["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True)
    return library


def write_plan(
    path: Path, root: Path, *, at: int = 0, action: int = NOTHING, value: int = 0, twice: bool = False
) -> None:
    """Writes what happens below `root` at which operation, counted from 1; at 0 nothing does."""
    path.write_bytes(_FORM.pack(0, at, action, value, 0, 0, twice, 0, os.fsencode(root)))
    _written(path).unlink(missing_ok=True)


def progress(path: Path) -> Progress:
    """What has happened so far under a plan."""
    count, _, _, _, _, done, *_ = _FORM.unpack(path.read_bytes())
    return Progress(count, bool(done))


def unsynced(path: Path) -> dict[int, int]:
    """Files that were written under a plan and have not come to the disk since: by inode, the size that is there."""
    there, waiting = dict[int, int](), set[int]()
    for line in _written(path).read_text().splitlines() if _written(path).is_file() else ():
        what, inode, size = line[0], *map(int, line[1:].split())
        there.setdefault(inode, size)
        if what == "s":
            there[inode] = size
            waiting.discard(inode)
        else:
            waiting.add(inode)
    return {inode: there[inode] for inode in waiting}


def _written(path: Path) -> Path:
    return Path(f"{path}.written")


def arm(path: str) -> None:
    """Lets this process, which has the library loaded, follow a plan."""
    ctypes.CDLL(os.environ["LD_PRELOAD"]).faults_arm(os.fsencode(path))
