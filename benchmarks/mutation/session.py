"""A pytest session that runs its tests once, and then those of each mutant again in a forked process.

Modules stay imported and session fixtures made. A fork costs milliseconds, so that a mutant costs what its tests cost.
"""

from __future__ import annotations

import functools
import gc
import os
import resource
import select
import shutil
import signal
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, Final, Literal

import coverage
import pytest
from _pytest.runner import runtestprotocol

from benchmarks.mutation.mutants import Mutant, place

Verdict = Literal["killed", "timeout", "survived", "uncovered"]
FIXTURE: Final = "fixture "  # what a session fixture executes, under its name
REMADE: Final = 4  # tests that make session fixtures anew where nothing else noticed
FILE_BYTES: Final = 1 << 29
MEMORY: Final = 8 << 30  # what a mutant may add
TIMES: Final = 5  # how much slower than usual a test may be
REMAKING: Final = 10.0  # CPU seconds that session fixtures take
WALL: Final = 60.0  # seconds that a test may wait for anything


@dataclass(frozen=True)
class Result:
    """What became of a mutant.

    Attributes:
        mutant: The mutant.
        verdict: `uncovered` where no test executes the line.
        test: The test that noticed it.
        tests: How many ran.
    """

    mutant: Mutant
    verdict: Verdict
    test: str | None
    tests: int

    def to_json(self) -> dict[str, object]:
        one = self.mutant
        return {
            "path": str(one.path),
            "line": one.line,
            "function": one.function,
            "before": one.before,
            "after": one.after,
            "verdict": self.verdict,
            "test": self.test,
            "tests": self.tests,
        }


class MutationSession:
    """The plugin.

    Args:
        mutants: Those to try.
        folders: Where lines are measured.
        seconds: CPU seconds of tests that a mutant may survive; more are not run.
        jobs: Processes at once.
        report: Called with each result.
    """

    def __init__(
        self,
        mutants: Sequence[Mutant],
        folders: Sequence[Path],
        seconds: float,
        jobs: int,
        report: Callable[[Result], None],
    ) -> None:
        self._mutants = mutants
        self._seconds = seconds
        self._jobs = jobs
        self._report = report
        self._coverage = coverage.Coverage(
            data_file=None, include=[f"{one.absolute()}/*" for one in folders], config_file=False
        )
        self._running = ""
        self._cost: dict[str, float] = {}
        self._sound: dict[str, bool] = {}
        self._caches: list[Any] = []
        self.unfit: list[str] = []
        self.trying = 0.0

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        if fixturedef.scope != "session" or not self._running:
            return (yield)
        self._coverage.switch_context(FIXTURE + fixturedef.argname)
        try:
            return (yield)
        finally:
            self._coverage.switch_context(self._running)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Takes the place of pytest's own loop."""
        self._record(session.items)
        functions, self._caches = _functions(), _caches()
        by_line = self._tests_by_line()
        items = {item.nodeid: item for item in session.items if item.nodeid in self._cost}
        gc.collect()
        gc.freeze()
        start = time.monotonic()
        self._in_parallel(items, by_line, functions)
        self.trying = time.monotonic() - start
        return True

    def _record(self, items: Sequence[pytest.Item]) -> None:
        self._coverage.start()
        for item in items:
            self._running = item.nodeid
            self._coverage.switch_context(item.nodeid)
            start = _cpu()
            if _passes(item, _elsewhere(item)):
                self._cost[item.nodeid] = _cpu() - start
            else:
                self.unfit.append(item.nodeid)
        self._running = ""
        self._coverage.stop()

    def _tests_by_line(self) -> dict[tuple[str, int], set[str]]:
        found: dict[tuple[str, int], set[str]] = defaultdict(set)
        data = self._coverage.get_data()
        for name in data.measured_files():
            for line, contexts in data.contexts_by_lineno(name).items():
                found[name, line].update(contexts)
        return found

    def _in_parallel(self, items: Any, by_line: Any, functions: Any) -> None:
        """Shares the mutants among processes."""
        workers = []
        for index in range(self._jobs):
            if (worker := os.fork()) == 0:
                try:
                    self._try_all(self._mutants[index :: self._jobs], items, by_line, functions, index)
                except BaseException:
                    traceback.print_exc(file=sys.__stderr__)
                    os._exit(1)
                os._exit(0)
            workers.append(worker)
        for worker in workers:
            os.waitpid(worker, 0)

    def _try_all(
        self,
        mutants: Iterable[Mutant],
        items: dict[str, pytest.Item],
        by_line: dict[tuple[str, int], set[str]],
        functions: dict[tuple[str, str, int], list[FunctionType]],
        index: int,
    ) -> None:
        factory = next(iter(items.values())).config._tmp_path_factory  # type: ignore[attr-defined]
        folder = factory.getbasetemp() / f"mutants-{index}"
        factory._basetemp = folder
        for mutant in mutants:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            self._report(self._try(mutant, items, by_line, functions))

    def _try(self, mutant: Mutant, items: Any, by_line: Any, functions: Any) -> Result:
        path = str(mutant.path.absolute())
        names = set().union(*(by_line.get((path, line), ()) for line in mutant.lines))
        remade = {name.removeprefix(FIXTURE) for name in names if name.startswith(FIXTURE)}
        chosen = sorted((name for name in names if name in items), key=self._cost.__getitem__)
        again = [name for name in items if name not in names and remade & {*items[name].fixturenames}]
        again = [name for name in chosen if remade & {*items[name].fixturenames}] + again
        again.sort(key=self._cost.__getitem__)
        live = functions.get((path, mutant.function, mutant.first_line), [])
        if not live or not (chosen or again):
            return Result(mutant, "uncovered", None, 0)
        code = mutant.code()
        for names, anew in ((self._affordable(chosen), False), (again[:REMADE], True)):
            tried = 0
            while names:
                verdict, by = self._fork(names, items, live, code, anew)
                tried = len(names)
                if verdict == "survived" or self._is_sound(by, items, anew):
                    break
                names.remove(by)
            if names and verdict != "survived":
                return Result(mutant, verdict, by, tried)
        return Result(mutant, "survived", None, len(chosen))

    def _affordable(self, names: list[str]) -> list[str]:
        """The cheapest tests, at least one."""
        total, found = 0.0, []
        for name in names:
            total += self._cost[name]
            if found and total > self._seconds:
                break
            found.append(name)
        return found

    def _is_sound(self, name: str, items: Any, anew: bool) -> bool:
        """Whether a test passes in a fork that changes nothing: only then is its failure the mutant's."""
        key = f"{name} {anew}"
        if key not in self._sound:
            self._sound[key] = self._fork([name], items, [], None, anew)[0] == "survived"
        return self._sound[key]

    def _fork(
        self, names: list[str], items: Any, live: list[FunctionType], code: CodeType | None, anew: bool
    ) -> tuple[Verdict, str]:
        """Runs tests in a fork until one fails, and returns which."""
        read, write = os.pipe()
        seconds = {name: self._cost[name] + (REMAKING if anew else 0) for name in names}
        process = os.fork()
        if process == 0:
            os.setpgid(0, 0)
            os.close(read)
            _child([items[name] for name in names], live, code, self._caches, write, seconds, anew)
        os.close(write)
        begun, ended = _follow(process, read, seconds)
        status = _end(process, ended)
        if status == 0:
            return "survived", ""
        name = begun[-1] if begun else names[0]
        return ("timeout" if status is None or status == -signal.SIGXCPU else "killed"), name


