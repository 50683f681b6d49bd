"""Files of somebody else opened to read them, without waiting: a path may lead to a pipe, a socket or a device."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path


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
        raise OSError(errno.EINVAL, "Not a file but a pipe or a device", os.fspath(path))
    if pipe and stat.S_ISFIFO(mode):
        os.set_blocking(file.fileno(), True)
    return file


def require_file(path: Path) -> None:
    """Makes sure that a path is a file that can be opened, and opened again.

    Raises:
        OSError: As `open_file`.
    """
    open_file(path).close()


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a pipe without a writer would wait for one
