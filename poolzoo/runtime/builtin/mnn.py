"""MNN. The graph is converted by the functions of its wheel.

The command `mnnconvert` of the same wheel sends facts of the model away, and is never called.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from poolzoo.runtime.builtin import sessions

FILE: Final = "model.mnn"


def convert(bundle: Path, out: Path) -> None:
    """Writes `model.mnn`.

    Raises:
        RuntimeError: MNN refuses the graph.
    """
    import _tools  # the converter that MNN's wheel installs

    source = str(bundle / sessions.MODEL)
    _tools.mnnconvert(
        ["mnnconvert", "-f", "ONNX", "--modelFile", source, "--MNNModel", str(out / FILE), "--bizCode", "poolzoo"]
    )
    if not (out / FILE).is_file():
        raise RuntimeError("MNN's converter wrote no file; its messages say why")
    sessions.keep_input(bundle, out)


def open_session(bundle: Path, *, threads: int, device: str, precision: str) -> sessions.Session:
    """Opens what `convert` wrote."""
    from MNN import expr, nn

    graph = sessions.kept_input(bundle)
    module = nn.load_module_from_file(
        str(bundle / FILE),
        [sessions.IMAGES],
        list(sessions.OUTPUTS),
        thread_num=threads,
        precision_mode="high" if precision == "fp32" else "normal",
    )
    dtype = expr.float if graph.kind == "float" else expr.uint8

    def run(x: np.ndarray) -> Sequence[np.ndarray]:
        given = expr.placeholder(list(x.shape), expr.NCHW, dtype)
        given.write(x)
        found = module.forward([given])
        if len(found) != len(sessions.OUTPUTS):
            raise RuntimeError("MNN computes no output; what it printed says why")
        return [np.array(expr.convert(one, expr.NCHW).read()) for one in found]

    return sessions.session(run, graph)
