#!/usr/bin/env bash
# onnx's ReferenceEvaluator is wrong in operators of our field, so agreement with it proves little.
#
# One would guess: the evaluator that ships with the specification computes what the specification says.
# What happens: (1) LpNormalization(p=1) divides by the sum without absolute values: the signs cancel. (2) AveragePool
#   marks padding by NaN, so a NaN of the data is left out of the mean instead of spreading. (3) LRN loops
#   over the batch where it should loop over the channels: with one image only channel 0 is normalized.
# Seen: 2026-11-28, x86-64 Linux, CPython 3.11, onnx 1.23.2, onnxruntime 1.32.0.
# Output: LpNormalization(p=1) of [3 -1 2]: expected [0.5 -0.167 0.333], reference [0.75 -0.25 0.5]; AveragePool of
#   [nan 1 2 3]: expected nan, reference 2.0
# Hurt: everyone who validates an exporter or a runtime against the evaluator alone.
# Way out: numpy by hand as the oracle; two runtimes of different origin beside it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0
venv/bin/python - <<'PY'
import numpy as np
import onnxruntime
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator


def run(node, x, shape):
    value = lambda name, dims: helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
    graph = helper.make_graph([node], "g", [value("x", list(x.shape))], [value("y", shape)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0], ReferenceEvaluator(model).run(None, {"x": x})[0]


x = np.float32([[3, -1, 2]])
right = x / np.abs(x).sum()
ort, ref = run(helper.make_node("LpNormalization", ["x"], ["y"], p=1, axis=1), x, [1, 3])
print("LpNormalization(p=1): expected", right, "onnxruntime", ort, "reference", ref)
same = np.allclose(ort, right) and np.allclose(ref, x / x.sum())

x = np.float32([np.nan, 1, 2, 3]).reshape(1, 1, 2, 2)
ort, ref = run(helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[2, 2]), x, [1, 1, 1, 1])
print("AveragePool with a NaN: expected nan, onnxruntime", ort.ravel(), "reference", ref.ravel())
same &= bool(np.isnan(ort).all()) and np.allclose(ref, 2)

x = np.ones((1, 4, 1, 1), np.float32)
right = x.ravel() / (1 + np.array([2, 3, 3, 2]))  # alpha / size = 1, and so many channels lie in the window of 3
ort, ref = run(helper.make_node("LRN", ["x"], ["y"], size=3, alpha=3.0, beta=1.0, bias=1.0), x, [1, 4, 1, 1])
print("LRN: expected", right, "onnxruntime", ort.ravel(), "reference", ref.ravel())
same &= np.allclose(ort.ravel(), right) and np.allclose(ref.ravel(), [right[0], 1, 1, 1])
raise SystemExit(None if same else "changed: onnx's reference evaluator or onnxruntime")
PY
