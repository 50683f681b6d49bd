#!/usr/bin/env bash
# tract refuses a float16 Gemm with a bias, and takes the same layer as MatMul and Add.
#
# One would guess: Gemm is taken in float16 as in float32: its definition allows it, with or without the third input.
# What happens: the sum of product and bias is typed float32, so loading ends with "Output mismatch after rewiring
#   expansion: expected F16 got F32". It takes a bias (or alpha other than 1) to see it: Gemm without both is fine, and
#   so are MatMul + Add in float16 and Gemm in float32.
# Seen: 2026-11-28, x86-64 Linux, CPython 3.11, tract 0.23.9; onnxruntime 1.32.0 takes all.
# Output: float32 Gemm with bias 5.0; float16: Gemm without bias 4.0, with bias refused, MatMul + Add 5.0
# Hurt: each torch.nn.Linear of an exported classifier is such a Gemm, so half-precision models of most backbones do not
#   load.
# Way out: rewrite Gemm as MatMul and Add before converting to float16 (Transpose the weights for transB=1).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0 tract==0.23.9
venv/bin/python - <<'PY'
import numpy as np
import onnx
import onnxruntime
import tract
from onnx import helper, numpy_helper


def run(nodes, kind, held):
    element = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    value = lambda name, shape: helper.make_tensor_value_info(name, element, shape)
    graph = helper.make_graph(nodes, "g", [value("x", [1, 4])], [value("y", [1, 3])], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "g.onnx")
    x = np.ones((1, 4), kind)
    ort = onnxruntime.InferenceSession("g.onnx", providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    try:
        loaded = tract.onnx().load("g.onnx")
        loaded = loaded.into_model() if hasattr(loaded, "into_model") else loaded
        got = float(loaded.into_runnable().run([x])[0].to_numpy().ravel()[0])
    except Exception as error:  # tract raises its own type
        got = "refused: " + next(line for line in str(error).splitlines() if "mismatch" in line).strip()
    return float(ort.ravel()[0]), got


same = True
for kind in (np.float32, np.float16):
    w = numpy_helper.from_array(np.ones((4, 3), kind), "w")
    t = numpy_helper.from_array(np.ones((3, 4), kind), "w")
    b = numpy_helper.from_array(np.ones(3, kind), "b")
    cases = {
        "Gemm": ([helper.make_node("Gemm", ["x", "w"], ["y"])], [w]),
        "Gemm with bias": ([helper.make_node("Gemm", ["x", "w", "b"], ["y"])], [w, b]),
        "Gemm with bias, transB": ([helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)], [t, b]),
        "Gemm with alpha": ([helper.make_node("Gemm", ["x", "w"], ["y"], alpha=0.5)], [w]),
        "MatMul + Add": (
            [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Add", ["m", "b"], ["y"])],
            [w, b],
        ),
    }
    for name, (nodes, held) in cases.items():
        ort, got = run(nodes, kind, held)
        print(f"{kind.__name__} {name}: onnxruntime {ort}, tract {got}")
        if kind is np.float16 and "with" in name:
            same &= str(got).startswith("refused") and "F16" in got and "F32" in got
        else:
            same &= got == ort
raise SystemExit(None if same else "changed: tract takes a float16 Gemm with bias")
PY
