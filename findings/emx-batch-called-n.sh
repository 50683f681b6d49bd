#!/usr/bin/env bash
# emx-onnx-cgen computes nothing when the batch is called "n", and one image when it reduces.
#
# One would guess: the name of a symbolic dimension is a label, and a symbolic batch means any batch.
# What happens: names become C identifiers: with a dimension "n" a pooling is the loop "for (n = 0; n < n; ++n)",
#   which never runs, and the output buffer keeps what was in it. ReduceMean loops over one image whatever the batch
#   is; the others keep what was in the buffer. The tool and the C compiler end with 0.
# Seen: 2026-11-28, x86-64 Linux, CPython 3.11, emx-onnx-cgen 1.4.0, gcc.
# Output: batch 3, buffer filled with -7: GlobalAveragePool over "batch" [2.5 6.5 10.5], over "n" [-7 -7 -7];
#   ReduceMean over "batch" [2.5 -7 -7]
# Hurt: whoever generates C for a microcontroller from a file with a dynamic batch: old memory is read as a result.
# Way out: pin the batch (--input-dim) before generating code.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 emx-onnx-cgen==1.4.0
venv/bin/python - <<'PY'
import ctypes
import subprocess

import numpy as np
import onnx
from onnx import TensorProto, helper

x = np.arange(1, 13, dtype=np.float32).reshape(3, 1, 2, 2)


def run(name, node, batch):
    value = lambda n, dims: helper.make_tensor_value_info(n, TensorProto.FLOAT, dims)
    graph = helper.make_graph([node], "g", [value("x", [batch, 1, 2, 2])], [value("y", [batch, 1, 1, 1])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, f"{name}.onnx")
    subprocess.run(
        ["venv/bin/emx-onnx-cgen", "compile", "--model-name", "model", f"{name}.onnx", f"{name}.c"],
        check=True,
        capture_output=True,
    )
    subprocess.run(["cc", "-O1", "-w", "-shared", "-fPIC", "-o", f"{name}.so", f"{name}.c", "-lm"], check=True)
    y = np.full(3, -7, np.float32)
    pointer = lambda a: a.ctypes.data_as(ctypes.c_void_p)
    ctypes.CDLL(f"./{name}.so").model(ctypes.c_int(3), pointer(x), pointer(y))
    return y


pool = helper.make_node("GlobalAveragePool", ["x"], ["y"])
reduce = helper.make_node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=1)
right = x.mean((1, 2, 3))
got = {
    "GlobalAveragePool over 'batch'": (run("pool_batch", pool, "batch"), right),
    "GlobalAveragePool over 'n'": (run("pool_n", pool, "n"), [-7, -7, -7]),
    "ReduceMean over 'batch'": (run("reduce_batch", reduce, "batch"), [right[0], -7, -7]),
}
print("expected", right)
for name, (y, _) in got.items():
    print(name, y)
same = all(np.array_equal(y, seen) for y, seen in got.values())
raise SystemExit(None if same else "changed: what emx-onnx-cgen makes of a symbolic batch")
PY
