"""A bundle's graph in several runtimes side by side, each of which must first give the outputs that were stored."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from poolzoo.artifacts import manifest
from poolzoo.common import files, output
from poolzoo.common.errors import CheckFailed, EnvironmentProblem, UsageError
from poolzoo.plugin.grammar import suggest
from poolzoo.runtime import ort_session, speed, tolerance

RUNTIMES: Final = (speed.ORT, "openvino")
ROUNDS: Final = 1000  # at most, of each arm: enough for a 99th percentile where a batch takes a millisecond

Run = Callable[[np.ndarray], Sequence[np.ndarray]]  # images to logits and probabilities


def bench(
    directory: Path,
    *,
    runtimes: Sequence[str] = RUNTIMES[:1],
    batches: Sequence[int] = speed.BATCHES,
    threads: Sequence[int] | None = None,
    provider: str = "auto",
) -> dict[str, Any]:
    """Measures a bundle in several runtimes, interleaved. Needs no torch.

    Args:
        directory: The bundle.
        runtimes: Of `RUNTIMES`.
        batches: Batch sizes.
        threads: Thread counts; None for one and all.
        provider: ONNX Runtime's: `auto`, `cpu`, `cuda` or `tensorrt`. OpenVINO always computes on the CPU.

    Returns:
        `{"bundle", "results", "agreement", "preprocessing", "environment"}`. `results` has a row of `speed.cell` with
        `batch` and `images_per_s` for each runtime that gives the stored outputs, with `speedup` over ONNX Runtime;
        `agreement` says of each whether it does, `{"runtime", "threads", "passed"}` with `max_abs` and `allowed`, or
        with `error`.

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
    counts = sorted(set(threads)) if threads else speed.thread_counts(None, speed.cores(), provider)
    graphs = {count: ort_session.open_model(file, provider, count) for count in counts}
    first = graphs[counts[0]]
    conditions = speed.environment(counts[-1], first.provider)
    results, agreement = [], []
    for count, graph in graphs.items():
        right: dict[str, Run] = {}
        for name in runtimes:
            try:
                run = _openvino(file, graph, count) if name == "openvino" else graph.run
                verdict = _compare(run, images, *stored)
            except Exception as error:  # each runtime has its own
                verdict = {"passed": False, "error": str(error)[:300]}
            agreement.append({"runtime": name, "threads": count, **verdict})
            if verdict["passed"]:
                right[name] = run
        for size in batches if right else ():
            output.say(f"measuring batch {size} on {count} {'thread' if count == 1 else 'threads'}")
            batch = speed.take(images, size)
            calls = {name: speed.call_with(run, batch) for name, run in right.items()}
            for row in speed.cell(calls, speed.ORT, count, ROUNDS):
                results.append({**row, "batch": size, "images_per_s": round(size / row["median_ms"] * 1e3, 1)})
    return {
        "bundle": str(directory),
        "results": results,
        "agreement": agreement,
        "preprocessing": speed.preprocessing(images[0], first.fit),
        "environment": {**conditions, **_versions(runtimes)},
    }


def _require(runtimes: Sequence[str]) -> None:
    for name in runtimes:
        if name not in RUNTIMES:
            near = suggest(name, RUNTIMES) or f"there are: {', '.join(RUNTIMES)}"
            raise UsageError(f"no runtime is called {name!r}", near)
    if "openvino" in runtimes and importlib.util.find_spec("openvino") is None:
        raise EnvironmentProblem("OpenVINO is not installed", "pip install 'poolzoo[openvino]'")


def _openvino(file: Path, graph: ort_session.OnnxModel, threads: int) -> Run:
    """The graph in OpenVINO, as exact as in ONNX Runtime (bfloat16 is its own choice on some CPUs)."""
    import openvino

    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = openvino.Core().compile_model(file, "CPU", settings)

    def run(images: np.ndarray) -> Sequence[np.ndarray]:
        found = compiled({"images": graph.to_input(images)})
        return found["logits"], found["probabilities"]

    return run


def _compare(
    run: Run, images: np.ndarray, logits: np.ndarray, probabilities: np.ndarray, allowed: np.ndarray
) -> dict[str, Any]:
    """How far a runtime's outputs are from those that were stored, against what is allowed for each image."""
    found = [np.asarray(part, np.float64) for part in run(images)]
    shapes = [part.shape for part in found]
    if shapes != [logits.shape, probabilities.shape]:
        return {"passed": False, "error": f"its outputs are {shapes}, those that are stored are {logits.shape}"}
    distance = np.maximum(*(np.abs(a - b).max(1) for a, b in zip(found, (logits, probabilities), strict=True)))
    worst, _ = tolerance.nearest(distance, allowed)
    largest, limit = float(distance[worst]), float(allowed[worst])
    if not (distance <= allowed).all():  # nor where there is a NaN
        return {"passed": False, "error": f"it differs by {largest:.2e} from what is stored, {limit:.2e} is allowed"}
    return {"passed": True, "max_abs": largest, "allowed": limit}


def _versions(runtimes: Sequence[str]) -> dict[str, str]:
    if "openvino" not in runtimes:
        return {}
    from importlib.metadata import version

    return {"openvino": version("openvino")}
