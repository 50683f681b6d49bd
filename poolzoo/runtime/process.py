"""A runtime's session in a process of its own, seen from the host: limits, crashes, and what it printed.

The process is killed when it answers too late or holds too much memory. Memory is the resident memory of the process
and its children, measured while the host waits: a limit of the address space would refuse runtimes that reserve much
and use little, such as V8 and CUDA. Only Linux tells it; elsewhere there is no limit of memory.

The file is long because one class holds the whole life of a process: requests, limits, end, and what is said of it.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Final

import numpy as np

from poolzoo.common import resources
from poolzoo.common.errors import CheckFailed
from poolzoo.common.text import one_line
from poolzoo.plugin import discovery, loader
from poolzoo.plugin.catalog import Entry
from poolzoo.plugin.settings import settings
from poolzoo.plugin.spec import Runtime
from poolzoo.runtime import process_tree, protocol, supervisor
from poolzoo.runtime.limits import Limits, resident_memory

POLL: Final = 0.05  # seconds between two looks at the memory
END: Final = 5.0  # seconds to close a session
LOG_BYTES: Final = 8192  # that are kept of what a runtime prints
LOG_LINES: Final = 3  # that an error shows, …
LOG_WIDTH: Final = 160  # … and characters of each


class RuntimeFailed(CheckFailed):
    """A runtime refuses a graph, crashes or hangs; `why` says it without the name of the runtime."""

    def __init__(self, runtime: str, why: str, hint: str = "") -> None:
        super().__init__(f"runtime {runtime} {why}", hint or f"poolzoo verify BUNDLE --runtime {runtime} checks it")
        self.why = why


class CannotRunHere(RuntimeFailed):
    """A runtime lacks something on this machine, such as its system or a browser."""


class WrongAnswer(RuntimeFailed):
    """A runtime answers something that is no answer."""


@dataclass(frozen=True)
class Answer:
    """What a session answers to a batch.

    Attributes:
        logits, probabilities: `float[N, K]` each.
        ms: The milliseconds that it took, as its process says.
        changed: Whether it changed the images.
        host_ms: The milliseconds that the host waited, which include the cost of the pipe.
    """

    logits: np.ndarray
    probabilities: np.ndarray
    ms: float
    changed: bool
    host_ms: float = 0.0


class RuntimeProcess:
    """The process of one session. A context manager: at its end the process and its descendants are gone.

    Attributes:
        close_problem: At the end: what the session's `close` did wrong; "" where there was nothing.
    """

    close_problem: str = ""

    def __init__(self, entry: Entry, *, threads: int, limits: Limits | None = None) -> None:
        """Starts the process.

        Args:
            entry: The runtime, as the catalog has it.
            threads: Threads to compute with.
            limits: None for `Limits.default()`.
        """
        assert isinstance(entry.item, Runtime)
        self._runtime, self._entry, self._threads = entry.item, entry, threads
        self._limits = limits or Limits.default()
        self._batch = self._runtime.form.batch
        self._name = loader.catalog().identity(entry)
        self._is_open = False
        self._host_ms = 0.0  # of the last request
        counts = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
        paths = os.pathsep.join(os.path.abspath(path) for path in sys.path)
        environment = {**os.environ, **counts, "PYTHONPATH": paths, "PYTHONSAFEPATH": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "poolzoo.runtime.supervisor"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        self._log: deque[bytes] = deque()
        self._reader = threading.Thread(target=self._keep_log, daemon=True)
        self._reader.start()

    @property
    def name(self) -> str:
        """The runtime's name, with its distribution where another one has that name."""
        return self._name

    @property
    def batch(self) -> int | None:
        """The fixed batch size of the pieces that it gets; None where it gets whole batches."""
        return self._batch

    def __enter__(self) -> RuntimeProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._is_open and kind is None and self._process.poll() is None:
                self.close_session()
        except RuntimeFailed as problem:
            self.close_problem = problem.why
        finally:
            self.close()

    def convert(self, directory: Path, out: Path) -> None:
        """Lets the runtime write its files into the empty directory `out`.

        Raises:
            RuntimeFailed: It does not.
        """
        self._request("convert", "converting", {**self._who(), "directory": str(directory), "out": str(out)})

    def open(
        self, directory: Path, *, device: str | None = None, precision: str = "fp32", batch: int | None = None
    ) -> float:
        """Opens the session; returns the milliseconds that took.

        Args:
            directory: What it reads.
            device: None for the runtime's default.
            precision: "fp32" or "auto".
            batch: The fixed batch size that it takes; None for that of the runtime's form.

        Raises:
            RuntimeFailed: It does not open.
        """
        given = {"directory": str(directory), "threads": self._threads, "precision": precision}
        self._batch = batch or self._batch
        header = {**self._who(), **given, "device": device or self._runtime.devices[0]}
        milliseconds = self._milliseconds(self._request("open", "opening", header))
        self._is_open = True
        return milliseconds

    def run(self, images: np.ndarray) -> Answer:
        """Runs a batch, `uint8[N, h, w, 3]`; with a fixed batch size in pieces of that size.

        Raises:
            RuntimeFailed: It fails, or gives outputs of another shape.
        """
        size = self._batch or max(len(images), 1)
        answers = []
        for start in range(0, len(images), size):
            part = images[start : start + size]
            rows = np.arange(size if self._batch else len(part)) % len(part)
            answers.append((self._run_piece(np.ascontiguousarray(part[rows])), len(part)))
        return Answer(
            logits=np.concatenate([one.logits[:count] for one, count in answers]),
            probabilities=np.concatenate([one.probabilities[:count] for one, count in answers]),
            ms=sum(one.ms for one, _ in answers),
            changed=any(one.changed for one, _ in answers),
            host_ms=sum(one.host_ms for one, _ in answers),
        )

    def close_session(self) -> None:
        """Calls the session's `close`, where it has one; the process goes on.

        Raises:
            RuntimeFailed: That raises.
        """
        self._is_open = False
        self._request("close", "closing", {}, seconds=END)

    def close(self) -> None:
        """Ends the process: first in peace, then not. Its children end with it."""
        with contextlib.suppress(OSError, ValueError):
            _pipe(self._process.stdin).close()
        with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            self._process.wait(END)
        self._kill()
        self._reader.join(END)
        for pipe in (self._process.stdout, self._process.stderr):
            with contextlib.suppress(OSError, ValueError):
                _pipe(pipe).close()

    def log(self) -> str:
        """The last lines that it printed, on one line."""
        text = b"".join(self._log).decode("utf-8", "replace")
        lines = [one_line(line, LOG_WIDTH) for line in text.splitlines() if line.strip()]
        return " | ".join(lines[-LOG_LINES:])

    def _who(self) -> dict[str, object]:
        """What the process must know to find the runtime: its functions where strings name them, else the plugins."""
        runtime, source = self._runtime, self._entry.source
        parts = {"open": runtime.open, "convert": runtime.convert}
        own = [Path(source.path)] if source.path is not None else []
        plugins = {
            "files": list(dict.fromkeys(os.path.abspath(path) for path in [*own, *settings.files])),
            "directories": [os.path.abspath(path) for path in settings.directories],
            "installed": settings.installed,
            "third_party": settings.third_party,
            "prefer": settings.prefer,
        }
        return {
            "runtime": runtime.name,
            "reference": f"{source.dist}:{runtime.name}",
            "functions": {part: name for part, one in parts.items() if (name := _import_name(one)) is not None},
            "plugins": plugins,
        }

    def _run_piece(self, images: np.ndarray) -> Answer:
        answer = self._request("run", f"running a batch of {len(images)}", {}, images)
        if len(answer.arrays) != 2:
            raise WrongAnswer(self._name, "answers no logits and probabilities")
        logits, probabilities = answer.arrays
        if logits.ndim != 2 or len(logits) != len(images) or probabilities.shape != logits.shape:
            text = f"gives logits {list(logits.shape)} and probabilities {list(probabilities.shape)}"
            raise WrongAnswer(self._name, f"{text} for {len(images)} images, not [N, K] each")
        return Answer(
            logits=logits,
            probabilities=probabilities,
            ms=self._milliseconds(answer),
            changed=bool(answer.header.get("changed")),
            host_ms=self._host_ms,
        )

    def _milliseconds(self, answer: protocol.Frame) -> float:
        """The time that the process says it took."""
        ms = answer.header.get("ms")
        if not isinstance(ms, int | float) or not 0 <= ms < float("inf"):
            raise WrongAnswer(self._name, f"took {ms!r:.80} milliseconds, as its process says")
        return float(ms)

    def _request(
        self,
        name: str,
        doing: str,
        header: Mapping[str, object],
        *arrays: np.ndarray,
        seconds: float | None = None,
    ) -> protocol.Frame:
        """Sends a request and waits for its answer, within the limits, or for fewer seconds."""
        answers: queue.Queue[protocol.Frame | Exception] = queue.Queue()

        def exchange() -> None:
            try:
                started = time.perf_counter()
                protocol.write(_pipe(self._process.stdin), {"request": name, **header}, arrays)
                answer = protocol.read(_pipe(self._process.stdout))
                self._host_ms = (time.perf_counter() - started) * 1e3
                answers.put(answer)
            except Exception as error:
                answers.put(error)

        threading.Thread(target=exchange, daemon=True).start()
        found = self._wait(answers, doing, min(self._limits.seconds, seconds or self._limits.seconds))
        if isinstance(found, Exception):
            raise self._failed(found, doing)
        if "error" in found.header:
            self._kill()  # a session that has failed is not asked again, and all that it printed arrives
            self._reader.join(END)
            text = f"fails while {doing}: {one_line(str(found.header['error']), 600)}"
            if found.header.get("environment"):
                hint = str(found.header.get("hint") or "")
                raise CannotRunHere(self._name, f"cannot run here: {found.header['error']}", hint)
            raise (WrongAnswer if found.header.get("wrong") else RuntimeFailed)(self._name, self._with_log(text))
        return found

    def _wait(
        self, answers: queue.Queue[protocol.Frame | Exception], doing: str, seconds: float
    ) -> protocol.Frame | Exception:
        deadline = time.monotonic() + seconds
        while True:
            try:
                return answers.get(timeout=POLL)
            except queue.Empty:
                pass
            except BaseException:  # Ctrl-C
                self._kill()
                raise
            if time.monotonic() > deadline:
                self._kill()
                text = f"does not answer within {seconds:g} seconds while {doing}"
                raise RuntimeFailed(self._name, self._with_log(text), "allow more with --runtime-timeout")
            limit = self._limits.memory
            if limit is not None and (held := resident_memory(self._process.pid)) > limit:
                self._kill()
                text = f"holds {resources.size(held)} while {doing}, and {resources.size(limit)} are allowed"
                raise RuntimeFailed(self._name, text, "run it where there is more memory, or on smaller images")

    def _failed(self, error: Exception, doing: str) -> RuntimeFailed:
        """Why there is no answer: the process ended, or wrote something else."""
        if isinstance(error, protocol.BadFrame):
            self._kill()
            return WrongAnswer(self._name, f"{error}, while {doing}")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END)
        code = self._process.poll()
        self._kill()
        self._reader.join(END)
        return RuntimeFailed(self._name, self._with_log(f"{describe_end(code)} while {doing}"))

    def _with_log(self, text: str) -> str:
        printed = self.log()
        return f"{text}; it printed: {printed}" if printed else text

    def _kill(self) -> None:
        """Kills the process and its descendants: its supervisor does, else this process does what it can."""
        if supervisor.SUPPORTED and self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(END)
        if self._process.poll() is None:
            process_tree.end_descendants(self._process.pid)
        with contextlib.suppress(OSError):
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()
        self._process.wait()

    def _keep_log(self) -> None:
        """Reads what the process prints, and keeps the end of it."""
        pipe, held = _pipe(self._process.stderr), 0
        with contextlib.suppress(OSError, ValueError):
            while piece := os.read(pipe.fileno(), 65536):
                self._log.append(piece[-LOG_BYTES:])
                held += len(self._log[-1])
                while held - len(self._log[0]) >= LOG_BYTES:
                    held -= len(self._log.popleft())


def describe_end(code: int | None) -> str:
    """How a process ended, in words."""
    if code is None:
        return "closed its pipe"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"ended with {signal.Signals(-code).name}"
    except ValueError:
        return f"ended with signal {-code}"


def _import_name(function: object) -> str | None:
    """How another process imports a function: "module:name"; None where it cannot, as from a plugin's file."""
    if isinstance(function, str):
        return function
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    if not isinstance(module, str) or module.startswith(discovery.FILE_MODULE) or not name.isidentifier():
        return None
    return f"{module}:{name}" if getattr(sys.modules.get(module), name, None) is function else None


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream
