"""Size of a trained network, and parity and latency of its exported graph."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch

from poolzoo.artifacts.run import load_run
from poolzoo.common import timing
from poolzoo.model import surgery

BATCHES: Final = (1, 32)  # batch sizes that are timed under ONNX Runtime


@dataclass(frozen=True)
class Size:
    """Parameters of a network, and its multiply–accumulate operations for one image."""

    params: int
    macs: int


@dataclass(frozen=True)
class ExportMetrics:
    """Whether an exported graph passed its parity check, and milliseconds for one image and for 32."""

    parity: bool
    latency_ms: float | None
    latency_ms_32: float | None


def size(path: Path) -> Size:
    """Parameters and operations of a run's network; operations are half of torch's count of FLOPs."""
    from torch.utils.flop_counter import FlopCounterMode

    run = load_run(path)
    shape = run.config["pretrained_cfg"]["input_size"]
    with FlopCounterMode(display=False) as counter:
        surgery.dry_run(run.network, torch.randn(1, *shape))
    return Size(params=sum(p.numel() for p in run.network.parameters()), macs=counter.get_total_flops() // 2)


def export_metrics(path: Path, provider: str, threads: int | None, folder: Path) -> ExportMetrics:
    """Exports a run's network as `poolzoo export` does, checks its parity and times it.

    Args:
        path: The run directory.
        provider: Of ONNX Runtime.
        threads: Of ONNX Runtime; None for as many as torch has.
        folder: Where the graph is written.
    """
    from poolzoo.export import graph
    from poolzoo.export.source import from_run
    from poolzoo.parity.check import check_parity
    from poolzoo.parity.reference import Reference
    from poolzoo.runtime import ort_session

    count = threads or torch.get_num_threads()
    source, file = from_run(load_run(path)), folder / "model.onnx"
    written = graph.export_graph(source, file)
    opened = ort_session.open_model(file, provider, count)
    reference = Reference.compute(source.model, source.images, source.image_labels)
    report = check_parity(reference, file, written.layers, opened, count)
    times = {}
    for batch in BATCHES:
        images = source.images[np.arange(batch) % len(source.images)]
        call: dict[str, Callable[[], object]] = {"ort": partial(opened.run, images)}
        times[batch] = round(statistics.median(timing.interleaved(call, seconds=1.0)["ort"]), 4)
    return ExportMetrics(parity=report.passed, latency_ms=times[1], latency_ms_32=times[32])
