"""ncnn, through its converter pnnx: float input, one image at a time."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from poolzoo.common.text import one_line
from poolzoo.runtime.builtin import graph_runs

PARAM, WEIGHTS, SCRIPT = "model.ncnn.param", "model.ncnn.bin", "model_ncnn.py"
BATCH_INDEX: Final = re.compile(r"batch_index=(\d+)")  # in pnnx's script: the axis that is the batch to it
LOWER: Final = ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage", "use_bf16_packed")


def convert(bundle: Path, out: Path) -> None:
    """Writes ncnn's two files, and the script that says how pnnx understood the axes.

    Raises:
        RuntimeError: pnnx refuses the graph.
    """
    import pnnx

    graph = graph_runs.signature(bundle)
    model = out / graph_runs.MODEL  # pnnx writes beside the file that it reads
    model.write_bytes((bundle / graph_runs.MODEL).read_bytes())
    shape = ",".join(str(side) for side in graph.shape)
    done = subprocess.run(
        [pnnx.EXEC_PATH, graph_runs.MODEL, f"inputshape=[{shape}]f32", "fp16=0"],
        cwd=out,
        capture_output=True,
        text=True,
        errors="replace",
    )
    if done.returncode or not (out / PARAM).is_file() or not (out / SCRIPT).is_file():
        raise RuntimeError(f"pnnx ended with {done.returncode}: {one_line(done.stderr, 300)}")
    for file in out.iterdir():
        if file.name not in (PARAM, WEIGHTS, SCRIPT):
            file.unlink()
    graph_runs.write_signature(bundle, out)


def load(directory: Path, *, threads: int, device: str, precision: str) -> graph_runs.Run:
    """A run of what `convert` wrote, for a batch of one.

    Raises:
        RuntimeError: ncnn lacks an operator.
    """
    import ncnn

    axes = [int(axis) for axis in BATCH_INDEX.findall((directory / SCRIPT).read_text(encoding="utf-8"))]
    net = ncnn.Net()
    net.opt.num_threads = threads
    if precision == "fp32":
        for name in LOWER:
            setattr(net.opt, name, False)
    if net.load_param(str(directory / PARAM)) or net.load_model(str(directory / WEIGHTS)):
        raise RuntimeError("ncnn cannot load what pnnx wrote: an operator is missing in it")
    count = len(graph_runs.signature(directory).outputs)

    def run(x: np.ndarray) -> Sequence[np.ndarray]:
        extractor = net.create_extractor()
        extractor.input("in0", ncnn.Mat(x, batch_index=axes[0]).clone())
        outputs = []
        for at in range(count):
            code, found = extractor.extract(f"out{at}")
            if code:
                raise RuntimeError(f"ncnn cannot compute output {at}: its code is {code}")
            outputs.append(np.array(found.numpy(batch_index=axes[1 + at])))
        return outputs

    return run


open = partial(graph_runs.open_with, load)

