"""Judges a bundle in several runtimes, and compares the speed of those that agree with ONNX Runtime's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from poolzoo.common import output
from poolzoo.common.errors import EnvironmentProblem
from poolzoo.common.temporary import temporary_folder
from poolzoo.plugin import loader, spec
from poolzoo.plugin.catalog import Entry
from poolzoo.runtime import availability, cases, gate, speed
from poolzoo.runtime.environment import current_environment, physical_cores
from poolzoo.runtime.limits import Limits
from poolzoo.runtime.measurements import BenchRow
from poolzoo.runtime.prepare import Prepared, prepare
from poolzoo.runtime.process import CannotRunHere, RuntimeFailed, RuntimeProcess, WrongAnswer
from poolzoo.runtime.runtime_results import RuntimeResult, RuntimesReport, Status, least_speedup
from poolzoo.runtime.timed_run import FreshBatches, References, host_speedup

ALL: Final = "all"
SECONDS: Final = 1.0  # of measurement at one batch size, of a runtime and ONNX Runtime together
SLOW: Final = 2.0  # seconds of a batch, above which it is not timed


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
                found.setdefault(identity_of(entry), entry)
            continue
        entry = catalog.runtime(name)
        require_installed(entry)
        found[identity_of(entry)] = entry
    return list(found.values())


def require_installed(entry: Entry) -> None:
    """Makes sure that a runtime is installed.

    Raises:
        EnvironmentProblem: It is not.
    """
    runtime = runtime_of(entry)
    there = availability.find(runtime)
    if not there.installed:
        text = f"runtime {identity_of(entry)} is not installed: {', '.join(there.missing)} cannot be found"
        raise EnvironmentProblem(text, runtime.install or "poolzoo list runtimes shows what is there")


def runtime_of(entry: Entry) -> spec.Runtime:
    """The runtime of an entry."""
    assert isinstance(entry.item, spec.Runtime)
    return entry.item


def identity_of(entry: Entry) -> str:
    """The name of a runtime in tables, reports and bundles: with its distribution where another one has that name."""
    return loader.catalog().identity(entry)


def reference_of(entry: Entry) -> str:
    """What a user types to mean a runtime, whatever is preferred: its identity unless that means another one now."""
    identity, catalog = identity_of(entry), loader.catalog()
    means_it = catalog.runtime(identity).source == entry.source
    return identity if means_it else f"{entry.source.dist}:{entry.item.name}"


def find_recorded(name: str) -> Entry:
    """The installed runtime that a bundle or plan names by its identity.

    Raises:
        UsageError: There is no such runtime.
        EnvironmentProblem: It is not installed.
    """
    catalog = loader.catalog()
    known = (entry for entry in catalog.select(spec.Runtime) if identity_of(entry) == name)
    entry = next(known, None) or catalog.runtime(name)
    require_installed(entry)
    return entry


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
    named = [identity_of(loader.catalog().runtime(name)) for name in names if name != ALL]
    with ExitStack() as stack:
        lower = made.lower or precision != "fp32"
        timer = _Timer(bundle, made, count, batches, lower=lower, stack=stack) if measure_speed else None
        for entry in entries:
            if availability.find(runtime_of(entry)).installed:
                output.say(f"checking {identity_of(entry)}")
            limits, run_stored = Limits.default(timeout), identity_of(entry) in named
            found = _check(bundle, entry, made, count, precision, limits, timer, run_stored=run_stored)
            for remark in found.remarks:
                output.warn(f"runtime {found.runtime}: {remark}", "whether it agrees is not affected")
            results.append(_with_cause(bundle, entry, found))
    return RuntimesReport(
        results=tuple(results),
        named=tuple(named),
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
    run_stored: bool = False,
) -> Iterator[tuple[RuntimeProcess, Prepared, float]]:
    """Within it, a session of a bundle in a runtime: its process, what it reads, and the milliseconds of opening it.

    `run_stored` is that of `prepare`.

    Raises:
        RuntimeFailed: It does not open the graph.
    """
    with temporary_folder() as work:
        prepared = prepare(bundle, entry, work, limits=limits, run_stored=run_stored)
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
    *,
    run_stored: bool,
) -> RuntimeResult:
    runtime, name = runtime_of(entry), identity_of(entry)
    there = availability.find(runtime)
    if not there.installed:
        detail = runtime.install or f"needs {', '.join(there.missing)}"
        return RuntimeResult(runtime=name, version="", status="not installed", detail=detail)
    try:
        with open_runtime(
            bundle, entry, threads=threads, precision=precision, limits=limits, run_stored=run_stored
        ) as opened:
            process, prepared, open_ms = opened
            judgment = gate.judge(process.run, made, precision=precision)
            failure = judgment.failure
            speeds = Speeds()
            if failure is None and timer is not None:
                speeds = timer.measure(name, process)
    except CannotRunHere as error:
        detail = error.why.removeprefix("cannot run here: ")
        return RuntimeResult(runtime=name, version=there.version, status="cannot run here", detail=detail)
    except RuntimeFailed as error:
        status: Status = "wrong" if isinstance(error, WrongAnswer) else "refused"
        return RuntimeResult(runtime=name, version=there.version, status=status, detail=error.why)
    except EnvironmentProblem as error:
        detail = f"{error.message} ({error.hint})" if error.hint else error.message
        return RuntimeResult(runtime=name, version=there.version, status="refused", detail=detail)
    close = f"closest to its limit: {judgment.case}" if judgment.max_abs is not None else ""
    return RuntimeResult(
        runtime=name,
        version=there.version,
        status="agrees" if failure is None else "wrong",
        detail=close if failure is None else f"{failure.id}: {failure.detail}",
        judgment=judgment,
        startup_ms=round(open_ms + judgment.first_ms, 1),
        bytes=prepared.bytes,
        changes=prepared.changes,
        speed=speeds.rows,
        host_speedup=speeds.host_speedup,
        remarks=tuple(filter(None, (speeds.remark, process.close_problem))),
    )


def _with_cause(bundle: Path, entry: Entry, result: RuntimeResult) -> RuntimeResult:
    """A result that does not agree with its cause in words, where the rules on runtimes know one."""
    if result.status not in ("wrong", "refused"):
        return result
    try:
        from poolzoo.runtime.portability import known_causes
    except ImportError:  # onnx is not installed
        return result
    causes = known_causes(bundle / "model.onnx", identity_of(entry), runtime_of(entry).form)
    if not causes:
        return result
    return replace(result, detail=f"{result.detail}; known of {result.runtime}: it {'; it '.join(causes)}")


@dataclass(frozen=True)
class Speeds:
    """The speed of a session at each batch size, the least speed-up that the host sees, and a remark on its clock."""

    rows: tuple[BenchRow, ...] = ()
    host_speedup: float | None = None
    remark: str = ""


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
        self._threads = threads
        reference = loader.catalog().runtime(f"poolzoo:{speed.ORT}")
        process, _, _ = stack.enter_context(open_runtime(bundle, reference, threads=threads))
        self._references = References(process, FreshBatches(bundle, made.golden, lower=lower))
        self._batches = batches

    def measure(self, name: str, process: RuntimeProcess) -> Speeds:
        """The speed of a session at each batch size; a batch that takes longer than `SLOW` is left out."""
        rows, by_host, remarks = [], [], []
        for size in self._batches:
            reference, ours = self._references.at(size), self._references.other(process, size)
            if ours() > SLOW * 1e3:
                output.detail(f"{name} is not timed at batch {size}: one takes more than {SLOW:g} s")
                continue
            calls = {name: ours}
            if name != speed.ORT:
                calls[speed.ORT] = reference
            timed = speed.time_runtimes(calls, speed.ORT, self._threads, seconds=SECONDS, reported=True)
            row = next(one for one in timed if one.runtime == name)
            rows.append(BenchRow(row, size))
            if name != speed.ORT:
                by_host.append(host_speedup(reference, ours, row.rounds))
                remarks.append(ours.clock_remark())
        return Speeds(tuple(rows), min(by_host, default=None), next(filter(None, remarks), ""))


__all__ = [
    "RuntimeResult",
    "RuntimesReport",
    "check_runtimes",
    "find_recorded",
    "identity_of",
    "least_speedup",
    "open_runtime",
    "reference_of",
    "require_installed",
    "runtime_of",
    "select",
]
