"""Measures a bundle's graph in several runtimes, each of which must first give the outputs that were stored."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from poolzoo.artifacts import manifest
from poolzoo.common import files, output
from poolzoo.common.errors import CheckFailed, EnvironmentProblem, UsageError
from poolzoo.plugin.grammar import suggest
from poolzoo.runtime import ort_session, speed, tolerance
from poolzoo.runtime.environment import Environment, current_environment, physical_cores
from poolzoo.runtime.measurements import Measurement, PreprocessingTime

RUNTIMES: Final = (speed.ORT, "openvino")
MAX_ROUNDS: Final = 1000  # of each runtime: enough for a 99th percentile where a batch takes a millisecond

Run = Callable[[np.ndarray], Sequence[np.ndarray]]  # images to logits and probabilities


@dataclass(frozen=True)
class BenchRow:
    """The time of a batch of `batch` images in one runtime."""

    measurement: Measurement
    batch: int

    @property
    def images_per_s(self) -> float:
        """Images a second at the median time."""
        return round(self.batch / self.measurement.median_ms * 1e3, 1)

    def to_json(self) -> dict[str, object]:
        """The measurement's keys, `batch` and `images_per_s`."""
        return {**self.measurement.to_json(), "batch": self.batch, "images_per_s": self.images_per_s}


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Whether a runtime gives the outputs that are stored in the bundle.

    Attributes:
        runtime: Its name.
        threads: How many it used.
        error: Why it is not measured; None where it passed.
        max_abs, allowed: The difference and the tolerance of the image closest to its limit, where it passed.
    """

    runtime: str
    threads: int
    error: str | None = None
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
        return {"runtime": self.runtime, "threads": self.threads, "passed": self.passed, **found}


@dataclass(frozen=True, kw_only=True)
class BenchReport:
    """What `bench` found.

    Attributes:
        bundle: The directory.
        results: A row for each runtime that passed, batch size and thread count.
        agreement: A row for each runtime and thread count.
        preprocessing: What comes before the graph.
        environment: The machine, versions and settings.
    """

    bundle: str
    results: tuple[BenchRow, ...]
    agreement: tuple[Agreement, ...]
    preprocessing: PreprocessingTime
    environment: Environment

    def to_json(self) -> dict[str, object]:
        """What `bench --json` prints."""
        return {
            "bundle": self.bundle,
            "results": [row.to_json() for row in self.results],
            "agreement": [one.to_json() for one in self.agreement],
            "preprocessing": self.preprocessing.to_json(),
            "environment": self.environment.to_json(),
        }


def bench(
    directory: Path,
    *,
    runtimes: Sequence[str] = RUNTIMES[:1],
    batches: Sequence[int] = speed.BATCHES,
    threads: Sequence[int] | None = None,
    provider: str = "auto",
) -> BenchReport:
    """Measures a bundle in several runtimes, interleaved. Needs no torch.

    Args:
        directory: The bundle.
        runtimes: Of `RUNTIMES`.
        batches: Batch sizes.
        threads: Thread counts; None for one and all.
        provider: ONNX Runtime's: `auto`, `cpu`, `cuda` or `tensorrt`. OpenVINO always computes on the CPU.

    Raises:
        UsageError: There is no bundle, or no such runtime.
        CheckFailed: The bundle is damaged or altered, or its graph cannot be opened.
        EnvironmentProblem: A runtime is not installed, or there is no device for the provider.
    """
    _require(runtimes)
    manifest.check(directory, "bundle")
    file = directory / "model.onnx"
    images, *stored = files.read_arrays(directory / "golden.npz", ("images", "logits", "probabilities", "allowed"))
    if images.dtype != np.uint8 or images.ndim != 4 or not len(images):
        found = f"{images.dtype}{list(images.shape)}"
        raise CheckFailed(f"golden.npz holds {found}, no images uint8[N, height, width, 3]", "export it again")
    counts = sorted(set(threads)) if threads else speed.thread_counts(None, physical_cores(), provider)
    graphs = {count: ort_session.open_model(file, provider, count) for count in counts}
    first = graphs[counts[0]]
    environment = current_environment(counts[-1], first.provider)
    if "openvino" in runtimes:
        environment = replace(environment, openvino=_openvino_version())
    results: list[BenchRow] = []
    agreement: list[Agreement] = []
    for count, graph in graphs.items():
        passed: dict[str, Run] = {}
        for name in runtimes:
            try:
                run = _open_openvino(directory, count) if name == "openvino" else graph.run
                difference, allowed = _compare(run, images, stored)
            except Exception as error:  # each runtime raises its own types
                agreement.append(Agreement(runtime=name, threads=count, error=str(error)[:300]))
            else:
                agreement.append(Agreement(runtime=name, threads=count, max_abs=difference, allowed=allowed))
                passed[name] = run
        for size in batches if passed else ():
            output.say(f"measuring batch {size} on {count} {'thread' if count == 1 else 'threads'}")
            batch = speed.make_batch(images, size)
            calls = {name: partial(run, batch) for name, run in passed.items()}
            rows = speed.time_runtimes(calls, speed.ORT, count, MAX_ROUNDS)
            results += [BenchRow(row, size) for row in rows]
    return BenchReport(
        bundle=str(directory),
        results=tuple(results),
        agreement=tuple(agreement),
        preprocessing=speed.time_preprocessing(images[0], first.fit),
        environment=environment,
    )


def _require(runtimes: Sequence[str]) -> None:
    for name in runtimes:
        if name not in RUNTIMES:
            near = suggest(name, RUNTIMES) or f"there are: {', '.join(RUNTIMES)}"
            raise UsageError(f"no runtime is called {name!r}", near)
    if "openvino" in runtimes and importlib.util.find_spec("openvino") is None:
        raise EnvironmentProblem("OpenVINO is not installed", "pip install 'poolzoo[openvino]'")


def _open_openvino(directory: Path, threads: int) -> Run:
    from poolzoo.runtime.builtin import openvino

    return openvino.open_session(directory, threads=threads, device="cpu", precision="fp32")


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
    distance = np.maximum(*(np.abs(a - b).max(1) for a, b in zip(outputs, expected, strict=True)))
    worst, _ = tolerance.closest_to_limit(distance, allowed)
    if not (distance <= allowed).all():  # nor where there is a NaN
        text = f"it differs by {distance[worst]:.2e} from what is stored, {allowed[worst]:.2e} is allowed"
        raise CheckFailed(text)
    return float(distance[worst]), float(allowed[worst])


def _openvino_version() -> str:
    from importlib.metadata import version

    return version("openvino")
