"""OpenVINO on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from poolzoo.runtime.builtin import graph_runs


def load(directory: Path, *, threads: int, device: str, precision: str) -> graph_runs.Run:
    """A run of the graph in a directory. Its default arithmetic is bfloat16 on CPUs that have it."""
    import openvino

    settings: dict[str, object] = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    if precision == "fp32":
        settings["INFERENCE_PRECISION_HINT"] = "f32"
    compiled = openvino.Core().compile_model(directory / graph_runs.MODEL, "CPU", settings)

    def run(x: np.ndarray) -> Sequence[np.ndarray]:
        found = compiled([x])
        return [found[port] for port in compiled.outputs]

    return run


open = partial(graph_runs.open_with, load)

