"""Processes of a measurement, each killed when the time of its part is over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_end = float("inf")


class Failed(Exception):
    """A process failed or took too long; the text is the end of what it wrote."""


def allow(end: float) -> None:
    """Sets until when processes may run, by `time.monotonic`."""
    global _end
    _end = end


def run(command: Sequence[str], codes: Sequence[int] = (0,)) -> str:
    """Runs a command in the checkout; gives its stdout.

    Raises:
        Failed: Its exit code is none of `codes`, or time is over.
    """
    limit = max(1.0, min(_end - time.monotonic(), 1e6))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=limit)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)  # with its workers
            if isinstance(error, subprocess.TimeoutExpired):
                raise Failed(f"{_name(command)} took more than {limit:.0f} s") from None
            raise
    if process.returncode not in codes:
        last = " / ".join((err or out).strip().splitlines()[-3:])
        raise Failed(f"{_name(command)} ended with {process.returncode}: {last[-500:]}")
    return out


def call(function: str, **arguments: Any) -> Any:
    """Runs a function, such as `benchmarks.gpu.parts:machine`, in a process of its own; gives its result.

    Raises:
        Failed: It failed, or time is over.
    """
    module, _, name = function.partition(":")
    code = "import importlib, json, sys; f = getattr(importlib.import_module(sys.argv[1]), sys.argv[2]); "
    code += "print(json.dumps(f(**json.loads(sys.argv[3]))))"
    return json.loads(run([sys.executable, "-c", code, module, name, json.dumps(arguments)]).splitlines()[-1])


def _name(command: Sequence[str]) -> str:
    """What a command runs, such as `poolzoo finetune`."""
    return " ".join(command[2:4]) if command[1] == "-m" else ":".join(command[3:5])
