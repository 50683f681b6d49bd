"""Files of somebody else opened to read them, without waiting: a path may lead to a pipe, a socket or a device."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path  # which takes short commands 3 ms

NOT_A_FILE: Final = "Not a file but a pipe or a device"


def open_file(path: str | os.PathLike[str], *, pipe: bool = False) -> BufferedReader:
    """Opens a file of somebody else to read it, and waits for nobody.

    Args:
        path: A regular file, or a link to one.
        pipe: Whether it may be a pipe, which is not seekable; one that nobody writes to is empty.

    Raises:
        OSError: It cannot be read. It is a folder, a socket, a device or, without `pipe`, a pipe.
    """
    file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115 - closed by who called
    mode = os.fstat(file.fileno()).st_mode
    if not (stat.S_ISREG(mode) or (pipe and stat.S_ISFIFO(mode))):
        file.close()
        raise OSError(errno.EINVAL, NOT_A_FILE, os.fspath(path))
    if pipe and stat.S_ISFIFO(mode):
        os.set_blocking(file.fileno(), True)
    return file


def require_file(path: Path) -> None:
    """Makes sure that a path is a file that can be opened, and opened again.

    Raises:
        OSError: As `open_file`.
    """
    open_file(path).close()


def require_replaceable(path: Path) -> None:
    """Makes sure that nothing but a file or a link to one goes away where a path is written anew.

    Raises:
        OSError: It is a folder, a pipe, a socket or a device.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError:  # there is nothing, or whoever writes it says why not
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, NOT_A_FILE, os.fspath(path))


def absence(path: Path, wanted: str = "file") -> str:
    """Why a path is no file or directory: it "does not exist", or "is no file"."""
    return f"is no {wanted}" if os.path.lexists(path) else "does not exist"


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a pipe without a writer would wait for one
