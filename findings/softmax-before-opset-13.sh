#!/usr/bin/env bash
# Softmax of a 4-D tensor in an old file (opset below 13) has three different results in five runtimes.
#
# One would guess: a runtime that accepts an opset applies the meaning of that opset: below 13 Softmax flattens all
#   axes from axis (1 by default) into one.
# What happens: ONNX Runtime flattens. OpenVINO and tinygrad take the softmax along axis 1 alone (the new meaning with
#   the old default), onnx's reference evaluator and OpenCV along the last axis (the new default). No warning. With
#   axis=1 written out the four agree on axis 1, and ONNX Runtime still flattens.
# Seen: 2026-11-28, x86-64 Linux, CPython 3.11, onnxruntime 1.32.0, onnx 1.23.2, opencv-python-headless 5.0.0.93,
#   openvino 2026.4.1, tinygrad 0.14.0.
# Output: default axis: onnxruntime flattened, reference and OpenCV last axis, OpenVINO and tinygrad axis 1; axis=1:
#   onnxruntime flattened, the rest axis 1
# Hurt: spatial softmax and attention pooling in files from old exporters (opset 11 or 12), where the sum over the map
#   is no longer 1.
# Way out: Flatten or Reshape before Softmax and back, which means the same in all opsets; or onnx.version_converter
#   first.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0 opencv-python-headless==5.0.0.93 openvino==2026.4.1 tinygrad==0.14.0
venv/bin/python - <<'PY'
import os

os.environ["DEV"] = "PYTHON"  # tinygrad without a C compiler
import cv2
import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from tinygrad import Tensor
from tinygrad.nn.onnx import OnnxRunner

x = np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2)
grown = np.exp(x.astype(float))
meaning = {
    "flattened": grown / grown.sum(),
    "axis 1": grown / grown.sum(1, keepdims=True),
    "last axis": grown / grown.sum(-1, keepdims=True),
}


def run(**attributes):
    value = lambda n: helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 2, 2, 2])
    graph = helper.make_graph(
        [helper.make_node("Softmax", ["x"], ["y"], **attributes)], "g", [value("x")], [value("y")]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)], ir_version=7)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "s.onnx")
    net = cv2.dnn.readNetFromONNX("s.onnx")
    net.setInput(x)
    got = {
        "onnxruntime": onnxruntime.InferenceSession("s.onnx", providers=["CPUExecutionProvider"]).run(None, {"x": x})[
            0
        ],
        "reference": ReferenceEvaluator(model).run(None, {"x": x})[0],
        "OpenCV": net.forward(),
        "OpenVINO": openvino.Core().compile_model("s.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([x])[0],
        "tinygrad": next(iter(OnnxRunner("s.onnx")({"x": Tensor(x)}).values())).numpy(),
    }
    return {
        name: next((m for m, right in meaning.items() if np.allclose(y, right, atol=1e-5)), "another")
        for name, y in got.items()
    }


plain, given = run(), run(axis=1)
seen_plain = {
    "onnxruntime": "flattened",
    "reference": "last axis",
    "OpenCV": "last axis",
    "OpenVINO": "axis 1",
    "tinygrad": "axis 1",
}
seen_given = {name: "flattened" if name == "onnxruntime" else "axis 1" for name in given}
print("default axis:", plain)
print("axis=1:", given)
raise SystemExit(
    None if (plain, given) == (seen_plain, seen_given) else "changed: which runtime gives which Softmax below opset 13"
)
PY
