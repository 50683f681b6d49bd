#!/usr/bin/env bash
# onnxconverter-common caps float16 weights at 10,000, though half precision reaches 65,504.
#
# One would guess: converting a constant to float16 changes only what float16 cannot hold.
# What happens: finite weights beyond +-1e4 become +-1e4 by default (20,000 is halved, 60,000 too), and what is
#   smaller than 1e-7 becomes 1e-7; infinities stay; a warning says "truncated". onnxruntime.transformers.float16, a
#   copy of the same code, caps at 65,504 and 6e-8, without a warning: an epsilon of 1e-12 or a weight of 1e-9 grows
#   60,000 and 60 times instead of becoming 0.
# Seen: 2026-11-28, x86-64 Linux, CPython 3.11, onnxconverter-common 1.16.0, onnxruntime 1.32.0.
# Output: [20000 60000 1e-9 -inf]: numpy [20000 60000 0 -inf], onnxconverter-common [10000 10000 1e-07 -inf],
#   onnxruntime [20000 60000 6e-08 -inf]
# Hurt: scales, position tables, pixel offsets, masks of -1e9 beside a real logit of -2e4, sums instead of means.
# Way out: pass min_positive_val=0 and max_finite_val=65504, and compare every initializer with
#   numpy's cast.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0 onnxconverter-common==1.16.0
venv/bin/python - <<'PY'
import copy
import warnings

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from onnxconverter_common import float16 as common
from onnxruntime.transformers import float16 as ort

np.seterr(all="ignore")
weights = np.float32([20000, 60000, 1e-9, -np.inf])
value = lambda n: helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 4])
graph = helper.make_graph(
    [helper.make_node("Add", ["x", "w"], ["y"])],
    "g",
    [value("x")],
    [value("y")],
    [numpy_helper.from_array(weights, "w")],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
got, spoken = {}, {}
for name, module in (("onnxconverter-common", common), ("onnxruntime", ort)):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        half = module.convert_float_to_float16(copy.deepcopy(model))
    got[name] = numpy_helper.to_array(half.graph.initializer[0])
    spoken[name] = sum("truncated" in str(w.message) for w in caught)
    print(name, got[name], got[name].dtype, "warnings:", spoken[name])
print("numpy", weights.astype(np.float16))
tiny = np.float16(6e-8)
same = (
    np.array_equal(got["onnxconverter-common"], np.float16([10000, 10000, 1e-7, -np.inf]))
    and np.array_equal(got["onnxruntime"], np.array([20000, 60000, tiny, -np.inf], np.float16))
    and spoken["onnxruntime"] == 0
)
raise SystemExit(None if same else "changed: how a float16 converter treats large and small weights")
PY
