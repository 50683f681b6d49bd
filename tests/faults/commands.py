"""A command at work: in a fork of a warm process, or in a process of its own. Both can be paused, signaled, watched.

A fork costs a fifth of a fresh process, whose imports take seconds. It differs in the start and in the end of the
interpreter: signals that arrive before `poolzoo.cli.main` are not the program's, and no exit handlers run.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from faults import interposer
from support import processes

PATIENCE: Final = 180.0  # seconds after which a command hangs
LOOK: Final = 0.02  # seconds between two looks at a process
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Ended:
    """What a command left behind; a negative code is a signal, None says that it hung."""

    code: int | None
    out: str
    err: str
    session: int


class Command:
    """A command of poolzoo that was started. Its session is its own.

    Attributes:
        pid: Of the process.
        seconds: Of CPU time that it has taken, as far as it was watched.
    """

    pid: int
    seconds: float = 0.0

    def wait(self, patience: float = PATIENCE) -> Ended:
        """Waits for the end; a command that hangs is killed."""
        deadline = time.monotonic() + patience
        while (code := self._code()) is None and time.monotonic() < deadline:
            self._watch()
            time.sleep(LOOK)
        if code is None:
            self.signal(signal.SIGKILL)
            while self._code() is None:
                time.sleep(LOOK)
        return Ended(code, self._out.read_text("utf-8", "replace"), self._err.read_text("utf-8", "replace"), self.pid)

    def run_for(self, seconds: float) -> None:
        """Waits until it has taken so much CPU time, or has ended."""
        while self._code() is None and self.seconds < seconds:
            self._watch()
            time.sleep(LOOK / 4)

    def is_stopped(self) -> bool:
        """Waits until it has stopped itself; False where it ends before."""
        deadline = time.monotonic() + PATIENCE
        while self._code() is None and time.monotonic() < deadline:
            self._watch()
            if self._state() == "T":
                return True
            time.sleep(LOOK / 4)
        return False

    def signal(self, number: int, *, group: bool = False) -> None:
        """Sends a signal to the process, or to its group as a terminal does."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number) if group else os.kill(self.pid, number)

    def _code(self) -> int | None:
        raise NotImplementedError

    _out: Path
    _err: Path

    def _state(self) -> str:
        return self._stat()[0]

    def _watch(self) -> None:
        words = self._stat()
        if len(words) > 12:
            self.seconds = max(self.seconds, (int(words[11]) + int(words[12])) / _TICKS)

    def _stat(self) -> list[str]:
        try:
            return Path("/proc", str(self.pid), "stat").read_text().rpartition(")")[2].split()
        except OSError:
            return [""]


class Forked(Command):
    """A fork of the server of `support.processes`."""

    def __init__(self, streams: Path, words: Sequence[str], variables: Mapping[str, str]) -> None:
        self._started = processes.start(streams, *words, before=prepare, environment=variables)
        assert self._started.process.pid is not None
        self.pid = self._started.process.pid
        self._out, self._err = self._started.out, self._started.err
        self._started.next_event()  # it follows its plan, and its handlers of signals are those of the program

    def _code(self) -> int | None:
        return self._started.process.exitcode


class Fresh(Command):
    """A process of its own."""

    def __init__(self, streams: Path, words: Sequence[str], variables: Mapping[str, str]) -> None:
        self._out, self._err = streams / "out", streams / "err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "poolzoo", *words],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=variables["FAULTS_BOX"],
                env={**os.environ, **variables},
                start_new_session=True,
            )
        self.pid = self._process.pid

    def _code(self) -> int | None:
        return self._process.poll()


def prepare(events: Connection) -> None:
    """Makes a fork like a process of its own: its session, its directory, its plan, and its handlers of signals."""
    from poolzoo.common import files, stopping

    os.setsid()
    os.chdir(os.environ["FAULTS_BOX"])
    stopping.handle(stopping.end_at_once)
    if (broken := os.environ.get("FAULTS_BROKEN")) == "in place":
        files.write_together = _write_in_place
    elif broken == "unsynced":
        os.fsync = lambda descriptor: None
    interposer.arm(os.environ[interposer.VARIABLE])
    events.send("ready")


def _write_in_place(contents: Mapping[Path, bytes]) -> None:
    """What a careless program does; the harness is tested with it."""
    for path, content in contents.items():
        path.write_bytes(content)
