"""What all rooms have read so far: shown target by target as they finish, and summed up at the end or when stopped."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from fuzz.harness import Failure, Result


@dataclass
class Progress:
    """The results by target, and the processes of the rooms that run. Rooms may add from several threads."""

    results: dict[str, Result] = field(default_factory=dict)
    is_stopped: bool = False
    _running: set[subprocess.Popen[str]] = field(default_factory=set)
    _lock: Any = field(default_factory=threading.Lock)

    def add(self, found: Result) -> None:
        """Adds and shows what a target has read, or the part of it behind an input that ended its process."""
        with self._lock:
            whole = self.results.setdefault(found.target, Result(found.target))
            whole.inputs += found.inputs
            whole.accepted += found.accepted
            whole.refused += found.refused
            whole.seconds += found.seconds
            whole.failures += found.failures
            if found.inputs:
                print(whole, flush=True)
            for failure in found.failures:
                print(f"FAILED {failure}", flush=True)

    def fail(self, failure: Failure) -> None:
        """Adds and shows a failure that ended a process."""
        self.add(Result(failure.target, failures=[failure]))

    @contextmanager
    def running(self, command: Sequence[str], errors: Path, **where: Any) -> Iterator[subprocess.Popen[str]]:
        """A process that is stopped with the rest; its lines come from `stdout`, and its errors go to a file."""
        with errors.open("w") as file, self._started(command, file, where) as process:
            try:
                yield process
            finally:
                process.wait()
                self._running.discard(process)

    def _started(self, command: Sequence[str], errors: IO[str], where: dict[str, Any]) -> subprocess.Popen[str]:
        with self._lock:  # so that `stop` misses none
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, **where)
            self._running.add(process)
            if self.is_stopped:
                process.send_signal(signal.SIGINT)
        return process

    def stop(self) -> None:
        """Ends all processes; each says how far it is."""
        with self._lock:
            self.is_stopped = True
            for process in self._running:
                process.send_signal(signal.SIGINT)

    def totals(self) -> tuple[int, int]:
        """Numbers of inputs and of failures."""
        found = self.results.values()
        return sum(one.inputs for one in found), sum(len(one.failures) for one in found)
