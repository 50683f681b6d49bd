"""Locks that end with the process that holds them: on directories in which one command works, and on unfinished files.

They are advisory locks of the operating system. Where a file system or a system has none, nothing is locked, and what
killed processes have left stays.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from poolzoo.common.errors import FULL, UsageError

_ENDING: Final = ".poolzoo"  # of the names of what is not finished, which begin with a dot


@contextmanager
def alone_in(directory: Path, what: str) -> Iterator[None]:
    """Keeps other commands out of a directory during the block.

    Args:
        directory: It must exist.
        what: What the directory is, for the message.

    Raises:
        UsageError: Another command is at work in it.
    """
    with _opened(directory) as descriptor:
        if descriptor is not None and not lock(descriptor):
            raise UsageError(f"another command is at work in the {what} {directory}", "wait until it has ended")
        yield


@contextmanager
def waiting_for(directory: Path) -> Iterator[None]:
    """Waits until no other command is in such a block for a directory."""
    with _opened(directory) as descriptor:
        if descriptor is not None:
            lock(descriptor, wait=True)
        yield


@contextmanager
def unfinished(path: Path, *, is_folder: bool = False) -> Iterator[Path]:
    """A new file or directory beside `path` that is locked during the block, to be renamed; what is left then goes.

    Only its owner can read a directory, as what it is made of may be private.

    Raises:
        OSError: It cannot be made.
    """
    while True:
        temporary = unfinished_name(path)
        try:
            if is_folder:
                temporary.mkdir(0o700)
            else:
                os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            with _opened(temporary) as descriptor:
                if descriptor is not None and (not lock(descriptor) or not os.fstat(descriptor).st_nlink):
                    continue  # another process swept it away before it was locked
                yield temporary
                return
        except OSError as error:
            _name(error, temporary, path)
            raise
        finally:
            _remove(temporary)


def _name(error: OSError, temporary: Path, path: Path) -> None:
    """Makes an error name what the user knows: writing to a full disk names no file, and others a temporary one."""
    if error.filename is None and error.errno in FULL:
        error.filename = str(path)
    elif isinstance(error.filename, str) and error.filename.startswith(str(temporary)):
        error.filename = str(path) + error.filename.removeprefix(str(temporary))


def is_held(path: Path, *, unknown: bool) -> bool:
    """Whether a process has locked a file or directory; `unknown` where that cannot be known."""
    with _opened(path) as descriptor:
        return unknown if descriptor is None else not lock(descriptor, strictly=unknown)


def sweep(directory: Path) -> None:
    """Removes what our killed processes have left unfinished in a directory, which may be missing, or shared."""
    try:
        found = [path for path in directory.iterdir() if is_unfinished(path) and _is_ours(path)]
    except OSError:
        return
    for path in found:
        with _opened(path) as descriptor:
            if descriptor is not None and lock(descriptor, strictly=True):
                _remove(path)  # while it is locked, as `unfinished` looks whether it is still there


def unfinished_name(path: Path) -> Path:
    """A new name beside a path that `sweep` knows."""
    from uuid import uuid4

    return path.with_name(f".{path.name}-{uuid4().hex[:8]}{_ENDING}")


def is_unfinished(path: Path) -> bool:
    """Whether a name is one that `unfinished_name` gives."""
    return path.name.startswith(".") and path.name.endswith(_ENDING)


def _is_ours(path: Path) -> bool:
    """Whether it is a file or directory of the user of this process, and no link to one."""
    try:
        about = path.lstat()
    except OSError:  # it is gone
        return False
    mine = not hasattr(os, "getuid") or about.st_uid == os.getuid()
    return mine and (stat.S_ISREG(about.st_mode) or stat.S_ISDIR(about.st_mode))


@contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    """A descriptor to lock; None where there is no way to lock it."""
    try:
        import fcntl  # noqa: F401

        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # a pipe would wait for a writer
    except (ImportError, OSError):  # Windows, or it is not there or not readable
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def lock(descriptor: int, *, wait: bool = False, strictly: bool = False) -> bool:
    """Locks an open file until it is closed; False where another process has locked it.

    Args:
        descriptor: Of the file.
        wait: Whether to wait for the other process.
        strictly: Whether a file system without locks counts as locked.
    """
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # the file system knows no locks
        return not strictly
    return True


def _remove(path: Path) -> None:
    if path.is_dir():
        import shutil

        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
