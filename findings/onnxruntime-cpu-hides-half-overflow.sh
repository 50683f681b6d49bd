#!/usr/bin/env bash
# A float16 graph that overflows passes on ONNX Runtime's CPU provider.
#
# One would guess: a model whose tensors are float16 is computed in float16, so a run on the CPU shows what half
#   precision does.
# What happens: the CPU provider casts to float32 around the operators it lacks in half, and keeps the intermediates
#   in float32, even with optimizations disabled: x * x * 0.001 for x = 300, a sum of 512 x 200 divided by 512, and
#   GeM pooling of activations of 50 give the exact answer, where half arithmetic (numpy, onnx's evaluator, a GPU)
#   gives inf.
# Seen: 2026-11-28, x86-64 Linux, CPython 3.11, onnxruntime 1.32.0, onnx 1.23.2.
# Output: x*x*0.001: half inf, onnxruntime 90.06; sum/n: inf, 200.0; GeM: inf, 49.94
# Hurt: whoever checks an fp16 export on the CPU and ships it to a device with true half arithmetic.
# Way out: check fp16 in the reference evaluator (or on the device), and keep the overflowing part in float32.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0
venv/bin/python - <<'PY'
import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

np.seterr(all="ignore")
half = np.float16


def run(nodes, x, shape, **held):
    value = lambda n, dims: helper.make_tensor_value_info(n, TensorProto.FLOAT16, dims)
    held = [numpy_helper.from_array(a, n) for n, a in held.items()]
    graph = helper.make_graph(nodes, "g", [value("x", list(x.shape))], [value("y", shape)], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    y = session.run(None, {"x": x})[0].astype(float).ravel()[0]
    return y, float(ReferenceEvaluator(model).run(None, {"x": x})[0].ravel()[0])


n = helper.make_node
x = np.full((1, 4), 300, half)
rows = {
    "x * x * 0.001": (
        *run([n("Mul", ["x", "x"], ["a"]), n("Mul", ["a", "c"], ["y"])], x, [1, 4], c=half(1e-3)),
        float((x * x * half(1e-3))[0, 0]),
        90,
    )
}
x = np.full((1, 512), 200, half)
total = half(0)
for each in x[0]:
    total = half(total + each)
rows["sum / n"] = (
    *run([n("ReduceSum", ["x"], ["a"], keepdims=0), n("Mul", ["a", "c"], ["y"])], x, [], c=half(1 / 512)),
    float(total * half(1 / 512)),
    200,
)
x = np.full((1, 1, 4, 4), 50, half)
gem = [n("Pow", ["x", "p"], ["a"]), n("GlobalAveragePool", ["a"], ["b"]), n("Pow", ["b", "q"], ["y"])]
rows["GeM p=3"] = (
    *run(gem, x, [1, 1, 1, 1], p=half(3), q=half(1 / 3)),
    float(half((x ** half(3)).mean(dtype=half)) ** half(1 / 3)),
    50,
)
same = True
for name, (ort, reference, by_hand, exact) in rows.items():
    print(f"{name}: exact {exact}, numpy half {by_hand}, reference evaluator {reference}, onnxruntime {ort:.2f}")
    same &= bool(np.isinf(by_hand) and np.isinf(reference) and abs(ort - exact) < exact / 100)
raise SystemExit(None if same else "changed: the CPU provider shows the overflow of half precision now")
PY
