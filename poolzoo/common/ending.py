"""How a process ends: exit handlers run, files are written, and what Python would free then is left to the system.

Freeing every object takes Python 25 ms of a command that takes 250, and half a second where torch is imported.
"""

from __future__ import annotations

import atexit
import gc
import io
import os
import stat
import sys
import threading
from contextlib import suppress
from typing import Final, NoReturn

BUFFERED: Final = frozenset((io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom))
PATIENCE: Final = 3.0  # seconds that threads may take before a line says who is waited for

_code: int | None = None
_alone = False


def prepare() -> None:
    """Call this before anything else: exit handlers run in reverse order, and the last one ends the process."""
    atexit.register(_end)


def exit_with(code: int, *, alone: bool) -> NoReturn:
    """Leaves the program, after threads that are no daemons and all exit handlers.

    Args:
        code: The exit code.
        alone: Whether no code of others has run, which may leave files open. Our own closes them.
    """
    global _code, _alone
    _code = code
    _alone = alone
    if _threads():
        timer = threading.Timer(PATIENCE, _say_who_is_waited_for)
        timer.daemon = True
        timer.start()
    sys.exit(code)


def _threads() -> list[threading.Thread]:
    """The threads that Python waits for before a process ends."""
    return [one for one in threading.enumerate() if not one.daemon and one is not threading.main_thread()]


def _say_who_is_waited_for() -> None:
    if threads := _threads():
        from poolzoo.common import output

        names = ", ".join(one.name for one in threads[:3])
        output.warn(f"all is done, but a plugin or a library has threads that still run: {names}", "Ctrl-C ends them")


def _end() -> None:
    if _code is None:  # an exception that nobody caught, or a process that was forked from this one
        return
    import ctypes

    objects = [] if _alone else gc.get_objects()
    files = [one for one in objects if type(one) in BUFFERED and _is_on_disk(one)]
    files.sort(key=lambda file: isinstance(file, io.BufferedIOBase))  # text before its bytes
    for one in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__, *files):
        with suppress(OSError, ValueError, AttributeError):  # it is closed, nobody reads it, or it is None
            one.flush()
    with suppress(OSError, TypeError, AttributeError):  # Windows, which has no such library
        ctypes.CDLL(None).fflush(None)  # what libraries in C have printed
    os._exit(_code)


def _is_on_disk(file: io.TextIOWrapper | io.BufferedWriter | io.BufferedRandom) -> bool:
    """Whether a file is no pipe, where writing may wait for ever."""
    try:
        return stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    except (OSError, ValueError):  # it is closed, or in memory
        return False
