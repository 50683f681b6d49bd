"""Measures a bundle's graph in several runtimes, each of which must first give the outputs that were stored."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime

from poolzoo.artifacts import manifest
from poolzoo.common import files, memory, output, timing
from poolzoo.common.errors import CheckFailed
from poolzoo.common.temporary import temporary_folder
from poolzoo.plugin import loader
from poolzoo.plugin.catalog import Entry
from poolzoo.runtime import availability, cases, gate, ort_session, speed, tolerance
from poolzoo.runtime.environment import Environment, current_environment, physical_cores
from poolzoo.runtime.limits import Limits
from poolzoo.runtime.measurements import BenchRow, PreprocessingTime
from poolzoo.runtime.prepare import Prepared, prepare
from poolzoo.runtime.process import RuntimeFailed, RuntimeProcess, WrongAnswer
from poolzoo.runtime.runtimes import ALL, identity_of, runtime_of, select
from poolzoo.runtime.timed_run import FreshBatches, References, TimedRun

PIXEL_BYTES: Final = 5  # as they are stored, and as a float
MAX_ROUNDS: Final = 1000  # of each runtime: enough for a 99th percentile where a batch takes a millisecond

Run = Callable[[np.ndarray], Sequence[np.ndarray]]  # images to logits and probabilities
MakeCall = Callable[[int], Callable[[], float]]  # from a batch size to a call that gives its milliseconds


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Whether a runtime gives the outputs that are stored in the bundle.

    Attributes:
        runtime: Its name.
        threads: How many it used.
        error: Why it is not measured; None where it passed.
        wrong: Whether it computes something else, rather than refusing the graph.
        version: Its version in words.
        max_abs, allowed: The difference and the tolerance of the image closest to its limit, where it passed.
    """

    runtime: str
    threads: int
    error: str | None = None
    wrong: bool = False
    version: str = ""
    max_abs: float | None = None
    allowed: float | None = None

    @property
    def passed(self) -> bool:
        """Whether it gives the stored outputs."""
        return self.error is None

    def to_json(self) -> dict[str, object]:
        """`{"runtime", "threads", "passed"}` with `error`, or with `max_abs` and `allowed`."""
        found: dict[str, object] = {"error": self.error}
        if self.passed:
            found = {"max_abs": self.max_abs, "allowed": self.allowed}
        return {
            "runtime": self.runtime,
            "threads": self.threads,
            "passed": self.passed,
            "version": self.version,
            **found,
        }


@dataclass(frozen=True, kw_only=True)
class BenchReport:
    """What `bench` found.

    Attributes:
        bundle: The directory, or the ONNX file.
        results: A row for each runtime that passed, batch size and thread count.
        agreement: A row for each runtime and thread count.
        preprocessing: What comes before the graph; None where it was not timed.
        environment: The machine, versions and settings.
    """

    bundle: str
    results: tuple[BenchRow, ...]
    agreement: tuple[Agreement, ...]
    preprocessing: PreprocessingTime | None
    environment: Environment

    def to_json(self) -> dict[str, object]:
        """What `bench --json` prints."""
        before = {} if self.preprocessing is None else {"preprocessing": self.preprocessing.to_json()}
        return {
            "bundle": self.bundle,
            "results": [row.to_json() for row in self.results],
            "agreement": [one.to_json() for one in self.agreement],
            **before,
            "environment": self.environment.to_json(),
        }


