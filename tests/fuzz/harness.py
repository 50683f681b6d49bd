"""Runs a target on many inputs in this process, and judges what comes of each: an error of one line, or a right value.

What is a failure: an exception of another kind than poolzoo's, a message that says "unexpected", an input that takes
longer than the limit or memory without a bound, an accepted value that another reader contradicts, and an input after
which a valid one is read differently.
"""

from __future__ import annotations

import faulthandler
import resource
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from random import Random
from typing import Any

from poolzoo.common import errors, output

CPU_SECONDS = 10.0  # of one input; an image of 180 million pixels takes more than half of it
WALL_SECONDS = 300.0  # of one input, after which the process ends itself
MEMORY = 700 << 20
ADDRESSES = 4 << 30  # bytes of addresses that all inputs may take together
NEIGHBOR_EVERY = 100  # inputs after which a valid one must still be read
MOST_FAILURES = 20  # of one target, after which it ends


class Hang(BaseException):
    """An input takes longer than it may."""


class Disagreement(AssertionError):
    """An accepted value is not what the input says."""


@dataclass(frozen=True)
class Target:
    """One reader, and what it is given.

    Attributes:
        name: As `--target` takes it.
        seeds: Valid inputs.
        mutate: Makes an input of a `Random` and valid ones.
        read: Reads an input; raises `Disagreement` where what it accepted contradicts an independent reader.
        share: How many inputs it gets, as a part of those that a quick reader gets.
        memory: Bytes by which one input may raise the peak of the process.
    """

    name: str
    seeds: Sequence[bytes]
    mutate: Callable[[Random, Sequence[bytes]], bytes]
    read: Callable[[bytes], object]
    share: float = 1.0
    memory: int = MEMORY

    def make(self, seed: int, index: int) -> bytes:
        """The input of a number: the same for the same seed, whatever came before."""
        return self.mutate(Random(f"{seed} {self.name} {index}"), self.seeds)


@dataclass(frozen=True)
class Failure:
    """An input that was not met as it should be."""

    target: str
    index: int
    what: str
    where: str = ""

    def __str__(self) -> str:
        return f"{self.target} {self.index}: {self.what} {self.where}".rstrip()


@dataclass
class Result:
    """What became of the inputs of one target."""

    target: str
    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    seconds: float = 0.0
    failures: list[Failure] = field(default_factory=list)
    is_stopped: bool = False

    def to_json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Result:
        return cls(**{**found, "failures": [Failure(**one) for one in found["failures"]]})

    def __str__(self) -> str:
        rate = self.inputs / self.seconds if self.seconds else 0.0
        return f"{self.target:24} {self.inputs:8,} inputs {self.accepted:8,} accepted {rate:9,.0f} inputs/s"


def judge(target: Target, content: bytes, index: int = -1) -> tuple[bool, Failure | None]:
    """Reads one input.

    Returns:
        Whether it was accepted, and the failure, if it is one.
    """
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    accepted, failure = False, None
    try:
        with _limited():
            target.read(content)
        accepted = True
    except Hang:
        failure = Failure(target.name, index, f"takes more than {CPU_SECONDS:g} CPU seconds")
    except Exception as error:
        if (what := problem_with(error)) is not None:
            failure = Failure(target.name, index, what, _place(error))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    if failure is None and grown > target.memory:
        failure = Failure(target.name, index, f"takes {grown >> 20} MB")
    return accepted, failure


def problem_with(error: Exception) -> str | None:
    """What is wrong with an exception that a reader raised; None where it is one that the command line can show."""
    if isinstance(error, errors.PoolzooError):
        if not error.message.strip() or not isinstance(error.hint, str):
            return "an error without a message"
        if type(error).exit_code not in (errors.CHECK_FAILED, errors.USAGE, errors.PLUGIN, errors.ENVIRONMENT):
            return f"exit code {type(error).exit_code}"
        return f"{error.message[:200]!r}" if error.message.startswith("unexpected ") else None
    if isinstance(error, OSError) and error.errno is not None:  # of the disk, which the command line explains
        return None
    return f"{type(error).__name__}: {str(error)[:200]!r}"


def _place(error: BaseException) -> str:
    """The last places in poolzoo and in all that the exception went through."""
    frames = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
    own = [one for one in frames if "/poolzoo/" in one]
    return " ← ".join(dict.fromkeys([*frames[-1:], *own[-2:][::-1]]))


@contextmanager
def _limited() -> Iterator[None]:
    """Ends what runs within it after `CPU_SECONDS` of this process's time, if Python code runs at all."""
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


@contextmanager
def watched() -> Iterator[None]:
    """Within it inputs are limited in time and memory, and nothing is printed."""

    def hang(number: int, frame: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGPROF, hang)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        taken = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + ADDRESSES, hard))
    output.set_verbosity(output.QUIET)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as the command line has it
            yield
    finally:
        signal.signal(signal.SIGPROF, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        output.set_verbosity(output.NORMAL)


def run(target: Target, indices: Iterable[int], seed: int, before: Callable[[int], None] | None = None) -> Result:
    """Reads the inputs of some numbers, within `watched`; what Ctrl-C stops has a result too.

    Args:
        target: What reads.
        indices: The numbers of its inputs.
        seed: Of all inputs.
        before: Called with each number before its input is made, so that somebody knows after a crash.
    """
    result, started = Result(target.name), time.perf_counter()
    try:
        _read_all(target, indices, seed, before or (lambda index: None), result)
    except KeyboardInterrupt:
        result.is_stopped = True
    finally:
        faulthandler.cancel_dump_traceback_later()
    result.seconds = time.perf_counter() - started
    return result


def _read_all(
    target: Target, indices: Iterable[int], seed: int, before: Callable[[int], object], result: Result
) -> None:
    places = set[str]()
    for index in indices:
        before(index)
        content = target.make(seed, index)
        if index % NEIGHBOR_EVERY == 0:
            faulthandler.dump_traceback_later(WALL_SECONDS, exit=True)
        accepted, failure = judge(target, content, index)
        result.inputs += 1
        result.accepted += accepted
        result.refused += not accepted and failure is None
        if failure is None and index % NEIGHBOR_EVERY == NEIGHBOR_EVERY - 1:
            fine, broken = judge(target, target.seeds[0], index)
            if not fine:
                failure = broken or Failure(target.name, index, "after it a valid input is refused")
        if failure is not None and (place := failure.where or failure.what) not in places:
            places.add(place)
            result.failures.append(failure)
            if len(places) >= MOST_FAILURES:
                break
