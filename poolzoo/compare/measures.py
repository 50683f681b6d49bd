"""Size of a trained network, and parity and latency of its exported graph."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from poolzoo.artifacts.run import Run, load_run
from poolzoo.common import timing
from poolzoo.model import surgery

if TYPE_CHECKING:
    from poolzoo.parity.shared_maps import SharedMaps

BATCHES: Final = (1, 32)  # batch sizes that are timed under ONNX Runtime


@dataclass(frozen=True)
class Size:
    """Parameters of a network, and its multiply–accumulate operations for one image."""

    params: int
    macs: int


def size(path: Path) -> Size:
    """Parameters and operations of a run's network; operations are half of torch's count of FLOPs."""
    from torch.utils.flop_counter import FlopCounterMode

    run = load_run(path)
    shape = run.config["pretrained_cfg"]["input_size"]
    with FlopCounterMode(display=False) as counter:
        surgery.dry_run(run.network, surgery.example(1, shape[1:]))
    return Size(params=sum(p.numel() for p in run.network.parameters()), macs=counter.get_total_flops() // 2)


class Exporter:
    """Exports runs one after the other. What one shares with the run before is not computed again.

    Where both have the same backbone, it is built once, and it computes the maps of their references once.

    Args:
        provider: Of ONNX Runtime.
        threads: Of torch and of ONNX Runtime.
        shared: Whether runs may have the same backbone. Its maps take memory until the next run.
    """

    def __init__(self, provider: str, threads: int, *, shared: bool) -> None:
        self.provider = provider
        self.threads = threads
        self.shared = shared
        self._before: tuple[Run, SharedMaps] | None = None

    def export(self, path: Path, file: Path) -> bool:
        """Exports a run's network as `poolzoo export` does, and checks its parity.

        Args:
            path: The run directory.
            file: The graph, which is written.

        Returns:
            Whether the graph computes what the network computes.
        """
        from poolzoo.export import graph
        from poolzoo.export.source import from_run
        from poolzoo.parity.check import check_parity
        from poolzoo.parity.reference import Reference
        from poolzoo.runtime import ort_session

        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            run, shared = self._loaded(path)
            source = from_run(run)
            written = graph.export_graph(source, file)
            opened = ort_session.open_model(file, self.provider, self.threads)
            reference = Reference.compute(source.model, source.images, source.image_labels, shared=shared)
            return check_parity(reference, file, written.layers, opened, self.threads).passed
        finally:
            torch.set_num_threads(before)

    def _loaded(self, path: Path) -> tuple[Run, SharedMaps | None]:
        """A run, with the maps of the run before where both share a backbone."""
        from poolzoo.parity.shared_maps import SharedMaps

        if not self.shared:
            return load_run(path), None
        run = load_run(path, beside=[] if self._before is None else [self._before[0]])
        if self._before is None or run.network.backbone is not self._before[1].backbone:
            self._before = run, SharedMaps(run.network.backbone)
        return run, self._before[1]


def latencies(path: Path, file: Path, provider: str, threads: int | None) -> dict[int, float]:
    """Milliseconds of a graph under ONNX Runtime, by batch size. Nothing else should run at the same time.

    Args:
        path: The run directory, which has images.
        file: The graph.
        provider: Of ONNX Runtime.
        threads: Of ONNX Runtime; None for as many as torch has.
    """
    from poolzoo.artifacts import samples
    from poolzoo.runtime import ort_session

    opened = ort_session.open_model(file, provider, threads or torch.get_num_threads())
    shown = samples.load_samples(path / "samples.npz")["test_images"]
    found = {}
    for batch in BATCHES:
        call: dict[str, Callable[[], object]] = {"ort": partial(opened.run, shown[np.arange(batch) % len(shown)])}
        found[batch] = round(statistics.median(timing.interleaved(call, seconds=1.0, within=timing.NARROW)["ort"]), 4)
    return found
