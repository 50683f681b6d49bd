#!/usr/bin/env bash
# In onnx's evaluator the mean of 1024 ones in bfloat16 is 0.25, and 1024 equal probabilities have the sum 4.
#
# One would guess: a mean of low precision is right to its last bit or so, as on hardware, which sums in float32; or
#   it overflows where the sum does.
# What happens: numpy adds bfloat16 values one by one to a bfloat16 total, which stops at 256: 256 + 1 is 256.
#   ReduceMean, ReduceSum, GlobalAveragePool, AveragePool, Softmax and LayerNormalization are wrong by any factor.
#   float16 is summed in pairs along the last axis and is right there. Along another axis it stops at 2048. MatMul is
#   right in both.
# Seen: 2026-11-29, x86-64 Linux, CPython 3.11, onnx 1.23.2, numpy 2.4.6, ml_dtypes 0.6.0.
# Output: bfloat16, 1024 values: ReduceMean 0.25, GlobalAveragePool of 32 x 32 0.25, sum of Softmax 4,
#   LayerNormalization of 0 and 2 1.5 (right: 1); float16, 4096 positions: ReduceMean over rows and columns of
#   64 x 64 x 2 0.5, over the last axis 1; sum of Softmax over the positions 2
# Hurt: whoever takes the evaluator as the truth about half precision: a graph looks ruined by its precision that is
#   fine on hardware, or a runtime looks wrong that is right.
# Way out: cast to float32 around sums in the graph that is evaluated, or use kernels of one's own for these operators.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 ml_dtypes==0.6.0
venv/bin/python - <<'PY'
import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

KINDS = {"bfloat16": (ml_dtypes.bfloat16, TensorProto.BFLOAT16), "float16": (np.float16, TensorProto.FLOAT16)}


def run(op, kind, values, held=None, **attributes):
    """The output of one operator; `held` are further inputs."""
    dtype, code = KINDS[kind]
    value = lambda n: helper.make_tensor_value_info(n, code, list(values.shape) if n == "x" else [None] * values.ndim)
    held = {n: array.astype(dtype) if array.dtype == float else array for n, array in (held or {}).items()}
    graph = helper.make_graph(
        [helper.make_node(op, ["x", *held], ["y"], **attributes)],
        "g",
        [value("x")],
        [value("y")],
        [numpy_helper.from_array(array, n) for n, array in held.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    y = ReferenceEvaluator(model).run(None, {"x": values.astype(dtype)})[0]
    assert y.dtype == dtype
    return y.astype(float)


axes = lambda *each: {"axes": np.array(each)}
two = np.tile([0.0, 2.0], 512)[None]  # mean 1, standard deviation 1
got = {}
for kind in KINDS:
    got[kind] = {
        "ReduceMean of 1024": run("ReduceMean", kind, np.ones((1, 1024)), axes(1)).max(),
        "GlobalAveragePool of 32 x 32": run("GlobalAveragePool", kind, np.ones((1, 1, 32, 32))).max(),
        "sum of Softmax of 1024": run("Softmax", kind, np.zeros((1, 1024)), axis=1).sum(),
        "LayerNormalization of 1024": run("LayerNormalization", kind, two, {"scale": np.ones(1024)}).max(),
        "MatMul with 1024 of 1/1024": run("MatMul", kind, np.ones((1, 1024)), {"w": np.ones((1024, 1)) / 1024}).max(),
        "ReduceMean of the last 4096": run("ReduceMean", kind, np.ones((1, 2, 4096)), axes(2)).max(),
        "ReduceMean of 64 x 64, channels last": run("ReduceMean", kind, np.ones((1, 64, 64, 2)), axes(1, 2)).max(),
        "sum of Softmax of 4096, channels last": run("Softmax", kind, np.zeros((1, 4096, 2)), axis=1)[0, :, 0].sum(),
    }
for name in got["float16"]:
    print(f"{name}: 1 expected, bfloat16 {got['bfloat16'][name]:g}, float16 {got['float16'][name]:g}")
seen = {"bfloat16": [0.25, 0.25, 4, 1.5, 1, 0.0625, 0.0625, 16], "float16": [1, 1, 1, 1, 1, 1, 0.5, 2]}
same = all(np.allclose(list(got[kind].values()), seen[kind], rtol=0.01) for kind in KINDS)
raise SystemExit(None if same else "changed: how onnx's evaluator adds up values of half precision")
PY
