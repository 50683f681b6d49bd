"""onnx2torch: the graph becomes a torch module again. It reads opset 17 and older."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from poolzoo.runtime.builtin import graph_runs


def load(directory: Path, *, threads: int, device: str, precision: str) -> graph_runs.Run:
    """A run of the graph in a directory."""
    import onnx
    import onnx2torch
    import torch

    torch.set_num_threads(threads)
    module = onnx2torch.convert(onnx.load(directory / graph_runs.MODEL)).eval()

    def run(x: np.ndarray) -> Sequence[np.ndarray]:
        with torch.inference_mode():
            found = module(torch.from_numpy(x))
        return [one.numpy() for one in (found if isinstance(found, list | tuple) else (found,))]

    return run


open = partial(graph_runs.open_with, load)

