"""Measures an ONNX file from elsewhere in several runtimes, as `bench` does a bundle. Needs onnx, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from poolzoo.data.sizes import Size
from poolzoo.runtime import speed
from poolzoo.runtime.bench import BenchReport, bench
from poolzoo.runtime.foreign.bundle import own_bundle
from poolzoo.runtime.foreign.classifier import inspect
from poolzoo.runtime.runtimes import select


def bench_file(
    path: Path,
    *,
    output: str | None = None,
    size: Size | None = None,
    runtimes: Sequence[str] = (speed.ORT,),
    batches: Sequence[int] | None = None,
    threads: Sequence[int] | None = None,
    provider: str = "auto",
    timeout: float | None = None,
) -> BenchReport:
    """Measures a file; a runtime must first give what ONNX Runtime gives.

    Args:
        path: The file.
        output: The output that holds the scores; None for the one that is clear.
        size: Height and width of images where the file takes any; None for 224 × 224.
        runtimes: Names of runtimes, or "all" for those that are installed.
        batches: Batch sizes; None for 1 and 32, or for the only one that the file takes.
        threads: Thread counts; None for one and all.
        provider: ONNX Runtime's: `auto`, `cpu`, `cuda` or `tensorrt`.
        timeout: Seconds that a runtime may take for opening, converting and each batch; None for the default.

    Raises:
        UsageError: It is no image classifier, or there is no such runtime.
        CheckFailed: It is damaged, or ONNX Runtime does not run it.
        EnvironmentProblem: It is too new, a runtime is not installed, or there is no device for the provider.
    """
    select(runtimes)  # a name that does not exist fails before the work
    file = inspect(path, size)
    with own_bundle(file, output) as directory:
        report = bench(
            directory,
            runtimes=runtimes,
            batches=batches or ([file.given.batch] if file.given.batch else speed.BATCHES),
            threads=threads,
            provider=provider,
            timeout=timeout,
            with_preprocessing=False,
        )
    return replace(report, bundle=str(path))