def bench(
    directory: Path,
    *,
    runtimes: Sequence[str] = (speed.ORT,),
    batches: Sequence[int] = speed.BATCHES,
    threads: Sequence[int] | None = None,
    provider: str = "auto",
    timeout: float | None = None,
    with_preprocessing: bool = True,
) -> BenchReport:
    """Measures a bundle in several runtimes, interleaved. Needs no torch.

    ONNX Runtime alone runs in this process. Of several runtimes each has a process of its own; see `timed_run`.

    Args:
        directory: The bundle.
        runtimes: Names of runtimes, or "all" for those that are installed.
        batches: Batch sizes.
        threads: Thread counts; None for one and all.
        provider: ONNX Runtime's: `auto`, `cpu`, `cuda` or `tensorrt`. The others compute on their default device.
        timeout: Seconds that a runtime may take for opening, converting and each batch; None for the default.
        with_preprocessing: Whether to time what comes before the graph.

    Raises:
        UsageError: There is no bundle, or no such runtime.
        CheckFailed: The bundle is damaged or altered, or its graph cannot be opened.
        EnvironmentProblem: A runtime is not installed, there is no device for the provider, or a batch does not fit
            into memory.
    """
    entries = [one for one in select(runtimes) if availability.find(runtime_of(one)).installed]
    manifest.check(directory, "bundle")
    file = directory / "model.onnx"
    images, *stored = files.read_arrays(directory / "golden.npz", ("images", "logits", "probabilities", "allowed"))
    cases.require_images(images)
    largest = max(batches)
    memory.require(f"the pixels of {largest:,} images", PIXEL_BYTES * largest * images[0].size, "use a smaller --batch")
    counts = sorted(set(threads)) if threads else speed.thread_counts(None, physical_cores(), provider)
    graphs = {count: ort_session.open_model(file, provider, count) for count in counts}
    first = graphs[counts[0]]
    environment = current_environment(counts[-1], first.provider)
    names = [identity_of(entry) for entry in entries]
    if "openvino" in names:
        entry = entries[names.index("openvino")]
        environment = replace(environment, openvino=availability.find(runtime_of(entry)).version)
    results: list[BenchRow] = []
    agreement: list[Agreement] = []
    with temporary_folder() as work:
        asked = {identity_of(loader.catalog().runtime(name)) for name in runtimes if name != ALL}
        limits = Limits.default(timeout)
        others = _Others(directory, work, limits, asked) if names != [speed.ORT] else None
        for count, graph in graphs.items():
            with ExitStack() as stack:
                passed: dict[str, MakeCall] = {}
                measured = None if others is None else others.reference(count, stack, _short_name(graph.provider))
                for name, entry in zip(names, entries, strict=True):
                    if name == speed.ORT:
                        row = _check_onnxruntime(graph, images, stored, count)
                        calls = _calls(graph.run, images)
                        if row.passed and measured is not None:
                            calls = measured.at
                    else:
                        assert others is not None
                        assert measured is not None
                        calls, row = others.check(entry, count, stack, measured)
                    agreement.append(row)
                    if row.passed:
                        passed[name] = calls
                for size in batches if passed else ():
                    output.say(f"measuring batch {size} on {count} {'thread' if count == 1 else 'threads'}")
                    made = {name: make(size) for name, make in passed.items()}
                    few = timing.FEW_ROUNDS
                    rows = speed.time_runtimes(made, speed.ORT, count, MAX_ROUNDS, reported=True, least=few)
                    _report_clocks(made)
                    results += [BenchRow(row, size) for row in rows]
    return BenchReport(
        bundle=str(directory),
        results=tuple(results),
        agreement=tuple(agreement),
        preprocessing=speed.time_preprocessing(images[0], first.fit) if with_preprocessing else None,
        environment=environment,
    )


def _report_clocks(calls: Mapping[str, Callable[[], float]]) -> None:
    """Warns of the runtimes whose own times cannot be."""
    for name, call in calls.items():
        if isinstance(call, TimedRun) and name != speed.ORT and (remark := call.clock_remark()):
            output.warn(f"runtime {name}: {remark}")


def _report_closing(process: RuntimeProcess) -> None:
    if process.close_problem:
        output.warn(f"runtime {process.name}: {process.close_problem}", "its measurements are not affected")


def _short_name(provider: str) -> str:
    return next(name for name, full in ort_session.PROVIDERS.items() if full == provider)


def _calls(run: Run, images: np.ndarray) -> MakeCall:
    """Calls of a session in this process."""

    def make(size: int) -> Callable[[], float]:
        batch = speed.make_batch(images, size)

        def call() -> float:
            started = time.perf_counter()
            run(batch)
            return (time.perf_counter() - started) * 1e3

        return call

    return make


