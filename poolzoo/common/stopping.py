"""Signals that stop a command: Ctrl-C, SIGTERM, and SIGHUP of a terminal that is closed."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Collection
from typing import Any, Final, NoReturn

from poolzoo.common.errors import INTERRUPTED, HungUp, Terminated

AGAIN: Final = 0.02  # seconds after which a signal that was dropped is sent again
EXCEPTIONS: Final[dict[int, type[KeyboardInterrupt]]] = {
    number: kind
    for name, kind in {"SIGINT": KeyboardInterrupt, "SIGTERM": Terminated, "SIGHUP": HungUp}.items()
    if (number := getattr(signal, name, None)) is not None  # Windows has no SIGHUP
}


def never_lose_one(forget: Callable[[], object]) -> None:
    """Sends a signal again whose exception came where Python drops exceptions, as in a callback of the collector.

    Args:
        forget: Called first, so that the handler does not take it for a second signal.
    """
    others = sys.unraisablehook

    def hook(dropped: sys.UnraisableHookArgs) -> None:
        numbers = [number for number, kind in EXCEPTIONS.items() if dropped.exc_type is kind]
        if numbers:
            forget()
            _send_again(numbers[0])
        else:
            others(dropped)

    sys.unraisablehook = hook


def _send_again(number: int) -> None:
    import threading

    timer = threading.Timer(AGAIN, os.kill, (os.getpid(), number))
    timer.daemon = True
    timer.start()


def handle(handler: Callable[[int, Any], object]) -> None:
    """Lets a function handle the signals; SIGHUP stays ignored under `nohup`."""
    for number in EXCEPTIONS:
        if number in (signal.SIGINT, signal.SIGTERM) or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def repeats(number: int, before: Collection[type[KeyboardInterrupt]]) -> bool:
    """Whether a signal is the second SIGHUP of one terminal, which the kernel sends and the shell too."""
    return EXCEPTIONS[number] is HungUp and HungUp in before


def word(kind: type[BaseException]) -> str:
    """What the exception of a signal is called in a message."""
    return "terminated" if issubclass(kind, Terminated) else "interrupted"


def exit_code(kind: type[BaseException]) -> int:
    """The exit code of a command that the exception of a signal has ended."""
    return kind.exit_code if issubclass(kind, Terminated) else INTERRUPTED


def end_at_once(number: int, frame: object) -> NoReturn:
    """Handles a signal where nothing is left to save: before a command begins, and after it has ended."""
    kind = EXCEPTIONS[number]
    try:
        os.write(2, f"error: {word(kind)}\n".encode())
    finally:
        os._exit(exit_code(kind))
