"""A command in a process of its own, which ends with everything that it has started, whatever happens here."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

KILLED: Final = -9  # exit code of a process that ran out of time


@dataclass(frozen=True)
class Ended:
    """What a process left behind.

    Attributes:
        exit_code: Its exit code; negative for a signal that ended it.
        stdout: All that it wrote there.
        stderr: All that it wrote there.
        seconds: How long it ran.
    """

    exit_code: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def last_line(self) -> str:
        """The last line that says something, of stderr or else of stdout."""
        lines = [line.strip() for text in (self.stdout, self.stderr) for line in text.splitlines() if line.strip()]
        return lines[-1] if lines else f"exit code {self.exit_code}"


def run(command: Sequence[str], *, cwd: Path, environment: Mapping[str, str], timeout: float) -> Ended:
    """Runs a command in a process group of its own, without standard input.

    Args:
        command: The program and its arguments.
        cwd: Its current directory.
        environment: All of its environment variables.
        timeout: Seconds after which it is ended; its exit code is `KILLED` then.

    Raises:
        OSError: The program cannot be started.
        KeyboardInterrupt: Ctrl-C; the process and what it has started have ended.
    """
    started = time.monotonic()
    with subprocess.Popen(
        command,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=timeout)
            code = process.returncode
        except subprocess.TimeoutExpired:
            _end(process)
            out, err = process.communicate()
            code, err = KILLED, f"{err}\nit did not end within {timeout:g} seconds\n"
        finally:
            _end(process)  # what it left running, or on Ctrl-C all of it
    return Ended(code, out, err, time.monotonic() - started)


def _end(process: subprocess.Popen[str]) -> None:
    """Ends the process and its group; what has ended already is left alone."""
    with suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        elif process.poll() is None:
            process.kill()
