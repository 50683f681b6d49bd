"""tinygrad on the CPU, on one thread, for a fixed batch: its compiled kernels are replayed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from poolzoo.runtime.builtin import sessions


def open_session(bundle: Path, *, threads: int, device: str, precision: str) -> sessions.Session:
    """Opens `model.onnx` of a directory, for batches of one size."""
    os.environ["DEV"] = "CPU"
    from tinygrad import Tensor, TinyJit
    from tinygrad.nn.onnx import OnnxRunner

    runner = OnnxRunner(bundle / sessions.MODEL)

    def compute(x: Tensor) -> list[Tensor]:
        found = runner({sessions.IMAGES: x})
        return [found[name].contiguous().realize() for name in sessions.OUTPUTS]  # a view would keep its first values

    compiled = TinyJit(compute)

    def run(x: np.ndarray) -> Sequence[np.ndarray]:
        return [found.numpy() for found in compiled(Tensor(x).realize())]

    return sessions.session(run, sessions.read_input(bundle / sessions.MODEL))
