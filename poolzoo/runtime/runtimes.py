"""Judges a bundle in several runtimes, and compares the speed of those that agree with ONNX Runtime's."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np

from poolzoo.common import output
from poolzoo.common.errors import EnvironmentProblem
from poolzoo.plugin import loader, spec
from poolzoo.plugin.catalog import Entry
from poolzoo.runtime import availability, cases, gate, speed
from poolzoo.runtime.environment import Environment, current_environment, physical_cores
from poolzoo.runtime.gate import Judgment
from poolzoo.runtime.limits import Limits
from poolzoo.runtime.measurements import BenchRow
from poolzoo.runtime.prepare import Prepared, prepare
from poolzoo.runtime.process import CannotRunHere, RuntimeFailed, RuntimeProcess, WrongAnswer

ALL: Final = "all"
SECONDS: Final = 1.0  # of measurement at one batch size, of a runtime and ONNX Runtime together
SLOW: Final = 2.0  # seconds of a batch, above which it is not timed

Status = Literal["agrees", "wrong", "refused", "cannot run here", "not installed"]


@dataclass(frozen=True, kw_only=True)
class RuntimeResult:
    """What was found of a bundle in one runtime.

    Attributes:
        runtime: Its name.
        version: Its version in words; "" where it is not known.
        status: "agrees", "wrong", "refused", "cannot run here" or "not installed".
        detail: Why it does not agree, or how to get it; of one that agrees, how close it came to its limit.
        judgment: What the gate found; None where there was nothing to judge.
        startup_ms: Milliseconds of imports, opening, and the first image; None likewise.
        bytes: The size of what it reads; None likewise.
        changes: What was changed of the graph for it.
        speed: A row for each batch size; empty where it was not measured.
    """

    runtime: str
    version: str
    status: Status
    detail: str
    judgment: Judgment | None = None
    startup_ms: float | None = None
    bytes: int | None = None
    changes: tuple[str, ...] = ()
    speed: tuple[BenchRow, ...] = ()

    def to_json(self) -> dict[str, object]:
        """A row of `runtimes` in `verify --json`."""
        judgment = self.judgment
        return {
            "runtime": self.runtime,
            "version": self.version,
            "status": self.status,
            "detail": self.detail,
            "checks": [check.to_json() for check in judgment.checks] if judgment else [],
            "max_abs": judgment.max_abs if judgment else None,
            "allowed": judgment.allowed if judgment else None,
            "startup_ms": self.startup_ms,
            "bytes": self.bytes,
            "changes": list(self.changes),
            "speed": [row.to_json() for row in self.speed],
        }


@dataclass(frozen=True, kw_only=True)
class RuntimesReport:
    """The results of all runtimes, and what they were measured on.

    Attributes:
        results: In the order in which they were asked for.
        named: The names that were asked for; a runtime of these that does not agree is a failure.
        environment: The machine and its settings.
    """

    results: tuple[RuntimeResult, ...]
    named: tuple[str, ...]
    environment: Environment

    @property
    def failures(self) -> list[RuntimeResult]:
        """Those that are wrong, and those that were named and do not agree."""
        return [
            one
            for one in self.results
            if one.status == "wrong" or (one.status != "agrees" and one.runtime in self.named)
        ]

    def to_json(self) -> list[dict[str, object]]:
        """`runtimes` in `verify --json`."""
        return [one.to_json() for one in self.results]


def select(names: Sequence[str]) -> list[Entry]:
    """The runtimes of these names, "all" for every one there is; absent ones only where "all" means them.

    Raises:
        UsageError: There is no such runtime.
        EnvironmentProblem: One that is named is not installed.
    """
    catalog = loader.catalog()
    found: dict[str, Entry] = {}
    for name in names:
        if name == ALL:
            for entry in catalog.select(spec.Runtime):
                found.setdefault(entry.item.name, entry)
            continue
        entry = catalog.runtime(name)
        require_installed(entry)
        found[entry.item.name] = entry
    return list(found.values())


def require_installed(entry: Entry) -> None:
    """Makes sure that a runtime is installed.

    Raises:
        EnvironmentProblem: It is not.
    """
    runtime = runtime_of(entry)
    there = availability.find(runtime)
    if not there.installed:
        text = f"runtime {runtime.name} is not installed: {', '.join(there.missing)} cannot be found"
        raise EnvironmentProblem(text, runtime.install or "poolzoo list runtimes shows what is there")


def runtime_of(entry: Entry) -> spec.Runtime:
    """The runtime of an entry."""
    assert isinstance(entry.item, spec.Runtime)
    return entry.item


def check_runtimes(
    bundle: Path,
    names: Sequence[str],
    *,
    threads: int | None = None,
    precision: str = "fp32",
    timeout: float | None = None,
    measure_speed: bool = True,
    batches: Sequence[int] = speed.BATCHES,
) -> RuntimesReport:
    """Judges a bundle in runtimes, one after another, each in a process of its own.

    Args:
        bundle: The bundle's directory, whose files are as they were exported.
        names: Names of runtimes, or "all".
        threads: Threads to compute with; None for the physical cores that this process may use.
        precision: "fp32", or "auto" for what each runtime prefers.
        timeout: Seconds for opening, converting and each batch; None for `limits.SECONDS`.
        measure_speed: Whether to time those that agree.
        batches: The batch sizes to time.

    Raises:
        UsageError: There is no such runtime.
        EnvironmentProblem: One that is named is not installed.
        CheckFailed: The bundle's own data cannot be used.
    """
    entries = select(names)
    count = threads or physical_cores()
    made = cases.make_cases(bundle)
    results = []
    with ExitStack() as stack:
        lower = made.lower or precision != "fp32"
        timer = _Timer(bundle, made, count, batches, lower=lower, stack=stack) if measure_speed else None
        for entry in entries:
            if availability.find(runtime_of(entry)).installed:
                output.say(f"checking {entry.item.name}")
            found = _check(bundle, entry, made, count, precision, Limits.default(timeout), timer)
            results.append(_with_cause(bundle, entry, found))
    return RuntimesReport(
        results=tuple(results),
        named=tuple(name.rpartition(":")[2] for name in names if name != ALL),
        environment=current_environment(count),
    )


@contextmanager
def open_runtime(
    bundle: Path,
    entry: Entry,
    *,
    threads: int,
    device: str | None = None,
    precision: str = "fp32",
    limits: Limits | None = None,
) -> Iterator[tuple[RuntimeProcess, Prepared, float]]:
    """Within it, a session of a bundle in a runtime: its process, what it reads, and the milliseconds of opening it.

    Raises:
        RuntimeFailed: It does not open the graph.
    """
    with tempfile.TemporaryDirectory(prefix="poolzoo-") as work:
        prepared = prepare(bundle, entry, Path(work), limits=limits)
        with RuntimeProcess(entry, threads=threads, limits=limits) as process:
            yield (
                process,
                prepared,
                process.open(prepared.directory, device=device, precision=precision, batch=prepared.batch),
            )


def _check(
    bundle: Path,
    entry: Entry,
    made: cases.CaseSet,
    threads: int,
    precision: str,
    limits: Limits,
    timer: _Timer | None,
) -> RuntimeResult:
    runtime = runtime_of(entry)
    there = availability.find(runtime)
    if not there.installed:
        detail = runtime.install or f"needs {', '.join(there.missing)}"
        return RuntimeResult(runtime=runtime.name, version="", status="not installed", detail=detail)
    try:
        with open_runtime(bundle, entry, threads=threads, precision=precision, limits=limits) as opened:
            process, prepared, open_ms = opened
            judgment = gate.judge(process.run, made, precision=precision)
            failure = judgment.failure
            rows: tuple[BenchRow, ...] = ()
            if failure is None and timer is not None:
                rows = timer.measure(runtime.name, process)
    except CannotRunHere as error:
        detail = error.why.removeprefix("cannot run here: ")
        return RuntimeResult(runtime=runtime.name, version=there.version, status="cannot run here", detail=detail)
    except RuntimeFailed as error:
        status: Status = "wrong" if isinstance(error, WrongAnswer) else "refused"
        return RuntimeResult(runtime=runtime.name, version=there.version, status=status, detail=error.why)
    except EnvironmentProblem as error:
        detail = f"{error.message} ({error.hint})" if error.hint else error.message
        return RuntimeResult(runtime=runtime.name, version=there.version, status="refused", detail=detail)
    close = f"closest to its limit: {judgment.case}" if judgment.max_abs is not None else ""
    return RuntimeResult(
        runtime=runtime.name,
        version=there.version,
        status="agrees" if failure is None else "wrong",
        detail=close if failure is None else f"{failure.id}: {failure.detail}",
        judgment=judgment,
        startup_ms=round(open_ms + judgment.first_ms, 1),
        bytes=prepared.bytes,
        changes=prepared.changes,
        speed=rows,
    )


def _with_cause(bundle: Path, entry: Entry, result: RuntimeResult) -> RuntimeResult:
    """A result that does not agree with its cause in words, where the rules on runtimes know one."""
    if result.status not in ("wrong", "refused"):
        return result
    try:
        from poolzoo.runtime.portability import known_causes
    except ImportError:  # onnx is not installed
        return result
    causes = known_causes(bundle / "model.onnx", runtime_of(entry))
    if not causes:
        return result
    return replace(result, detail=f"{result.detail}; known of {result.runtime}: it {'; it '.join(causes)}")


class TimedRun:
    """Runs batches of the golden images in a session; gives the milliseconds measured there, and checks each answer."""

    def __init__(self, process: RuntimeProcess, golden: cases.Cases, size: int, *, lower: bool) -> None:
        self._process, self._golden, self._size, self._next = process, golden, size, 0
        self._allowed = golden.allowed.astype(np.float64)
        if lower:
            self._allowed = np.maximum(self._allowed, cases.LOWER * float(np.abs(golden.logits).max()))

    def __call__(self) -> float:
        """Runs the next batch.

        Raises:
            WrongAnswer: The answer is not that of the images, as it was when the session was judged.
        """
        rows = (self._next + np.arange(self._size)) % len(self._golden)
        self._next = (self._next + 1) % len(self._golden)
        answer = self._process.run(self._golden.images[rows])
        pairs = ((answer.logits, self._golden.logits), (answer.probabilities, self._golden.probabilities))
        apart = np.maximum(*(np.abs(found.astype(np.float64) - stored[rows]).max(1) for found, stored in pairs))
        if not (apart <= self._allowed[rows]).all():
            raise WrongAnswer(self._process.name, "answers something else while it is timed")
        return answer.ms


class _Timer:
    """Times sessions against one of ONNX Runtime, which is opened once."""

    def __init__(
        self,
        bundle: Path,
        made: cases.CaseSet,
        threads: int,
        batches: Sequence[int],
        *,
        lower: bool,
        stack: ExitStack,
    ) -> None:
        self._golden, self._threads, self._batches, self._lower = made.golden, threads, batches, lower
        reference = loader.catalog().runtime(f"poolzoo:{speed.ORT}")
        self._reference, _, _ = stack.enter_context(open_runtime(bundle, reference, threads=threads))

    def measure(self, name: str, process: RuntimeProcess) -> tuple[BenchRow, ...]:
        """The speed of a session at each batch size; a batch that takes longer than `SLOW` is left out."""
        rows = []
        for size in self._batches:
            ours = TimedRun(process, self._golden, size, lower=self._lower)
            if ours() > SLOW * 1e3:
                output.detail(f"{name} is not timed at batch {size}: one takes more than {SLOW:g} s")
                continue
            calls = {name: ours}
            if name != speed.ORT:
                calls[speed.ORT] = TimedRun(self._reference, self._golden, size, lower=self._lower)
            timed = speed.time_runtimes(calls, speed.ORT, self._threads, seconds=SECONDS, reported=True)
            rows += [BenchRow(row, size) for row in timed if row.runtime == name]
        return tuple(rows)


def least_speedup(result: RuntimeResult) -> float:
    """The least of a runtime's speed-ups over ONNX Runtime at the batch sizes that were timed; 0 where none was."""
    if result.runtime == speed.ORT:
        return 1.0
    return min((row.measurement.speedup["median"] for row in result.speed if row.measurement.speedup), default=0.0)


__all__ = [
    "RuntimeResult",
    "RuntimesReport",
    "TimedRun",
    "check_runtimes",
    "least_speedup",
    "open_runtime",
    "require_installed",
    "runtime_of",
    "select",
]
