#!/usr/bin/env bash
# OpenCV 5 overflows in a Softmax behind a product with a negative number.
#
# One would guess: Softmax subtracts the largest of its inputs, so that no exponential is above 1.
# What happens: a Mul or Div by one number becomes a scale of the Softmax behind it. The largest input is taken before
#   the scale. With a negative scale it is the smallest one, and the exponentials of all others are above 1. From a
#   distance of 89 on they are infinite, and the probabilities NaN. Neg before the Softmax is right.
# Seen: 2026-11-29, x86-64 Linux, CPython 3.11, opencv-python-headless 5.0.0.93.
# Output: expected [1 1.9e-22 3.8e-44], Mul and Div [nan 0 0], Neg [1 1.9e-22 0]
# Hurt: whoever serves classifiers by distances (prototypes, softmin, radial bases) through cv2.dnn.
# Way out: negate the distances with Neg, or compute them with the other sign.
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
from onnx import TensorProto, helper, numpy_helper

x = np.array([[0, 50, 100]], np.float32)


def run(node):
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3])
    nodes = [node, helper.make_node("Softmax", ["z"], ["y"], axis=1)]
    number = numpy_helper.from_array(np.array([-1], np.float32), "number")
    graph = helper.make_graph(nodes, "softmin", [value("x")], [value("y")], [number])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), "softmin.onnx")
    net = cv2.dnn.readNetFromONNX("softmin.onnx")
    net.setInput(x)
    return net.forward().ravel()


expected = np.exp(-x.ravel()) / np.exp(-x).sum()
product, divided = (run(helper.make_node(name, ["x", "number"], ["z"])) for name in ("Mul", "Div"))
negative = run(helper.make_node("Neg", ["x"], ["z"]))
print("expected", expected, "Mul", product, "Div", divided, "Neg", negative)
same = np.isnan(product).any() and np.allclose(negative, expected)
raise SystemExit(None if same else "changed: OpenCV's Softmax is right behind a product with a negative number")
PY
