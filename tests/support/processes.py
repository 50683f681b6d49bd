"""poolzoo in processes of its own that start at once: forks of a server which has imported torch and the rest already.

A new interpreter spends five seconds of a core on these imports. Where the start itself is tested, use `subprocess`.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [
        *("torch._dynamo", "torch.onnx", "torch.distributed", "torchvision", "timm", "onnx", "onnxscript"),
        *("onnxruntime", "safetensors.torch", "scipy.stats", "sklearn.datasets", "matplotlib.figure", "rich.progress"),
        "poolzoo.cli",
    ]
)
PATIENCE = 120.0  # seconds after which a process that says nothing has failed its test


@dataclass(frozen=True)
class Ended:
    """What a process left behind: its exit code (negative: the signal that ended it) and the two streams."""

    code: int | None
    out: str
    err: str


@dataclass(frozen=True)
class Started:
    """A process at work, and the pipe through which what it was given as `before` speaks."""

    process: ForkServerProcess
    events: Connection
    out: Path
    err: Path

    def next_event(self) -> object:
        """Waits for what the process sends next.

        Raises:
            AssertionError: It sent nothing in time.
            EOFError: It ended.
        """
        assert self.events.poll(PATIENCE), f"nothing happened within {PATIENCE:.0f} s: {self.err.read_text()}"
        return self.events.recv()

    def signal(self, number: int) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def wait(self) -> Ended:
        """Waits for the end; a process that does not come to one is killed."""
        self.process.join(PATIENCE)
        if self.process.exitcode is None:
            self.signal(signal.SIGKILL)
            self.process.join()
        return Ended(self.process.exitcode, self.out.read_text(), self.err.read_text())


def start(
    folder: Path,
    *arguments: object,
    before: Callable[[Connection], None] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Started:
    """Starts a command.

    Args:
        folder: Where the streams are kept, as files.
        arguments: The words of the command line behind `poolzoo`.
        before: A function of a module, called in the process first, such as to send an event when something happens.
        environment: Variables besides those of this process.
    """
    place = folder / f"process-{len(list(folder.glob('process-*')))}"
    place.mkdir()
    events, theirs = SERVER.Pipe(duplex=True)
    words = [str(argument) for argument in arguments]
    process = SERVER.Process(target=_main, args=(words, {**os.environ, **(environment or {})}, place, before, theirs))
    process.start()
    theirs.close()
    return Started(process, events, place / "out", place / "err")


def start_group(
    folder: Path, size: int, *arguments: object, before: Callable[[Connection], None] | None = None
) -> list[Started]:
    """Starts the processes of a group with the variables that torchrun gives them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size)}
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(size)]
    return [start(folder, *arguments, before=before, environment={**common, **rank}) for rank in ranks]


def read_pipe(path: Path) -> str:
    """What another process writes into a named pipe.

    Raises:
        AssertionError: Nobody wrote in time.
    """
    pipe = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert select.select([pipe], [], [], PATIENCE)[0], f"nobody wrote to {path.name} within {PATIENCE:.0f} s"
        return os.read(pipe, 4096).decode()
    finally:
        os.close(pipe)


def signal_at(number: int, owner: Any, name: str, count: int = 1) -> None:
    """Lets this process get a signal when a function is called for the nth time; for use in a `before`."""
    real, calls = getattr(owner, name), itertools.count(1)

    def counted(*arguments: Any, **options: Any) -> Any:
        if next(calls) == count:
            os.kill(os.getpid(), number)
        return real(*arguments, **options)

    setattr(owner, name, counted)


def announce(events: Connection, owner: Any, name: str) -> None:
    """Lets this process send an event after each call of a function; for use in a `before`."""
    real = getattr(owner, name)

    def announced(*arguments: Any, **options: Any) -> Any:
        result = real(*arguments, **options)
        events.send(name)
        return result

    setattr(owner, name, announced)


def _main(
    words: list[str],
    environment: dict[str, str],
    place: Path,
    before: Callable[[Connection], None] | None,
    events: Connection,
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(place / name, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)
    if before is not None:
        before(events)
    from poolzoo import cli

    sys.argv = ["poolzoo", *words]
    cli.main()
