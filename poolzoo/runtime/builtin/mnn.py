"""MNN. The graph is converted by the functions of its wheel.

The command `mnnconvert` of the same wheel sends facts of the model away, and is never called.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from poolzoo.runtime.builtin import graph_runs

FILE: Final = "model.mnn"


def convert(bundle: Path, out: Path) -> None:
    """Writes `model.mnn`.

    Raises:
        RuntimeError: MNN refuses the graph.
    """
    import _tools  # the converter that MNN's wheel installs

    source = str(bundle / graph_runs.MODEL)
    _tools.mnnconvert(
        ["mnnconvert", "-f", "ONNX", "--modelFile", source, "--MNNModel", str(out / FILE), "--bizCode", "poolzoo"]
    )
    if not (out / FILE).is_file():
        raise RuntimeError("MNN's converter wrote no file; its messages say why")
    graph_runs.write_signature(bundle, out)


def load(directory: Path, *, threads: int, device: str, precision: str) -> graph_runs.Run:
    """A run of what `convert` wrote."""
    from MNN import expr, nn

    graph = graph_runs.signature(directory)
    module = nn.load_module_from_file(
        str(directory / FILE),
        [graph.input],
        list(graph.outputs),
        thread_num=threads,
        precision_mode="high" if precision == "fp32" else "normal",
    )
    dtype = expr.uint8 if graph.dtype == np.uint8 else expr.float

    def run(x: np.ndarray) -> Sequence[np.ndarray]:
        given = expr.placeholder(list(x.shape), expr.NCHW, dtype)
        given.write(x)
        return [np.array(expr.convert(found, expr.NCHW).read()) for found in module.forward([given])]

    return run


open = partial(graph_runs.open_with, load)

