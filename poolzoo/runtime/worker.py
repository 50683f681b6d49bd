"""The process of one runtime session: opens it, converts for it, runs batches and times them.

The `supervisor` starts it. It reads requests from descriptor 0 and writes answers to descriptor 1. Both are moved out
of the way first, so that what a runtime prints goes to stderr, which the host keeps for its messages.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from poolzoo.common.errors import CheckFailed, EnvironmentProblem, PoolzooError, UsageError, reason, show_traceback
from poolzoo.runtime import protocol

PARENT_CHECK: Final = 1.0  # seconds between two looks at whether the parent is still there


def main() -> None:
    """Answers requests until the host closes the pipe."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    worker = Worker()
    while True:
        try:
            request = protocol.read(requests)
        except protocol.NoFrame:
            break
        header, arrays = _answer(worker, request)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # a runtime may have closed them
                stream.flush()
        protocol.write(answers, header, arrays)
    with contextlib.suppress(BaseException):
        worker.close_session()
    os._exit(0)  # without exit handlers, in which runtimes crash


def _end_with(parent: int) -> None:
    """Ends this process when its parent, the supervisor or the host, has ended without closing the pipe."""
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK)
    os._exit(1)


def _answer(worker: Worker, request: protocol.Frame) -> tuple[Mapping[str, object], Sequence[np.ndarray]]:
    """The answer to a request; whatever a runtime raises becomes text."""
    operations: Mapping[str, Callable[[protocol.Frame], tuple[Mapping[str, object], Sequence[np.ndarray]]]] = {
        "open": worker.open,
        "convert": worker.convert,
        "run": worker.run,
        "close": worker.close_session,
    }
    try:
        return operations[str(request.header["request"])](request)
    except NoOutputs as error:
        return {"error": error.message, "wrong": True}, ()
    except PoolzooError as error:
        here = isinstance(error, EnvironmentProblem)
        return {"error": error.message, "hint": error.hint, "environment": here}, ()
    except SystemExit as error:
        return {"error": f"it calls sys.exit({error.code!r})"}, ()
    except BaseException as error:  # a runtime raises anything
        show_traceback(error)
        return {"error": reason(error)}, ()


class NoOutputs(CheckFailed):
    """What a session gives is no pair of logits and probabilities."""


class Worker:
    """Holds the one session of this process."""

    def __init__(self) -> None:
        self._session: Callable[[np.ndarray], Any] | None = None

    def open(self, request: protocol.Frame) -> tuple[Mapping[str, object], Sequence[np.ndarray]]:
        """Opens the session, and says how many milliseconds that took with the imports of the runtime."""
        given = request.header
        self.close_session()  # the one before
        find = _finder(given, "open")
        started = time.perf_counter()
        session = find()(
            Path(given["directory"]),
            threads=int(given["threads"]),
            device=str(given["device"]),
            precision=str(given["precision"]),
        )
        if not callable(session):
            raise CheckFailed(f"open gives {type(session).__name__}, which is no session: it cannot be called")
        self._session = session
        return {"ms": (time.perf_counter() - started) * 1e3}, ()

    def convert(self, request: protocol.Frame) -> tuple[Mapping[str, object], Sequence[np.ndarray]]:
        """Lets the runtime write its own files."""
        convert = _finder(request.header, "convert")()
        started = time.perf_counter()
        convert(Path(request.header["directory"]), Path(request.header["out"]))
        return {"ms": (time.perf_counter() - started) * 1e3}, ()

    def run(self, request: protocol.Frame) -> tuple[Mapping[str, object], Sequence[np.ndarray]]:
        """Runs a batch, and says how many milliseconds it took and whether the images were changed."""
        if self._session is None:
            raise UsageError("the session is not open")
        (images,) = request.arrays
        given = images.copy()
        gc.disable()
        started = time.perf_counter()
        found = self._session(given)
        taken = (time.perf_counter() - started) * 1e3
        gc.enable()
        outputs = [_output(one) for one in _two(found)]
        return {"ms": taken, "changed": not np.array_equal(given, images)}, outputs

    def close_session(self, request: protocol.Frame | None = None) -> tuple[Mapping[str, object], Sequence[np.ndarray]]:
        """Closes the session once, where it can be closed."""
        session, self._session = self._session, None
        close = getattr(session, "close", None)
        if callable(close):
            close()
        return {}, ()


def _two(found: Any) -> tuple[Any, Any]:
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise NoOutputs(f"the session gives {type(found).__name__}, not a pair of logits and probabilities")
    return found[0], found[1]


def _output(found: Any) -> np.ndarray:
    array = np.asarray(found)
    if array.dtype.name not in protocol.DTYPES[1:]:
        raise NoOutputs(f"the session gives {array.dtype}{list(array.shape)}, not float[N, K]")
    return array


def _finder(given: Mapping[str, Any], part: str) -> Callable[[], Callable[..., Any]]:
    """Imports the `open` or `convert` of the runtime that a request names: a string, or of the plugins of the host."""
    from poolzoo.plugin import imports, loader, problems, spec
    from poolzoo.plugin.settings import settings

    target, source = given["functions"].get(part), problems.Source("", None, "installed")
    if target is None:
        for name, value in given["plugins"].items():
            setattr(settings, name, [Path(one) for one in value] if name in ("files", "directories") else value)
        entry = loader.catalog().runtime(given["reference"])
        assert isinstance(entry.item, spec.Runtime)
        target, source = getattr(entry.item, part), entry.source
    return lambda: imports.import_build(target, given["runtime"], source, part)


if __name__ == "__main__":
    main()
