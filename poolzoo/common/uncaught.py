"""Exceptions that nothing can catch, in finalizers and threads: the first of each is a line, the rest a count."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from typing import Final

from poolzoo.common import output
from poolzoo.common.errors import reason

FINALIZER: Final = "a finalizer (__del__)"
THREAD: Final = "a thread"
HINT: Final = "a plugin or a library did that; POOLZOO_DEBUG=1 shows the traceback"

_seen: Counter[str] = Counter()


def install() -> None:
    """Takes the place of Python's own hooks, which print a traceback each time."""
    sys.unraisablehook = lambda found: _say(FINALIZER, found.exc_value or found.exc_type())
    threading.excepthook = lambda found: _say(THREAD, found.exc_value or found.exc_type())


def report() -> None:
    """Says how many more there were, and begins anew."""
    for where, times in _seen.items():
        if times > 1:
            output.warn(f"{where} raised {times - 1:,} more exceptions")
    _seen.clear()


def _say(where: str, error: BaseException) -> None:
    if where == THREAD and isinstance(error, SystemExit):  # how a thread may end
        return
    _seen[where] += 1
    if _seen[where] == 1:
        output.warn(f"{where} raised {reason(error)}", HINT)
