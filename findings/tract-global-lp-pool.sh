#!/usr/bin/env bash
# tract averages in GlobalLpPool, and forgets the absolute value; its Celu ignores alpha.
#
# One would guess: GlobalLpPool is (sum |x|^p)^(1/p), as ONNX defines it and as ONNX Runtime computes it.
# What happens: tract gives ((1/n) sum |x|^p)^(1/p) for even p: too small by n^(1/p), with p=2 and 7x7 positions 7
#   times; for odd p it raises x without |x|, so mixed signs shrink and a negative sum gives NaN. Celu(alpha=2) gives
#   max(x,0) + min(0, exp(x/2) - 1): the factor alpha is missing.
# Seen: 2026-11-28, x86-64 Linux, CPython 3.11, tract 0.23.9 against onnxruntime 1.32.0.
# Output: p=2: expected 5.0, ONNX Runtime 5.0, tract 2.5; p=3 of [-3 0 0 -4]: expected 4.498, tract nan; Celu(-2):
#   expected -1.264, tract -0.632
# Hurt: whoever moves a network with Lp pooling or CELU from ONNX Runtime to tract (Rust, wasm, edge).
# Way out: for p=2 Sqrt(ReduceSum(Mul(x, x))); for CELU write Mul by alpha around Elu(x / alpha).
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
from onnx import TensorProto, helper


def run(node, x, shape):
    value = lambda name, dims: helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
    graph = helper.make_graph([node], "g", [value("x", list(x.shape))], [value("y", shape)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "g.onnx")
    ort = onnxruntime.InferenceSession("g.onnx", providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    loaded = tract.onnx().load("g.onnx")
    loaded = loaded.into_model() if hasattr(loaded, "into_model") else loaded
    return ort.ravel(), loaded.into_runnable().run([x])[0].to_numpy().ravel()


x = np.float32([-3, 0, 0, -4]).reshape(1, 1, 2, 2)
same = True
for p in (2, 3):
    right = (np.abs(x.astype(float)) ** p).sum() ** (1 / p)
    ort, got = run(helper.make_node("GlobalLpPool", ["x"], ["y"], p=p), x, [1, 1, 1, 1])
    print(f"p={p}: expected {right:.4f} ONNX Runtime {ort[0]:.4f} tract {got[0]:.4f}")
    same &= abs(ort[0] - right) < 1e-3 and (abs(got[0] - right / 2) < 1e-3 if p == 2 else bool(np.isnan(got[0])))
z = np.float32([-2, 1])
right = np.maximum(z, 0) + np.minimum(0, 2 * (np.exp(z / 2) - 1))
ort, got = run(helper.make_node("Celu", ["x"], ["y"], alpha=2.0), z, [2])
print("Celu(alpha=2): expected", right, "ONNX Runtime", ort, "tract", got)
same &= np.allclose(ort, right, atol=1e-5) and np.allclose(got, [right[0] / 2, right[1]], atol=1e-5)
raise SystemExit(None if same else "changed: tract's GlobalLpPool or Celu")
PY