class _Others:
    """Sessions in processes of their own. What a runtime reads is prepared once for all thread counts.

    One of ONNX Runtime is among them, whether it is measured or not: it shows what the pipes to the others cost.
    """

    def __init__(self, bundle: Path, work: Path, limits: Limits, named: Collection[str]) -> None:
        self._bundle = bundle
        self._named = named  # runtimes that the user asks for, whose programs in the bundle are run
        self._work = work
        self._limits = limits
        self._cases = cases.make_cases(bundle)
        self._fresh = FreshBatches(bundle, self._cases.golden, lower=self._cases.lower)
        self._prepared: dict[str, Prepared] = {}

    def reference(self, threads: int, stack: ExitStack, device: str) -> References:
        """Opens ONNX Runtime in a process."""
        entry = loader.catalog().runtime(f"poolzoo:{speed.ORT}")
        return References(self._open(entry, threads, stack, device=device), self._fresh)

    def _open(self, entry: Entry, threads: int, stack: ExitStack, *, device: str | None = None) -> RuntimeProcess:
        """Opens a session.

        Raises:
            RuntimeFailed: The runtime refuses the graph.
        """
        name = identity_of(entry)
        if name not in self._prepared:
            place = self._work / name.replace(":", "+")
            may_run = name in self._named
            self._prepared[name] = prepare(self._bundle, entry, place, limits=self._limits, run_stored=may_run)
        process = RuntimeProcess(entry, threads=threads, limits=self._limits)
        made = self._prepared[name]
        stack.callback(_report_closing, process)  # after its end
        stack.enter_context(process)
        process.open(made.directory, device=device, batch=made.batch)
        return process

    def check(self, entry: Entry, threads: int, stack: ExitStack, references: References) -> tuple[MakeCall, Agreement]:
        """Opens a session and judges it; it stays open in `stack` where it agrees."""
        name, version = identity_of(entry), availability.find(runtime_of(entry)).version
        with ExitStack() as own:
            try:
                process = self._open(entry, threads, own)
                judgment = gate.judge(process.run, self._cases)
            except CheckFailed as error:
                wrong = isinstance(error, WrongAnswer) or not isinstance(error, RuntimeFailed)
                row = Agreement(runtime=name, threads=threads, error=_why(error), wrong=wrong, version=version)
                return _no_calls, row
            if judgment.failure is not None:
                text = f"{judgment.failure.id}: {judgment.failure.detail}"
                return _no_calls, Agreement(runtime=name, threads=threads, error=text, wrong=True, version=version)
            stack.push(own.pop_all())
        return lambda size: references.other(process, size), Agreement(
            runtime=name, threads=threads, version=version, max_abs=judgment.max_abs, allowed=judgment.allowed
        )


def _why(error: CheckFailed) -> str:
    return error.why if isinstance(error, RuntimeFailed) else error.message


def _no_calls(size: int) -> Callable[[], float]:
    raise ValueError(f"a session that failed is not timed at batch {size}")


def _check_onnxruntime(
    graph: ort_session.OnnxModel, images: np.ndarray, stored: Sequence[np.ndarray], threads: int
) -> Agreement:
    version = onnxruntime.__version__
    try:
        difference, allowed = _compare(graph.run, images, stored)
    except Exception as error:  # ONNX Runtime's exceptions share no public base class
        text = str(error)[:300]
        return Agreement(runtime=speed.ORT, threads=threads, error=text, wrong=True, version=version)
    return Agreement(runtime=speed.ORT, threads=threads, version=version, max_abs=difference, allowed=allowed)


def _compare(run: Run, images: np.ndarray, stored: Sequence[np.ndarray]) -> tuple[float, float]:
    """The difference and the tolerance of the image closest to its limit.

    Args:
        run: Runs a batch.
        images: The golden images, `uint8[N, H, W, 3]`.
        stored: Their logits, probabilities and tolerances.

    Raises:
        CheckFailed: The outputs are not those that are stored.
        Exception: Whatever the runtime raises.
    """
    *expected, allowed = stored
    outputs = [np.asarray(part, np.float64) for part in run(images)]
    shapes = [part.shape for part in outputs]
    if shapes != [part.shape for part in expected]:
        raise CheckFailed(f"its outputs are {shapes}, those that are stored are {expected[0].shape}")
    if not all(np.isfinite(part).all() for part in expected):
        raise CheckFailed("the outputs to compare with hold NaN or infinity")
    distance = tolerance.apart(outputs, expected)
    worst, _ = tolerance.closest_to_limit(distance, allowed)
    if not (distance <= allowed).all():
        text = f"it differs by {distance[worst]:.2e} from what is stored, {allowed[worst]:.2e} is allowed"
        raise CheckFailed(text)
    return float(distance[worst]), float(allowed[worst])
