"""Ctrl-C and SIGTERM while training: the step that runs is finished, its result saved, and then the run stops."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from poolzoo.common import output
from poolzoo.common.errors import Terminated


@dataclass
class Request:
    """Whether somebody asked to stop, and how."""

    kind: type[KeyboardInterrupt] | None = None

    def obey(self) -> None:
        """Raises what was asked for.

        Raises:
            KeyboardInterrupt: SIGINT came; `Terminated` for SIGTERM.
        """
        if self.kind is not None:
            raise self.kind


@contextmanager
def deferred() -> Iterator[Request]:
    """Notes the first signal instead of raising it; the second one is raised where it arrives.

    Outside of the main thread, which alone receives signals, it does nothing.
    """
    request = Request()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(number: int, frame: object) -> None:
        kind = Terminated if number == signal.SIGTERM else KeyboardInterrupt
        if request.kind is not None:
            raise kind
        request.kind = kind
        output.say("stopping after this step; once more stops at once")

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    ours = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    for number in ours:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)
