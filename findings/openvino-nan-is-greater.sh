#!/usr/bin/env bash
# In OpenVINO NaN is greater than everything, even infinity; a threshold accepts it.
#
# One would guess: every comparison with NaN is false, so `largest probability >= threshold` rejects what is no number.
# What happens: Greater and GreaterOrEqual behave as "not less or equal" and "not less": true where either side is NaN.
#   Less, LessOrEqual and Equal are false, as they should be, on either side. And Relu makes NaN 0, so a fault in
#   front of it disappears.
# Seen: 2026-11-29, x86-64 Linux (AVX-512), CPython 3.11, openvino 2026.4.1 (float32), against onnxruntime 1.32.0 and
#   onnx's evaluator 1.23.2.
# Output: NaN > 0.5, >= 0.5, > inf and 0.5 > NaN: OpenVINO true, the others false; NaN < 0.5, 0.5 <= NaN, NaN == NaN:
#   false; Relu of NaN: OpenVINO 0, the others NaN; softmax of NaN >= 0.9: OpenVINO true
# Hurt: rules inside a graph (accept, detect, keep) that compare with >=: a broken input passes with full confidence.
# Way out: write the rule as LessOrEqual(threshold, value), which rejects NaN everywhere.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0 openvino==2026.4.1
venv/bin/python - <<'PY'
import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

node = helper.make_node
nan, inf = np.nan, np.inf


def run(nodes, kind, **given):
    """The output `y` in OpenVINO, onnxruntime and the evaluator."""
    given = {name: np.float32(array) for name, array in given.items()}
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, list(a.shape)) for n, a in given.items()]
    shape = list(given["a"].shape)
    graph = helper.make_graph(nodes, "g", values, [helper.make_tensor_value_info("y", kind, shape)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "g.onnx")
    compiled = openvino.Core().compile_model("g.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    with np.errstate(all="ignore"):
        return (
            compiled(given)[0],
            onnxruntime.InferenceSession("g.onnx", providers=["CPUExecutionProvider"]).run(None, given)[0],
            ReferenceEvaluator(model).run(None, given)[0],
        )


same = True
PAIRS = [(nan, 0.5), (nan, inf), (0.5, nan), (nan, nan)]
for op, wrong in {"Greater": True, "GreaterOrEqual": True, "Less": False, "LessOrEqual": False, "Equal": False}.items():
    for a, b in PAIRS:
        for count in (1, 21):  # a single value, whole vectors and a rest
            found = run([node(op, ["a", "b"], ["y"])], TensorProto.BOOL, a=[a] * count, b=[b] * count)
            same &= [set(y.tolist()) for y in found] == [{wrong}, {False}, {False}]
        print(f"{op}({a}, {b}): OpenVINO {found[0][0]}, onnxruntime {found[1][0]}, evaluator {found[2][0]}")
found = run([node("Relu", ["a"], ["y"])], TensorProto.FLOAT, a=[nan])
print(f"Relu(nan): OpenVINO {found[0][0]}, onnxruntime {found[1][0]}, evaluator {found[2][0]}")
same &= found[0][0] == 0 and np.isnan(found[1][0]) and np.isnan(found[2][0])
logits = [[nan, 1, 2]]
for op, names in {"GreaterOrEqual": ["p", "b"], "LessOrEqual": ["b", "p"]}.items():
    rule = [node("Softmax", ["a"], ["p"], axis=1), node(op, names, ["y"])]
    found = run(rule, TensorProto.BOOL, a=logits, b=[[0.9]])
    print(f"softmax of {logits[0]} against 0.9 by {op}: {[y.ravel().tolist() for y in found]}")
    same &= [bool(y.any()) for y in found] == [op == "GreaterOrEqual", False, False]
raise SystemExit(None if same else "changed: how OpenVINO compares NaN")
PY
