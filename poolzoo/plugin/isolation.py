"""Bounds around other people's code while plugins load: time, memory, standard output, the process's global state."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self, TypeVar

from poolzoo.common import streams

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

SECONDS: Final = 15.0  # that one stage of one plugin may take
MEMORY: Final = 4 << 30  # bytes that it may add to the process

T = TypeVar("T")


class OutOfTime(BaseException):
    """A stage took too long. No `Exception`, so that a plugin's own `except Exception` does not swallow it."""


def call(function: Callable[..., T], *arguments: Any) -> tuple[T | None, BaseException | None]:
    """Calls other people's code within limits of its own: its result, or what it threw; Ctrl-C passes."""
    with Limits() as limits:
        return limits.call(function, *arguments)


def call_unlimited(function: Callable[..., T], *arguments: Any) -> tuple[T | None, BaseException | None]:
    """The same without limits, which our own code does not need."""
    try:
        return function(*arguments), None
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return None, error


class Limits:
    """Limits of time and memory on other people's code: made once for a plugin, they apply within each `call`.

    Each call may take `SECONDS`, where this is the main thread of a POSIX system. All calls together may let the
    process grow by `MEMORY`, where the system can say how large it is (Linux).
    """

    def __init__(self) -> None:
        in_main_thread = threading.current_thread() is threading.main_thread()
        self._timed = in_main_thread and hasattr(signal, "setitimer")
        self._memory = _memory_limits()

    def __enter__(self) -> Self:
        if self._timed:
            self._handler = signal.signal(signal.SIGALRM, _expire)
        return self

    def __exit__(self, *raised: object) -> None:
        if self._timed:
            signal.signal(signal.SIGALRM, self._handler)

    def call(self, function: Callable[..., T], *arguments: Any) -> tuple[T | None, BaseException | None]:
        """Calls it: its result, or what it threw, such as `OutOfTime` every second once time is over; Ctrl-C passes."""
        trace = sys.gettrace()
        try:
            if self._timed:
                if signal.getsignal(signal.SIGALRM) is not _expire:  # a plugin has changed it
                    signal.signal(signal.SIGALRM, _expire)
                signal.setitimer(signal.ITIMER_REAL, SECONDS, 1.0)
            try:
                return self._within_memory(function, *arguments), None
            finally:
                sys.settrace(trace)  # at once: one that the code has set would see, and could stop, all that follows
                if self._timed:
                    signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            return None, error

    def _within_memory(self, function: Callable[..., T], *arguments: Any) -> T:
        if self._memory is None:
            return function(*arguments)
        import resource

        within, before = self._memory
        resource.setrlimit(resource.RLIMIT_DATA, within)
        try:
            return function(*arguments)
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, before)


def _expire(number: int, frame: FrameType | None) -> NoReturn:
    raise OutOfTime(f"took longer than {SECONDS:g} seconds")


def _memory_limits() -> tuple[tuple[int, int], tuple[int, int]] | None:
    """The soft and hard limit of the process's data that lets it grow by `MEMORY`, and those that it has."""
    try:
        import resource

        with open("/proc/self/statm", "rb") as file:
            used = int(file.read().split()[5]) * resource.getpagesize()  # data and stack
        before = resource.getrlimit(resource.RLIMIT_DATA)
        hard = before[1]
        ceiling = used + MEMORY if hard == resource.RLIM_INFINITY else min(used + MEMORY, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (ceiling, hard))  # raises where the system does not allow it
        resource.setrlimit(resource.RLIMIT_DATA, before)
        return (ceiling, hard), before
    except (ImportError, OSError, ValueError):
        return None


@contextmanager
def printing_little(who: str) -> Iterator[None]:
    """As `stdout_to_stderr`, and of what is printed from Python only the first lines are shown.

    Args:
        who: Who prints, for the line that counts the rest.
    """
    excerpt = streams.Excerpt()
    try:
        with stdout_to_stderr(excerpt), redirect_stderr(excerpt):
            yield
    finally:
        excerpt.end(who)


