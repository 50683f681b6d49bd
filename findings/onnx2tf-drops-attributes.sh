#!/usr/bin/env bash
# onnx2tf forgets alpha of Elu, noop_with_empty_axes of reductions, and the rule for one pixel of pytorch_half_pixel.
#
# One would guess: a converter keeps an attribute or refuses it, as onnx2tf does with dilations of poolings.
# What happens: Elu becomes TFLite's ELU, which has no alpha: negative values are those of alpha = 1. Celu and Selu are
#   right. A reduction with noop_with_empty_axes=1 and without axes reduces everything, though ONNX reduces nothing.
#   Resize to one pixel with pytorch_half_pixel takes the middle, where ONNX and torch take the first pixel. LpPool with
#   SAME padding is a mean times the whole window, so that sums at the border are too large.
# Seen: 2026-11-29, x86-64 Linux, onnx2tf 2.6.9 and ai-edge-litert 2.1.2 (CPython 3.12: set PYTHON312 where it is not
#   "python3.12"), onnxruntime 1.26.0.
# Output: Elu(-1), alpha 0.5: -0.632 instead of -0.316; the mean of nothing: -0.5 instead of the row; one pixel of 3 x 3:
#   5 instead of 1; LpPool, p = 1: 4.5 9 13.5 instead of 3 9 9
# Hurt: networks with nn.ELU(alpha) on phones: every negative activation is off, and nothing says so.
# Way out: write Relu(x) + alpha * Elu(Min(x, 0)); leave a reduction out that reduces nothing; slice the pixel; pad before
#   LpPool.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON312:-python3.12}" -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check onnx2tf==2.6.9 ai-edge-litert==2.1.2 \
    numpy==2.2.6 onnx==1.20.1 onnxruntime==1.26.0 onnxscript==0.6.2 onnxsim==0.6.5
venv/bin/python - 2>/dev/null <<'PY'
import glob
import subprocess

import numpy as np
import onnx
import onnxruntime
from ai_edge_litert.interpreter import Interpreter
from onnx import TensorProto, helper, numpy_helper


def outputs(label, operator, x, sizes=None, **attributes):
    """Of one node: what ONNX Runtime gives, and what LiteRT gives after onnx2tf."""
    extra = ["", "", "sizes"] if sizes is not None else []
    node = helper.make_node(operator, ["x", *extra], ["y"], **attributes)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array(sizes), "sizes")] if sizes is not None else [],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    model = onnx.shape_inference.infer_shapes(model)
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0].ravel()
    onnx.save(model, "one.onnx")
    out = label.replace(" ", "_")
    command = ["venv/bin/onnx2tf", "-i", "one.onnx", "-o", out, "-kat", "x", "-n"]
    subprocess.run(command, check=True, capture_output=True)
    lite = Interpreter(glob.glob(f"{out}/*_float32.tflite")[0])
    lite.allocate_tensors()
    lite.set_tensor(lite.get_input_details()[0]["index"], x)
    lite.invoke()
    found = lite.get_tensor(lite.get_output_details()[0]["index"]).ravel()
    print(f"{label}: {found} instead of {expected}")
    return expected, found


row = np.array([[-2, -1, 0, 1]], np.float32)
negative = np.exp(row) - 1
same = True
for alpha in (0.5, 1.0, 2.0):
    expected, found = outputs(f"Elu {alpha}", "Elu", row, alpha=alpha)
    same &= np.allclose(expected, np.where(row < 0, alpha * negative, row), atol=1e-5)
    same &= np.allclose(found, np.where(row < 0, negative, row), atol=1e-5)
for operator in ("Celu", "Selu"):
    expected, found = outputs(operator, operator, row, alpha=0.5)
    same &= np.allclose(expected, found, atol=1e-5)
expected, found = outputs("mean of nothing", "ReduceMean", row, noop_with_empty_axes=1)
same &= np.array_equal(expected, row[0]) and np.array_equal(found, [-0.5])
square = np.arange(1, 10, dtype=np.float32).reshape(1, 1, 3, 3)
mode = {"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel"}
expected, found = outputs("one pixel", "Resize", square, sizes=[1, 1, 1, 1], **mode)
same &= expected.tolist() == [1] and found.tolist() == [5]
line = np.arange(1, 6, dtype=np.float32).reshape(1, 1, 1, 5)
window = {"kernel_shape": [1, 3], "strides": [1, 2], "auto_pad": "SAME_UPPER"}
expected, found = outputs("LpPool", "LpPool", line, p=1, **window)
same &= expected.tolist() == [3, 9, 9] and found.tolist() == [4.5, 9, 13.5]
raise SystemExit(None if same else "changed: attributes that onnx2tf forgets")
PY
