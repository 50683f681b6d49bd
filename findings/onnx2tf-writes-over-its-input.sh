#!/usr/bin/env bash
# onnx2tf writes over the .onnx file that it converts, and turns Clip(min=1e-6) into a ReLU.
#
# One would guess: a converter reads its input, and a lower bound of 1e-6 keeps 0 / 0 away.
# What happens: the given file is replaced by a version with inferred shapes: its checksum and every signature over it
#   are void. Clip with a minimum of 1e-6 or less and no maximum becomes ReLU, so x / clip(x) is NaN at 0 in the
#   TFLite model; with 2e-6 the guard stays.
# Seen: 2026-11-28, x86-64 Linux, onnx2tf 2.6.9 and ai-edge-litert 2.1.2 (CPython 3.12: set PYTHON312 where it is not
#   "python3.12").
# Output: file before 125 bytes, after 180 bytes; x / clip(x) at 0: minimum 1e-6 nan, 2e-6 0.0
# Hurt: bundles whose manifest holds a checksum of the model; normalizations guarded by a small clamp.
# Way out: convert a copy; clamp at 2e-6 or add 1e-7.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON312:-python3.12}" -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check onnx2tf==2.6.9 ai-edge-litert==2.1.2 numpy==2.2.6 onnx==1.20.1 onnxruntime==1.26.0 onnxscript==0.6.2 onnxsim==0.6.5
venv/bin/python - <<'PY'
import glob
import subprocess

import numpy as np
import onnx
from ai_edge_litert.interpreter import Interpreter
from onnx import TensorProto, helper, numpy_helper

same = True
for least in (1e-6, 2e-6):
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2, 4, 4])
    nodes = [helper.make_node("Clip", ["x", "least"], ["c"]), helper.make_node("Div", ["x", "c"], ["y"])]
    graph = helper.make_graph(
        nodes, "g", [value("x")], [value("y")], [numpy_helper.from_array(np.float32(least), "least")]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "m.onnx")
    before = open("m.onnx", "rb").read()
    out = f"out_{least}"
    subprocess.run(["venv/bin/onnx2tf", "-i", "m.onnx", "-o", out, "-kat", "x", "-n"], check=True, capture_output=True)
    after = open("m.onnx", "rb").read()
    lite = Interpreter(glob.glob(f"{out}/*_float32.tflite")[0])
    lite.allocate_tensors()
    lite.set_tensor(lite.get_input_details()[0]["index"], np.zeros((1, 2, 4, 4), np.float32))
    lite.invoke()
    y = lite.get_tensor(lite.get_output_details()[0]["index"]).ravel()
    print(
        f"input file: {len(before)} bytes before, {len(after)} after; 0 / clip(0, min={least}) = {y[0]}, expected {0 / least}"
    )
    same &= before != after and bool(np.isnan(y).all() if least == 1e-6 else (y == 0).all())
raise SystemExit(None if same else "changed: onnx2tf leaves its input alone, or keeps Clip(min=1e-6)")
PY
