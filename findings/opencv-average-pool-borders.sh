#!/usr/bin/env bash
# OpenCV 5 averages border windows wrongly with ceil_mode and with SAME_LOWER.
#
# One would guess: count_include_pad counts padding; what ceil_mode adds beyond the padding is no padding and is not
#   counted (torch, ONNX Runtime and numpy agree). SAME_LOWER pads at the start.
# What happens: with ceil_mode=1 and count_include_pad=1 (torch's defaults for AvgPool2d but for ceil_mode) the
#   windows that hang over the edge are divided by the whole kernel, even with no padding at all: the last row and
#   column are halved, the corner quartered. AveragePool with SAME_LOWER is computed as SAME_UPPER. MaxPool is right.
# Seen: 2026-11-28, x86-64 Linux, CPython 3.11, opencv-python-headless 5.0.0.93, onnxruntime 1.32.0.
# Output: 3x3 ones, 2x2 stride 2, ceil: expected [1 1 1 1], onnxruntime [1 1 1 1], OpenCV [1 0.5 0.5 0.25]
# Hurt: ResNet-D like shortcuts and pooling of odd maps: a frame of darker features.
# Way out: count_include_pad=0, or write the pads out.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0 opencv-python-headless==5.0.0.93
venv/bin/python - <<'PY'
import cv2
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper


def run(x, **attributes):
    value = lambda n, size: helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 1, size, size])
    node = helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 2], **attributes)
    graph = helper.make_graph([node], "g", [value("x", 3)], [value("y", 2)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "p.onnx")
    net = cv2.dnn.readNetFromONNX("p.onnx")
    net.setInput(x)
    ort = onnxruntime.InferenceSession("p.onnx", providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    return ort.ravel(), net.forward().ravel()


def means(x, start, end):
    padded = np.pad(x[0, 0], (start, end), constant_values=np.nan)
    return np.nanmean(padded.reshape(2, 2, 2, 2), (1, 3)).ravel()


ones = np.ones((1, 1, 3, 3), np.float32)
ort, cv = run(ones, ceil_mode=1, count_include_pad=1)
print("ceil_mode, count_include_pad: expected", means(ones, 0, 1), "onnxruntime", ort, "OpenCV", cv)
same = np.allclose(ort, means(ones, 0, 1)) and np.allclose(cv, [1, 0.5, 0.5, 0.25])
ramp = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)
ort, cv = run(ramp, auto_pad="SAME_LOWER")
print("SAME_LOWER: expected", means(ramp, 1, 0), "onnxruntime", ort, "OpenCV", cv)
same &= np.allclose(ort, means(ramp, 1, 0)) and np.allclose(cv, means(ramp, 0, 1))
raise SystemExit(None if same else "changed: OpenCV's AveragePool at the border")
PY
