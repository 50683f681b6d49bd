"""Ctrl-C, SIGTERM and SIGHUP while training: the current step ends and is saved before the run stops."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from poolzoo.common import output, stopping


@dataclass
class StopRequest:
    """Whether a signal asked the run to stop, and which exception that means."""

    exception: type[KeyboardInterrupt] | None = None

    @property
    def is_pending(self) -> bool:
        """Whether a signal arrived."""
        return self.exception is not None

    def raise_if_requested(self) -> None:
        """Raises the exception of the signal that arrived, if any.

        Raises:
            KeyboardInterrupt: After SIGINT; its subclass `Terminated` after SIGTERM and SIGHUP.
        """
        if self.exception is not None:
            raise self.exception


@contextmanager
def defer_signals() -> Iterator[StopRequest]:
    """Records the first signal instead of raising it; a second one raises at once.

    Only the main thread receives signals; in another thread this does nothing.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def handle(number: int, frame: object) -> None:
        exception = stopping.EXCEPTIONS[number]
        if request.exception is not None:
            if stopping.repeats(number, [request.exception]):
                return
            raise exception
        request.exception = exception
        output.say("stopping after this step; press Ctrl-C again to stop at once")

    previous = {number: signal.getsignal(number) for number in stopping.EXCEPTIONS}
    replaced = {number: handler for number, handler in previous.items() if handler not in (signal.SIG_IGN, None)}
    for number in replaced:
        signal.signal(number, handle)
    try:
        yield request
    finally:
        for number, handler in replaced.items():
            signal.signal(number, handler)
