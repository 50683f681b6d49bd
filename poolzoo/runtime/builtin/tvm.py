"""Apache TVM: the graph is compiled for the CPU when it is opened, and not tuned."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from poolzoo.runtime.builtin import sessions


def open_session(bundle: Path, *, threads: int, device: str, precision: str) -> sessions.Session:
    """Opens `model.onnx` of a directory."""
    os.environ["TVM_NUM_THREADS"] = str(threads)  # read when its threads start
    import onnx
    import tvm
    from tvm import relax
    from tvm.relax.frontend.onnx import from_onnx

    module = from_onnx(onnx.load(bundle / sessions.MODEL))
    machine = relax.VirtualMachine(tvm.compile(module, target="llvm"), tvm.cpu())

    def run(x: np.ndarray) -> Sequence[np.ndarray]:
        found = machine["main"](tvm.runtime.tensor(x))
        return [one.numpy() for one in found]

    return sessions.session(run, sessions.read_input(bundle / sessions.MODEL))
