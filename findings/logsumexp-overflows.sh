#!/usr/bin/env bash
# ReduceLogSumExp, LogSoftmax and Softplus overflow in OpenCV 5 and tract.
#
# One would guess: an operator that exists for numerical stability subtracts the largest value first.
# What happens: OpenCV and tract compute Log(Sum(Exp(x))) as it is written: +inf once a value passes 88.7 (onnxruntime
#   and OpenVINO are right). Their Softplus is log(1 + exp(x)): inf for 100. Their LogSoftmax is log(softmax): -inf
#   instead of -1000, as in onnx's reference evaluator.
# Seen: 2026-11-28, x86-64 Linux, CPython 3.11, opencv-python-headless 5.0.0.93, tract 0.23.9, onnxruntime 1.32.0,
#   onnx 1.23.2.
# Output: ReduceLogSumExp of [100 100]: expected 100.6931, onnxruntime 100.6931, reference 100.6931, OpenCV inf, tract
#   inf
# Hurt: log-sum-exp pooling of raw features, losses or scores out of logits: infinite from 89 on.
# Way out: subtract the maximum in the graph: m + Log(ReduceSum(Exp(x - m))).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0 opencv-python-headless==5.0.0.93 tract==0.23.9
venv/bin/python - <<'PY'
import cv2
import numpy as np
import onnx
import onnxruntime
import tract
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

np.seterr(all="ignore")


def run(node, x, shape, held=()):
    value = lambda name, dims: helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
    graph = helper.make_graph([node], "g", [value("x", list(x.shape))], [value("y", shape)], list(held))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, "g.onnx")
    got = {
        "onnxruntime": onnxruntime.InferenceSession("g.onnx", providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    }
    got["reference"] = ReferenceEvaluator(model).run(None, {"x": x})[0]
    net = cv2.dnn.readNetFromONNX("g.onnx")
    net.setInput(x)
    got["OpenCV"] = net.forward()
    loaded = tract.onnx().load("g.onnx")
    loaded = loaded.into_model() if hasattr(loaded, "into_model") else loaded
    got["tract"] = loaded.into_runnable().run([x])[0].to_numpy()
    return {name: float(y.ravel()[-1]) for name, y in got.items()}


axis = numpy_helper.from_array(np.array([1]), "a")
cases = {
    "ReduceLogSumExp": (
        helper.make_node("ReduceLogSumExp", ["x", "a"], ["y"], keepdims=1),
        np.float32([[100, 100]]),
        [1, 1],
        [axis],
    ),
    "Softplus": (helper.make_node("Softplus", ["x"], ["y"]), np.float32([[0, 100]]), [1, 2], []),
    "LogSoftmax": (helper.make_node("LogSoftmax", ["x"], ["y"], axis=1), np.float32([[1000, 0]]), [1, 2], []),
}
right = {"ReduceLogSumExp": 100 + np.log(2), "Softplus": 100.0, "LogSoftmax": -1000.0}
infinite = {
    "ReduceLogSumExp": {"OpenCV", "tract"},
    "Softplus": {"OpenCV", "tract"},
    "LogSoftmax": {"OpenCV", "tract", "reference"},
}
same = True
for name, case in cases.items():
    got = run(*case)
    print(name, "expected", round(right[name], 4), got)
    for runtime, y in got.items():
        same &= np.isinf(y) if runtime in infinite[name] else abs(y - right[name]) < 1e-3
raise SystemExit(
    None if same else "changed: another set of runtimes overflows in ReduceLogSumExp, Softplus or LogSoftmax"
)
PY
