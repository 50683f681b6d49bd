#!/usr/bin/env bash
# MNN pads at the end for SAME_LOWER, in Conv and pooling; onnx's evaluator forgets it in MaxPool with strides.
#
# One would guess: auto_pad="SAME_LOWER" puts the odd row and column of padding at the start, as its name says.
# What happens: MNN computes Conv, MaxPool and AveragePool as with SAME_UPPER: every feature is shifted by one pixel.
#   onnx's ReferenceEvaluator is right but for MaxPool with strides, where it pads nothing: 5x5 in windows of 3 and
#   steps of 2 gives 2x2 where 3x3 is due. Where the padding is even (5x5, 3, 2) MNN is right.
# Seen: 2026-11-28, x86-64 Linux, CPython 3.11, MNN 3.6.1, onnx 1.23.2.
# Output: 4x4 ramp, MaxPool 3x3, stride 2: expected [5 7 13 15], MNN [10 11 14 15], reference [10 11 14 15]
# Hurt: detectors and other models of older exporters that write auto_pad; a test by one runtime against another may
#   agree on the wrong answer.
# Way out: write the pads out as numbers.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 MNN==3.6.1
venv/bin/python - <<'PY'
import os

import _tools
import MNN
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator


def run(op, x, kernel, stride, **held):
    value = lambda n, size: helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 1, size, size])
    attributes = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "auto_pad": "SAME_LOWER"}
    node = helper.make_node(op, ["x", *held], ["y"], **attributes)
    ends = [value("x", x.shape[2])], [value("y", -(-x.shape[2] // stride))]
    graph = helper.make_graph([node], "g", *ends, [numpy_helper.from_array(a, n) for n, a in held.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "g.onnx")
    noise, null = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)  # the converter prints from C++
    _tools.mnnconvert(["convert", "-f", "ONNX", "--modelFile", "g.onnx", "--MNNModel", "g.mnn", "--bizCode", "x"])
    net = MNN.nn.load_module_from_file("g.mnn", ["x"], ["y"])
    os.dup2(noise, 1)
    holder = MNN.expr.placeholder(list(x.shape), MNN.expr.NCHW, MNN.expr.float)
    holder.write(x)
    y = np.array(MNN.expr.convert(net.forward([holder])[0], MNN.expr.NCHW).read()).copy()
    return y[0, 0], ReferenceEvaluator(model).run(None, {"x": x})[0][0, 0]


def windows(x, kernel, stride, lower, fill):
    """The windows of a map padded for SAME, as `[rows, columns, kernel * kernel]`."""
    size = x.shape[2]
    count = -(-size // stride)
    total = max((count - 1) * stride + kernel - size, 0)
    pads = (total - total // 2, total // 2) if lower else (total // 2, total - total // 2)
    padded = np.pad(x[0, 0], pads, constant_values=fill)
    starts = range(0, count * stride, stride)
    return np.array([[padded[i : i + kernel, j : j + kernel].ravel() for j in starts] for i in starts])


fold = {
    "MaxPool": (np.nan, lambda w: np.nanmax(w, 2)),
    "AveragePool": (np.nan, lambda w: np.nanmean(w, 2)),
    "Conv": (0, lambda w: w @ np.arange(1, w.shape[2] + 1)),
}
same = True
for size, kernel, stride in ((4, 3, 2), (3, 2, 1), (5, 3, 2)):
    x = np.arange(size * size, dtype=np.float32).reshape(1, 1, size, size)
    weights = np.arange(1, kernel * kernel + 1, dtype=np.float32).reshape(1, 1, kernel, kernel)
    for op, (fill, reduce) in fold.items():
        lower, upper = (reduce(windows(x, kernel, stride, side, fill)) for side in (True, False))
        mnn, reference = run(op, x, kernel, stride, **({"w": weights} if op == "Conv" else {}))
        print(f"{size}x{size}, {op} {kernel}, stride {stride}: expected {lower.ravel()}, MNN {mnn.ravel()}")
        same &= np.allclose(mnn, upper, rtol=1e-3)
        agrees = reference.shape == lower.shape and np.allclose(reference, lower)
        if not agrees:
            print(f"  onnx's evaluator: {reference.shape} {reference.ravel()}")
        same &= agrees == (op != "MaxPool" or stride == 1)
raise SystemExit(None if same else "changed: SAME_LOWER in MNN or in onnx's evaluator")
PY
