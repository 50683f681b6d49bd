"""Bounds around other people's code while plugins load: time, memory, standard output, the process's global state."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

from poolzoo.common import streams

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

SECONDS: Final = 15.0  # that one stage of one plugin may take
MEMORY: Final = 4 << 30  # bytes that it may add to the process

T = TypeVar("T")


class OutOfTime(BaseException):
    """A stage took too long. No `Exception`, so that a plugin's own `except Exception` does not swallow it."""


def call(function: Callable[..., T], *arguments: Any, limited: bool = True) -> tuple[T | None, BaseException | None]:
    """Calls other people's code: its result, or what it threw; Ctrl-C passes.

    Args:
        function: What to call.
        arguments: Its arguments.
        limited: Whether the limits of time and memory apply; our own code needs none.
    """
    try:
        if not limited:
            return function(*arguments), None
        with _limited_time(), _limited_memory():
            return function(*arguments), None
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return None, error


@contextmanager
def _limited_time() -> Iterator[None]:
    """Raises `OutOfTime` after `SECONDS`, and every second from then on; only in the main thread of a POSIX system."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def expire(number: int, frame: FrameType | None) -> NoReturn:
        raise OutOfTime(f"took longer than {SECONDS:g} seconds")

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, SECONDS, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _limited_memory() -> Iterator[None]:
    """Lets the process grow by `MEMORY` and no further, where the system can say how large it is (Linux)."""
    try:
        import resource

        with open("/proc/self/statm", "rb") as file:
            used = int(file.read().split()[5]) * resource.getpagesize()  # data and stack
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        ceiling = used + MEMORY if hard == resource.RLIM_INFINITY else min(used + MEMORY, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (ceiling, hard))
    except (ImportError, OSError, ValueError):
        yield
        return
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Sends what is printed to stderr, also below Python: stdout carries data, and a plugin must not spoil it."""
    kept = None
    with suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
        kept = os.dup(1)
        os.dup2(2, 1)
    try:
        with redirect_stdout(streams.Foreign()):
            yield
    finally:
        if kept is not None:
            os.dup2(kept, 1)
            os.close(kept)


class GlobalState:
    """What a process's other code relies on, as it was when this was made."""

    def __init__(self) -> None:
        self._was = _general_state()
        self._watch: _TorchWatch | None = None
        if "torch" in sys.modules:
            self._was |= _torch_state(sys.modules["torch"])
        else:
            self._watch = _TorchWatch()
            sys.meta_path.insert(0, self._watch)

    def restore(self) -> list[str]:
        """Undoes every change since, and returns in words what had changed."""
        if self._watch is not None:
            with suppress(ValueError):
                sys.meta_path.remove(self._watch)
            self._was |= self._watch.state
        now = _general_state()
        torch = sys.modules.get("torch")
        if torch is not None and "torch's default dtype" in self._was:
            now |= _torch_state(torch)
        changed = [name for name, value in self._was.items() if name in now and not _same(now[name], value)]
        for name in changed:
            _restore(name, self._was[name], torch)
        return changed


def _general_state() -> dict[str, Any]:
    import random

    state: dict[str, Any] = {
        "sys.path": list(sys.path),
        "Python's random generator": random.getstate(),
        "what Ctrl-C does": signal.getsignal(signal.SIGINT),
    }
    with suppress(OSError):
        state["the current directory"] = os.getcwd()
    return state


def _torch_state(torch: Any) -> dict[str, Any]:
    return {
        "torch's default dtype": torch.get_default_dtype(),
        "torch's threads": torch.get_num_threads(),
        "torch's gradient mode": torch.is_grad_enabled(),
        "torch's deterministic mode": torch.are_deterministic_algorithms_enabled(),
        "torch's random generator": torch.random.get_rng_state(),
    }


def _same(one: Any, other: Any) -> bool:
    return bool(one.equal(other)) if hasattr(one, "equal") else bool(one == other)


def _restore(name: str, value: Any, torch: Any) -> None:
    import random

    undo: dict[str, Callable[[Any], object]] = {
        "sys.path": lambda path: sys.path.__setitem__(slice(None), path),
        "Python's random generator": random.setstate,
        "what Ctrl-C does": lambda handler: signal.signal(signal.SIGINT, handler),
        "the current directory": os.chdir,
    }
    if torch is not None:
        undo |= {
            "torch's default dtype": torch.set_default_dtype,
            "torch's threads": torch.set_num_threads,
            "torch's gradient mode": torch.set_grad_enabled,
            "torch's deterministic mode": torch.use_deterministic_algorithms,
            "torch's random generator": torch.random.set_rng_state,
        }
    with suppress(OSError, ValueError):  # a directory that is gone, a handler of another thread
        undo[name](value)


class _TorchWatch:
    """A finder of modules that notes torch's state the moment somebody has imported it, before they can change it."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "torch" or self not in sys.meta_path:
            return None
        sys.meta_path.remove(self)
        found = importlib.util.find_spec("torch")
        if found is not None and found.loader is not None:
            run = found.loader.exec_module

            def run_and_note(module: ModuleType) -> None:
                run(module)
                self.state = _torch_state(module)

            found.loader.exec_module = run_and_note  # type: ignore[method-assign]
        return found
