#!/usr/bin/env bash
# MNN's cubic Resize is wrong in the first row and column, and takes -0.75 for every coefficient.
#
# One would guess: mode="cubic" is the same everywhere in the picture, and cubic_coeff_a and nearest_mode are read.
# What happens: where an enlarged pixel lies before the center of the first one (coordinate -0.25 at factor 2), MNN
#   clamps the whole part to 0 and keeps the fraction 0.75: it takes the value almost one pixel further on. The last
#   row and column are right. cubic_coeff_a=-0.5 and exclude_outside are ignored. In mode "nearest" round_prefer_ceil
#   and ceil are computed as round_prefer_floor.
# Seen: 2026-11-28, x86-64 Linux, CPython 3.11, MNN 3.6.1, onnxruntime 1.32.0.
# Output: [1 2 3 4] to 8, cubic: expected [0.895 1.191 ...], MNN [1.668 1.191 ...]; nearest ceil: expected
#   [1 2 2 3 3 4 4 4], MNN [1 1 2 2 3 3 4 4]
# Hurt: bicubic up-scaling: super-resolution, interpolated position embeddings of vision transformers, heat maps: a seam
#   at the top and at the left.
# Way out: mode "linear"; or a MatMul with the filter's weights on each side.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0 MNN==3.6.1
venv/bin/python - <<'PY'
import os

import _tools
import MNN
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

x = np.array([1, 2, 3, 4], np.float32).reshape(1, 1, 1, 4)


def run(width, **attributes):
    value = lambda n, size: helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 1, 1, size])
    node = helper.make_node("Resize", ["x", "", "", "s"], ["y"], **attributes)
    held = [numpy_helper.from_array(np.array([1, 1, 1, width]), "s")]
    graph = helper.make_graph([node], "g", [value("x", 4)], [value("y", width)], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "g.onnx")
    ort = onnxruntime.InferenceSession("g.onnx", providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    noise, null = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)  # the converter prints from C++
    _tools.mnnconvert(["convert", "-f", "ONNX", "--modelFile", "g.onnx", "--MNNModel", "g.mnn", "--bizCode", "x"])
    net = MNN.nn.load_module_from_file("g.mnn", ["x"], ["y"])
    os.dup2(noise, 1)
    holder = MNN.expr.placeholder(list(x.shape), MNN.expr.NCHW, MNN.expr.float)
    holder.write(x)
    return ort.ravel(), np.array(MNN.expr.convert(net.forward([holder])[0], MNN.expr.NCHW).read()).ravel().copy()


def cubic(width, a, clamped):
    """ONNX's cubic interpolation with half pixels; `clamped` sets a negative whole part to 0."""
    at = (np.arange(width) + 0.5) * 4 / width - 0.5
    whole = np.floor(at).astype(int)
    part = at - whole
    whole = np.maximum(whole, 0) if clamped else whole
    total = 0
    for step in (-1, 0, 1, 2):
        d = np.abs(part - step)
        near = (a + 2) * d**3 - (a + 3) * d**2 + 1
        far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
        total = total + np.where(d <= 1, near, far) * x.ravel()[np.clip(whole + step, 0, 3)]
    return total


np.set_printoptions(precision=3, suppress=True)
same = True
for width in (8, 6, 2):
    for a in (-0.75, -0.5):
        ort, mnn = run(width, mode="cubic", cubic_coeff_a=a)
        print(f"cubic, a={a}, 4 -> {width}: expected {cubic(width, a, False)}, MNN {mnn}")
        same &= np.allclose(ort, cubic(width, a, False), atol=1e-4)
        same &= np.allclose(mnn, cubic(width, -0.75, True), atol=1e-3)
near = {way: run(8, mode="nearest", nearest_mode=way) for way in ("round_prefer_floor", "floor", "ceil")}
near["round_prefer_ceil, 4 -> 6"] = run(6, mode="nearest", nearest_mode="round_prefer_ceil")
for way, (ort, mnn) in near.items():
    print(f"nearest, {way}: expected {ort}, MNN {mnn}")
    same &= np.array_equal(ort, mnn) == ("floor" in way)
raise SystemExit(None if same else "changed: MNN's Resize in mode cubic or nearest")
PY
