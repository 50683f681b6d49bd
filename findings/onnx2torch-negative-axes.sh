#!/usr/bin/env bash
# onnx2torch reduces other axes where ReduceMax counts them from the end, and its CumSum runs backwards by default.
#
# One would guess: the largest value over axes [-2, -1] of a map (N, C, H, W) is the global max pooling (N, C), as in
#   ONNX Runtime and as torch's amax((-2, -1)) is exported; and CumSum without attributes begins at the front.
# What happens: ReduceMax, ReduceMin and ReduceProd go axis by axis. Without kept dimensions each axis is moved by the
#   number of axes that are gone, negative ones too: [-2, -1] takes H and then C, and leaves (N, W). [1, -1] takes W and
#   then N. Where two sides are equal, shapes are right and the numbers are not. ReduceSum and ReduceMean are right, and
#   so are positive axes and keepdims=1. CumSum without the attribute `reverse` has reverse=1, though ONNX says 0.
# Seen: 2026-11-29, x86-64 Linux, CPython 3.11, onnx2torch 1.5.15, torch 2.14.1, onnx 1.23.2, onnxruntime 1.32.0.
# Output: axes [-2, -1]: (2, 3), in onnx2torch (2, 4); a map of 4 channels, 3 x 4: equal shapes, other values; CumSum
#   of [1 2 3]: [1 3 6], in onnx2torch [6 5 3]
# Hurt: whoever brings ONNX to torch, ExecuTorch or Core ML this way: global max pooling over the wrong axes, and sums
#   along a sequence from its end.
# Way out: count axes from the front or keep dimensions and squeeze; state reverse=0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check numpy==2.4.6 torch==2.14.1 torchvision==0.29.1 \
    onnx==1.23.2 onnx2torch==1.5.15 onnxruntime==1.32.0
venv/bin/python - 2>/dev/null <<'PY'
import warnings

import numpy as np
import onnx2torch
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

warnings.simplefilter("ignore")


def outputs(node, x, constants=()):
    """Of one node: what ONNX Runtime gives, and what onnx2torch gives."""
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]
    return expected, onnx2torch.convert(model)(torch.from_numpy(x)).numpy()


def reduced(operator, axes, keepdims, x):
    return outputs(helper.make_node(operator, ["x"], ["y"], axes=axes, keepdims=keepdims), x)


same = True
generator = np.random.default_rng(0)
x = generator.normal(size=(2, 3, 5, 4)).astype(np.float32)
for operator in ("ReduceMax", "ReduceMin", "ReduceProd", "ReduceMean"):
    for axes, shape in (([-2, -1], (2, 4)), ([1, -1], (3, 5)), ([2, 3], None)):
        expected, found = reduced(operator, axes, 0, x)
        print(f"{operator} over {axes}: {expected.shape}, in onnx2torch {found.shape}")
        is_right = found.shape == expected.shape and np.allclose(found, expected, rtol=1e-4)
        if operator == "ReduceMean" or shape is None:
            same &= is_right
        else:
            same &= found.shape == shape
expected, found = reduced("ReduceMax", [-2, -1], 1, x)
same &= np.array_equal(expected, found)
square = generator.normal(size=(2, 4, 3, 4)).astype(np.float32)
expected, found = reduced("ReduceMax", [-2, -1], 0, square)
print(f"ReduceMax of {square.shape}: {expected[0]}, in onnx2torch {found[0]}")
same &= np.array_equal(expected, square.max((2, 3))) and np.array_equal(found, square.max((1, 2)))
row = np.array([1, 2, 3], np.float32)
for attributes, right in (({}, False), ({"reverse": 0}, True)):
    node = helper.make_node("CumSum", ["x", "axis"], ["y"], **attributes)
    expected, found = outputs(node, row, [("axis", np.array(0, np.int64))])
    print(f"CumSum {attributes} of {row}: {expected}, in onnx2torch {found}")
    same &= expected.tolist() == [1, 3, 6] and found.tolist() == ([1, 3, 6] if right else [6, 5, 3])
raise SystemExit(None if same else "changed: axes or CumSum in onnx2torch")
PY
