"""onnx2torch: the graph becomes a torch module again. It reads opset 17 and older."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from poolzoo.runtime.builtin import sessions


def open_session(bundle: Path, *, threads: int, device: str, precision: str) -> sessions.Session:
    """Opens `model.onnx` of a directory."""
    import onnx
    import onnx2torch
    import torch

    torch.set_num_threads(threads)
    module = onnx2torch.convert(onnx.load(bundle / sessions.MODEL)).eval()

    def run(x: np.ndarray) -> Sequence[np.ndarray]:
        with torch.inference_mode():
            found = module(torch.from_numpy(x))
        return [one.numpy() for one in found]

    return sessions.session(run, sessions.read_input(bundle / sessions.MODEL))
