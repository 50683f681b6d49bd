#!/usr/bin/env bash
# OpenCV 5 turns a squeeze-and-excitation gate into an activation of the gate itself.
#
# One would guess: a hard-swish fusion checks that both factors come from one tensor: x * HardSigmoid(x).
# What happens: x * HardSigmoid(g) with another g (the channel gate of MobileNetV3) becomes HardSwish(g), and x *
#   Tanh(Softplus(g)) becomes Mish(g). x is gone; even the shape is the gate's. No warning. x * Sigmoid(g) is left
#   alone.
# Seen: 2026-11-28, x86-64 Linux, CPython 3.11, opencv-python-headless 5.0.0.93.
# Output: HardSigmoid: expected (1, 2, 2, 2), OpenCV (1, 2, 1, 1) = [1.125 5.5]; Sigmoid: right
# Hurt: whoever serves MobileNetV3-like classifiers through cv2.dnn: labels are wrong and nothing says so.
# Way out: write the gate as Add 3, Clip 0..6, Mul 1/6.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 opencv-python-headless==5.0.0.93
venv/bin/python - <<'PY'
import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper

x = np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2)
gate = x.mean((2, 3), keepdims=True)


def run(steps):
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2, 2, 2])
    nodes = [helper.make_node("GlobalAveragePool", ["x"], ["g"]), *steps, helper.make_node("Mul", ["x", "s"], ["y"])]
    graph = helper.make_graph(nodes, "gate", [value("x")], [value("y")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), "gate.onnx")
    net = cv2.dnn.readNetFromONNX("gate.onnx")
    net.setInput(x)
    return net.forward()


hard = run([helper.make_node("HardSigmoid", ["g"], ["s"], alpha=1 / 6, beta=0.5)])
mish = run([helper.make_node("Softplus", ["g"], ["t"]), helper.make_node("Tanh", ["t"], ["s"])])
soft = run([helper.make_node("Sigmoid", ["g"], ["s"])])
hard_gate = np.clip(gate / 6 + 0.5, 0, 1)
print("HardSigmoid: expected", (x * hard_gate).ravel(), "OpenCV", hard.shape, hard.ravel())
print("Tanh(Softplus): OpenCV", mish.shape, mish.ravel())
print("Sigmoid: OpenCV", soft.shape, soft.ravel())
same = (
    hard.shape == gate.shape
    and np.allclose(hard, gate * hard_gate, atol=1e-5)
    and mish.shape == gate.shape
    and np.allclose(mish, gate * np.tanh(np.log1p(np.exp(gate))), atol=1e-5)
    and np.allclose(soft, x / (1 + np.exp(-gate)), atol=1e-5)
)
raise SystemExit(None if same else "changed: OpenCV no longer replaces x * gate(g) by an activation of g")
PY
