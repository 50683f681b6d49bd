"""ExecuTorch with XNNPACK. It takes programs of torch, so that the graph becomes one by way of onnx2torch first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from poolzoo.runtime.builtin import sessions

CONVERTED: Final = "model.pte"


def convert(bundle: Path, out: Path) -> None:
    """Writes `model.pte`, with what XNNPACK takes of the graph delegated to it. Needs torch, which running does not.

    Args:
        bundle: The directory with `model.onnx`, which takes one image as float32.
        out: An empty directory.

    Raises:
        Exception: Whatever onnx2torch, torch or ExecuTorch raises for an operator that they do not take.
    """
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    from poolzoo.runtime.builtin.torch_program import program

    lowered = to_edge_transform_and_lower(program(bundle), partitioner=[XnnpackPartitioner()])
    (out / CONVERTED).write_bytes(lowered.to_executorch().buffer)
    sessions.keep_input(bundle, out)


def open_session(bundle: Path, *, threads: int, device: str, precision: str) -> sessions.Session:
    """Opens what `convert` wrote, for one image at a time; ExecuTorch takes the number of threads from the machine."""
    import torch
    from executorch.runtime import Runtime

    loaded = Runtime.get().load_program(bundle / CONVERTED)  # the method reads it as long as it lives
    method = loaded.load_method("forward")

    def run(x: np.ndarray) -> Sequence[np.ndarray]:
        return [one.numpy() for one in method.execute([torch.from_numpy(x)])]

    return sessions.session(run, sessions.kept_input(bundle))