@contextmanager
def stdout_to_stderr(stream: streams.Foreign | None = None) -> Iterator[None]:
    """Sends what is printed to stderr, also below Python: stdout carries data, and a plugin must not spoil it.

    Args:
        stream: What stands for `sys.stdout`.
    """
    kept = None
    with suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
        kept = os.dup(1)
        os.dup2(2, 1)
    try:
        with redirect_stdout(stream or streams.Foreign()):
            yield
    finally:
        if kept is not None:
            os.dup2(kept, 1)
            os.close(kept)


class GlobalState:
    """What a process's other code relies on, as it was when this was made."""

    def __init__(self) -> None:
        self._was = _general_state()
        self._watch = _Watch({name: read for name, read in _STATES.items() if name not in sys.modules})
        for name, read in _STATES.items():
            if name in sys.modules:
                self._was |= read(sys.modules[name])
        if self._watch.waiting:
            sys.meta_path.insert(0, self._watch)

    def restore(self) -> list[str]:
        """Undoes every change since, and returns in words what had changed."""
        with suppress(ValueError):
            sys.meta_path.remove(self._watch)
        self._was |= self._watch.state
        now = _general_state()
        for name, read in _STATES.items():
            if name in sys.modules:
                now |= read(sys.modules[name])
        changed = [name for name, value in self._was.items() if name in now and not _same(now[name], value)]
        for name in changed:
            _restore(name, self._was[name])
        return changed


def _general_state() -> dict[str, object]:
    state: dict[str, object] = {
        "sys.path": list(sys.path),
        "what Ctrl-C does": signal.getsignal(signal.SIGINT),
        "the profile function": sys.getprofile(),
        "json": {name: getattr(json, name, None) for name in json.__all__},
    }
    with suppress(OSError):
        state["the current directory"] = os.getcwd()
    return state


def _random_state(random: Any) -> dict[str, object]:
    return {"Python's random generator": random.getstate()}


def _torch_state(torch: Any) -> dict[str, object]:
    return {
        "torch's default dtype": torch.get_default_dtype(),
        "torch's threads": torch.get_num_threads(),
        "torch's gradient mode": torch.is_grad_enabled(),
        "torch's deterministic mode": torch.are_deterministic_algorithms_enabled(),
        "torch's random generator": torch.random.get_rng_state(),
    }


# Modules with a state of their own, which are not imported for its sake, and what reads it.
_STATES: Final[dict[str, Callable[[Any], dict[str, object]]]] = {"random": _random_state, "torch": _torch_state}


def _same(one: Any, other: Any) -> bool:
    return bool(one.equal(other)) if hasattr(one, "equal") else bool(one == other)


def _restore(name: str, value: Any) -> None:
    undo: dict[str, Callable[[Any], object]] = {
        "sys.path": lambda path: sys.path.__setitem__(slice(None), path),
        "what Ctrl-C does": lambda handler: signal.signal(signal.SIGINT, handler),
        "the current directory": os.chdir,
        "the profile function": sys.setprofile,
        "json": lambda functions: vars(json).update(functions),
    }
    if (random := sys.modules.get("random")) is not None:
        undo["Python's random generator"] = random.setstate
    if (torch := sys.modules.get("torch")) is not None:
        undo |= {
            "torch's default dtype": torch.set_default_dtype,
            "torch's threads": torch.set_num_threads,
            "torch's gradient mode": torch.set_grad_enabled,
            "torch's deterministic mode": torch.use_deterministic_algorithms,
            "torch's random generator": torch.random.set_rng_state,
        }
    with suppress(OSError, ValueError):  # a directory that is gone, a handler of another thread
        undo[name](value)


class _Watch:
    """A finder that notes a module's state the moment somebody has imported it, before they can change it.

    Attributes:
        waiting: What reads the state, by the name of a module that nobody has imported yet.
        state: What was noted.
    """

    def __init__(self, waiting: dict[str, Callable[[Any], dict[str, object]]]) -> None:
        self.waiting = waiting
        self.state: dict[str, object] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        read = self.waiting.pop(fullname, None)
        if read is None:
            return None
        found = importlib.util.find_spec(fullname)  # asks this finder too, which no longer waits for it
        if found is not None and found.loader is not None:
            run = found.loader.exec_module

            def run_and_note(module: ModuleType) -> None:
                run(module)
                self.state |= read(module)

            found.loader.exec_module = run_and_note  # type: ignore[method-assign]
        return found
