#!/usr/bin/env bash
# OpenVINO ignores the axes of ReduceL1, ReduceLogSum and ReduceLogSumExp at opsets 13 to 17.
#
# One would guess: a file of opset 13 keeps axes as an attribute (only ReduceSum moved them to an input there), so the
#   attribute is read.
# What happens: for these three operators the attribute is dropped at opset 13, and the whole tensor is reduced to a
#   scalar, without an error though the declared output is (2, 3). At opsets 11 and 18, and for ReduceL2, ReduceMean,
#   ReduceSumSquare at 13, the result is right.
# Seen: 2026-11-28, x86-64 Linux, CPython 3.11, openvino 2026.4.1.
# Output: ReduceL1: opset 11 (2, 3), 13 () = 39.0, 18 (2, 3)
# Hurt: log-sum-exp pooling or L1 norms in models exported at opset 13 to 17, the usual range of the last years.
# Way out: export at opset 18, or convert the file with onnx.version_converter.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 openvino==2026.4.1
venv/bin/python - <<'PY'
import numpy as np
import onnx
import openvino
from onnx import TensorProto, helper, numpy_helper

x = np.arange(1, 13, dtype=np.float32).reshape(2, 3, 2) / 2
core = openvino.Core()


def reduce(op, opset):
    value = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
    if opset < 18:
        node, held = helper.make_node(op, ["x"], ["y"], axes=[2], keepdims=0), []
    else:
        node, held = helper.make_node(op, ["x", "a"], ["y"], keepdims=0), [numpy_helper.from_array(np.array([2]), "a")]
    graph = helper.make_graph([node], "r", [value("x", [2, 3, 2])], [value("y", [2, 3])], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "r.onnx")
    return core.compile_model("r.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([x])[0]


wide = x.astype(float)
oracle = {
    "ReduceL1": lambda axes: np.abs(wide).sum(axes),
    "ReduceLogSum": lambda axes: np.log(wide.sum(axes)),
    "ReduceLogSumExp": lambda axes: np.log(np.exp(wide).sum(axes)),
    "ReduceL2": lambda axes: np.sqrt((wide**2).sum(axes)),
}
same = True
for op, right in oracle.items():
    got = {opset: reduce(op, opset) for opset in (11, 13, 17, 18)}
    print(
        op,
        {opset: y.shape for opset, y in got.items()},
        "opset 13:",
        got[13].ravel()[:2],
        "expected",
        right(2).ravel()[:2],
    )
    for opset, y in got.items():
        lost = op != "ReduceL2" and opset in (13, 17)
        same &= y.shape == (() if lost else (2, 3)) and np.allclose(y, right((0, 1, 2) if lost else 2), atol=1e-4)
raise SystemExit(
    None
    if same
    else "changed: OpenVINO no longer drops the axes of ReduceL1 / ReduceLogSum / ReduceLogSumExp at opset 13"
)
PY
