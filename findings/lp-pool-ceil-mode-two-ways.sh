#!/usr/bin/env bash
# LpPool with ceil_mode: half of the runtimes take the norm of the windows at the edge, the others scale it up.
#
# One would guess: LpPool is (sum |x|^p)^(1/p) over the values of a window; the values that do not exist add nothing.
# What happens: onnxruntime and IREE do that. onnx's evaluator, OpenVINO, MNN and TVM build it from an average, so that
#   a window that hangs over the edge is filled up with its own mean: larger by (k / n)^(1/p) for n of k values.
#   torch.nn.LPPool2d does so too. Where pads are given, OpenVINO joins the first group.
# Seen: 2026-11-28, x86-64 Linux, CPython 3.11, onnx 1.23.2, onnxruntime 1.32.0, openvino 2026.4.1, MNN 3.6.1.
# Output: ones 3x3, 2x2 windows, p=1: onnxruntime [4 2 2 1]; reference, OpenVINO, MNN [4 4 4 4]; p=2: [2 1.41 1.41 1]
#   against [2 2 2 2]
# Hurt: Lp pooling on odd maps: the last row and column change from one runtime to the next, the corner most.
# Way out: sizes where the windows fit, or floor; MaxPool and AveragePool (count_include_pad=0) have no such choice.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0 openvino==2026.4.1 MNN==3.6.1
venv/bin/python - <<'PY'
import os

import _tools
import MNN
import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator


def mnn(x):
    noise, null = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)  # the converter prints from C++
    _tools.mnnconvert(["convert", "-f", "ONNX", "--modelFile", "p.onnx", "--MNNModel", "p.mnn", "--bizCode", "x"])
    net = MNN.nn.load_module_from_file("p.mnn", ["x"], ["y"])
    os.dup2(noise, 1)
    holder = MNN.expr.placeholder(list(x.shape), MNN.expr.NCHW, MNN.expr.float)
    holder.write(x)
    return np.array(MNN.expr.convert(net.forward([holder])[0], MNN.expr.NCHW).read()).copy()


def run(x, rows, **attributes):
    value = lambda n, size: helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 1, size, size])
    node = helper.make_node("LpPool", ["x"], ["y"], strides=[2, 2], ceil_mode=1, **attributes)
    graph = helper.make_graph([node], "g", [value("x", x.shape[2])], [value("y", rows)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "p.onnx")
    session = onnxruntime.InferenceSession("p.onnx", providers=["CPUExecutionProvider"])
    return {
        "onnxruntime": session.run(None, {"x": x})[0],
        "reference": ReferenceEvaluator(model).run(None, {"x": x})[0],
        "OpenVINO": openvino.Core().compile_model("p.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([x])[0],
        "MNN": mnn(x),
    }


same = True
count = np.array([4, 2, 2, 1])  # the values in each window of 2x2 on a 3x3 map
for p in (1, 2, 3):
    for name, y in run(np.ones((1, 1, 3, 3), np.float32), 2, kernel_shape=[2, 2], p=p).items():
        print(f"p={p} {name}: {y.ravel()}, norm of what is there: {count ** (1 / p)}")
        seen = count if name == "onnxruntime" else np.full(4, 4)
        same &= np.allclose(y.ravel(), seen ** (1 / p), atol=1e-3)
side, kept = np.array([2, 3, 1]), np.array([2, 3, 1.5])  # values for each window of 3, and filled up (padding counts)
for name, y in run(np.ones((1, 1, 4, 4), np.float32), 3, kernel_shape=[3, 3], pads=[1] * 4, p=1).items():
    print(f"pads, p=1 {name}: {y.ravel()}")
    seen = side if name in ("onnxruntime", "OpenVINO") else kept
    same &= np.allclose(y.reshape(3, 3), np.outer(seen, seen), atol=1e-3)
raise SystemExit(None if same else "changed: who scales the partial windows of LpPool")
PY