def _child(
    items: list[pytest.Item],
    live: list[FunctionType],
    code: CodeType | None,
    caches: list[Any],
    write: int,
    seconds: dict[str, float],
    anew: bool,
) -> None:
    status = 1
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
        silent = os.open(os.devnull, os.O_RDWR)
        for stream in (1, 2):
            os.dup2(silent, stream)
        for cache in caches:
            cache.cache_clear()
        if code is not None:
            for function in live:
                function.__code__ = code
        if anew:
            items[0].session._setupstate.teardown_exact(None)
        for item in items:
            _, hard = resource.getrlimit(resource.RLIMIT_CPU)
            until = int(time.process_time() + 3 + TIMES * seconds[item.nodeid])
            resource.setrlimit(resource.RLIMIT_CPU, (until, hard))
            os.write(write, f"{item.nodeid}\n".encode())
            if not _passes(item, _elsewhere(item)):
                break
        else:
            status = 0
    finally:
        os._exit(status)


def _follow(process: int, read: int, seconds: dict[str, float]) -> tuple[list[str], bool]:
    """Which tests began, and whether the process ended: no test may take forty times as long by the clock."""
    text, until, ended = b"", time.monotonic() + WALL, os.pidfd_open(process)
    begun: list[str] = []
    try:
        while (left := until - time.monotonic()) > 0:
            ready = select.select([read, ended], [], [], left)[0]
            if read in ready and (more := os.read(read, 1 << 16)):
                text += more
                begun = text.decode().splitlines()
                until = time.monotonic() + WALL + 8 * TIMES * seconds.get(begun[-1], 0)
            elif ready:  # all that it wrote is read
                return begun, True
        return begun, False
    finally:
        os.close(read)
        os.close(ended)


def _end(process: int, ended: bool) -> int | None:
    """The exit status, negative for a signal; None where the time was up. Ends all descendants."""
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) if ended else None
    with suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)
    if not ended:
        os.waitpid(process, 0)
    return status


def _cpu() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _passes(item: pytest.Item, following: pytest.Item | None) -> bool:
    item.session._setupstate.teardown_exact(item)  # a folder or module that the test before kept for another one
    return not any(report.failed for report in runtestprotocol(item, log=False, nextitem=following))


def _elsewhere(item: pytest.Item) -> pytest.Item | None:
    """A test of another module: where it comes next, fixtures of the session stay."""
    return next((one for one in item.session.items if one.path != item.path), None)


def _functions() -> dict[tuple[str, str, int], list[FunctionType]]:
    """All functions that there are, by file, name and line."""
    gc.unfreeze()
    found: dict[tuple[str, str, int], list[FunctionType]] = defaultdict(list)
    for one in gc.get_objects():
        if type(one) is FunctionType:
            found[one.__code__.co_filename, *place(one.__code__)].append(one)
    return found


def _caches() -> list[Any]:
    """What functions of the package computed before: a fork forgets it."""
    return [
        one
        for one in gc.get_objects()
        if type(one) is functools._lru_cache_wrapper and (one.__module__ or "").startswith("poolzoo.")
    ]
