#!/usr/bin/env bash
# onnxruntime transposes HWC to CWH 10 times slower than HWC to CHW and then to CWH, and its optimizer joins the two.
#
# One would guess: a Transpose moves each byte once, so it costs the same for every order of axes, and joining two of
#   them makes it faster.
# What happens: only orders that move one axis ([2, 0, 1], [0, 3, 1, 2]) have a quick kernel. [2, 1, 0] goes element
#   by element. Two quick ones in a row give the same bytes in a tenth of the time, as long as optimizations are off:
#   the default level replaces them by the slow one.
# Seen: 2026-11-28, x86-64 Linux, CPython 3.11, onnxruntime 1.32.0, one thread, 1080x1920x3 uint8.
# Output: [2, 0, 1] 1.3 ms; [2, 1, 0] 31 ms (numpy 5 ms); [2, 0, 1] then [0, 2, 1]: 2.8 ms unoptimized, 32 ms optimized
# Hurt: preprocessing in the graph that turns a picture by 90 degrees or serves column-major frames: more time than a
#   small network needs.
# Way out: two Transposes and disabled_optimizers=["TransposeOptimizer", "TransposeOptimizer_CPUExecutionProvider"]
#   (one of the two names is not enough), or turn the picture outside the graph.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0
venv/bin/python - <<'PY'
import time

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

x = np.random.default_rng(0).integers(0, 256, (1080, 1920, 3), dtype=np.uint8)


def best(function):
    times = []
    for _ in range(10):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times) * 1e3


def run(*orders, disabled=(), level=onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL):
    names = ["x", *(f"t{i}" for i in range(len(orders) - 1)), "y"]
    nodes = [helper.make_node("Transpose", [a], [b], perm=p) for a, b, p in zip(names, names[1:], orders)]
    right = x
    for order in orders:
        right = right.transpose(order)
    value = lambda n, dims: helper.make_tensor_value_info(n, TensorProto.UINT8, list(dims))
    graph = helper.make_graph(nodes, "t", [value("x", x.shape)], [value("y", right.shape)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = level
    options.optimized_model_filepath = "o.onnx"
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"], disabled_optimizers=list(disabled)
    )
    assert np.array_equal(session.run(None, {"x": x})[0], right)
    return best(lambda: session.run(None, {"x": x})), len(onnx.load("o.onnx").graph.node)


both = ["TransposeOptimizer", "TransposeOptimizer_CPUExecutionProvider"]
off = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
got = {
    "[2, 0, 1]": run([2, 0, 1]),
    "[2, 1, 0]": run([2, 1, 0]),
    "[2, 0, 1] [0, 2, 1] optimized": run([2, 0, 1], [0, 2, 1]),
    "[2, 0, 1] [0, 2, 1] unoptimized": run([2, 0, 1], [0, 2, 1], level=off),
    "[2, 0, 1] [0, 2, 1], one optimizer disabled": run([2, 0, 1], [0, 2, 1], disabled=both[:1]),
    "[2, 0, 1] [0, 2, 1], both disabled": run([2, 0, 1], [0, 2, 1], disabled=both),
}
for name, (duration, nodes) in got.items():
    print(f"{name}: {duration:.1f} ms, {nodes} node{'s' * (nodes > 1)}")
print(f"numpy [2, 1, 0]: {best(lambda: np.ascontiguousarray(x.transpose(2, 1, 0))):.1f} ms")
quick, slow, joined, two, one, none = (duration for duration, _ in got.values())
same = slow > 5 * quick and min(joined, one) > 3 * max(two, none)
same &= [nodes for _, nodes in got.values()] == [1, 1, 1, 2, 1, 2]
raise SystemExit(None if same else "changed: the joined Transpose is as fast as its two parts")
PY
