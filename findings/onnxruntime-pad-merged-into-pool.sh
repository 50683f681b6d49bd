#!/usr/bin/env bash
# onnxruntime 1.31.1 merges a zero Pad into the max pooling behind it.
#
# One would guess: Pad(0) followed by MaxPool is max(0, ...) at the border; a graph optimization keeps that.
# What happens: a constant Pad of 0 (without the axes input) is moved into MaxPool's own pads, which are -inf:
#   negative borders come out. With the axes input, with another constant, before AveragePool, or with optimizations
#   off, the result is right. 1.32.0 is right.
# Seen: 2026-11-28, x86-64 Linux, CPython 3.11, onnxruntime 1.31.1 against 1.32.0.
# Output: 1.31.1: [-1 -2 -4 -5], without optimization [0 0 0 -5]; 1.32.0: [0 0 0 -5]
# Hurt: torch's F.pad(x, ...) before max pooling where x can be negative (no ReLU before it).
# Way out: use 1.32.0, or give Pad its axes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check numpy==2.4.6 onnx==1.23.2
cat > merged.py <<'PY'
import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

x = -np.arange(1, 10, dtype=np.float32).reshape(1, 1, 3, 3)
right = np.pad(x, ((0, 0), (0, 0), (1, 0), (1, 0))).reshape(1, 1, 2, 2, 2, 2).max((3, 5))


def run(axes, optimize):
    value = lambda n, dims: helper.make_tensor_value_info(n, TensorProto.FLOAT, dims)
    held = {"p": np.array([1, 1, 0, 0] if axes else [0, 0, 1, 1, 0, 0, 0, 0]), "v": np.float32(0)}
    if axes:
        held["a"] = np.array([2, 3])
    nodes = [
        helper.make_node("Pad", ["x", *held], ["q"]),
        helper.make_node("MaxPool", ["q"], ["y"], kernel_shape=[2, 2], strides=[2, 2]),
    ]
    held = [numpy_helper.from_array(a, n) for n, a in held.items()]
    graph = helper.make_graph(nodes, "g", [value("x", [1, 1, 3, 3])], [value("y", [1, 1, 2, 2])], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    options = onnxruntime.SessionOptions()
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


got = {(axes, optimize): run(axes, optimize) for axes in (False, True) for optimize in (False, True)}
print("onnxruntime", onnxruntime.__version__, "expected", right.ravel())
for (axes, optimize), y in got.items():
    print("  axes given:", axes, "optimized:", optimize, y.ravel())
merged = not np.array_equal(got[False, True], right)
rest = all(np.array_equal(y, right) for key, y in got.items() if key != (False, True))
expected = onnxruntime.__version__ == "1.31.1"
raise SystemExit(None if merged == expected and rest else "changed: which version merges Pad into MaxPool")
PY
for version in 1.31.1 1.32.0; do
  venv/bin/pip install --quiet --no-compile --disable-pip-version-check "onnxruntime==$version"
  venv/bin/python merged.py
done
