"""ncnn, through its converter pnnx: float input, one image at a time."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from poolzoo.runtime.builtin import sessions
from poolzoo.runtime.process import describe_end

PARAM, WEIGHTS, SCRIPT = "model.ncnn.param", "model.ncnn.bin", "model_ncnn.py"
BATCH_INDEX: Final = re.compile(r"batch_index=(\d+)")  # in pnnx's script: the axis that is the batch to it
LOWER: Final = ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage", "use_bf16_packed")


def convert(bundle: Path, out: Path) -> None:
    """Writes ncnn's two files, and the script that says how pnnx understood the axes.

    Raises:
        RuntimeError: pnnx refuses the graph.
    """
    import onnx
    import pnnx

    from poolzoo.runtime.builtin import ncnn_forms

    graph = ncnn_forms.rewrite(onnx.load(bundle / sessions.MODEL))
    onnx.save(graph, out / sessions.MODEL)  # pnnx writes beside the file that it reads
    (given,) = graph.graph.input
    shape = ",".join(str(side.dim_value) for side in given.type.tensor_type.shape.dim)
    done = subprocess.run(
        [pnnx.EXEC_PATH, sessions.MODEL, f"inputshape=[{shape}]f32", "fp16=0"],
        cwd=out,
        capture_output=True,
        text=True,
        errors="replace",
    )
    if done.returncode or not (out / PARAM).is_file() or not (out / SCRIPT).is_file():
        raise RuntimeError(f"pnnx {describe_end(done.returncode)}")
    for file in out.iterdir():
        if file.name not in (PARAM, WEIGHTS, SCRIPT):
            file.unlink()
    sessions.keep_input(bundle, out)


def open_session(bundle: Path, *, threads: int, device: str, precision: str) -> sessions.Session:
    """Opens what `convert` wrote, for a batch of one.

    Raises:
        RuntimeError: ncnn lacks an operator.
    """
    import ncnn

    axes = [int(axis) for axis in BATCH_INDEX.findall((bundle / SCRIPT).read_text(encoding="utf-8"))]
    net = ncnn.Net()
    net.opt.num_threads = threads
    if precision == "fp32":
        for name in LOWER:
            setattr(net.opt, name, False)
    if net.load_param(str(bundle / PARAM)) or net.load_model(str(bundle / WEIGHTS)):
        raise RuntimeError("ncnn cannot load what pnnx wrote: an operator is missing in it")

    def run(x: np.ndarray) -> Sequence[np.ndarray]:
        extractor = net.create_extractor()
        extractor.input("in0", ncnn.Mat(x, batch_index=axes[0]).clone())
        outputs = []
        for at in range(len(sessions.OUTPUTS)):
            code, found = extractor.extract(f"out{at}")
            if code:
                raise RuntimeError(f"ncnn cannot compute output {at}: its code is {code}")
            outputs.append(np.array(found.numpy(batch_index=axes[1 + at])))
        return outputs

    return sessions.session(run, sessions.kept_input(bundle))
