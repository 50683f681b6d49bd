"""tinygrad on the CPU, on one thread, for a fixed batch: its compiled kernels are replayed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from poolzoo.runtime.builtin import graph_runs


def load(directory: Path, *, threads: int, device: str, precision: str) -> graph_runs.Run:
    """A run of the graph in a directory, for batches of one size."""
    os.environ["DEV"] = "CPU"
    from tinygrad import Tensor, TinyJit
    from tinygrad.nn.onnx import OnnxRunner

    runner = OnnxRunner(directory / graph_runs.MODEL)
    (name,) = runner.graph_inputs

    @TinyJit
    def compiled(x: Tensor) -> list[Tensor]:
        found = runner({name: x})
        return [found[output].realize() for output in runner.graph_outputs]

    def run(x: np.ndarray) -> Sequence[np.ndarray]:
        return [found.numpy() for found in compiled(Tensor(x).realize())]

    return run


open = partial(graph_runs.open_with, load)

