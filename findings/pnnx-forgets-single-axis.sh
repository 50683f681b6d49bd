#!/usr/bin/env bash
# pnnx forgets the axis of a reduction over one axis: ncnn then reduces nothing.
#
# One would guess: ReduceMean over axis 2 is converted as ReduceMean over axes 2 and 3 is.
# What happens: the single axis reaches ncnn's file as an empty list (`-23303=0`), and the layer returns its input:
#   the shape of one that keeps its dimensions is wrong as well, silently. ReduceSum, ReduceMean, ReduceL1 and ReduceL2
#   are affected; two axes are right.
# Seen: 2026-11-29, x86-64 Linux, CPython 3.11, pnnx 20261020, ncnn 1.0.20261020.
# Output: ReduceSum over [2]: the input; over [2, 3]: right; the same for ReduceMean, ReduceL1, ReduceL2
# Hurt: L2 normalization over channels, layer norms that are written out, attention over rows: shapes still broadcast,
#   so numbers come out and are wrong.
# Way out: move the axis into space (Transpose, Reshape) and use GlobalAveragePool or GlobalMaxPool.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 ncnn==1.0.20261020 \
  pnnx==20261020
venv/bin/python - <<'PY'
import subprocess

import ncnn
import numpy as np
import onnx
import pnnx
from onnx import TensorProto, helper, numpy_helper

value = helper.make_tensor_value_info
x = np.arange(1, 25, dtype=np.float32).reshape(1, 2, 3, 4)


def reduced(op, axes):
    out = [1 if axis in axes else side for axis, side in enumerate(x.shape)]
    nodes = [
        helper.make_node("MaxPool", ["x"], ["p"], kernel_shape=[1, 1]),  # by which pnnx finds the batch
        helper.make_node(op, ["p", "axes"], ["y"]),
    ]
    held = [numpy_helper.from_array(np.array(axes, np.int64), "axes")]
    values = [value("x", TensorProto.FLOAT, x.shape)], [value("y", TensorProto.FLOAT, out)]
    model = helper.make_model(
        helper.make_graph(nodes, "g", *values, held), opset_imports=[helper.make_opsetid("", 18)], ir_version=8
    )
    onnx.save(model, "m.onnx")
    subprocess.run([pnnx.EXEC_PATH, "m.onnx", "inputshape=[1,2,3,4]f32", "fp16=0"], check=True, capture_output=True)
    net = ncnn.Net()
    net.load_param("m.ncnn.param")
    net.load_model("m.ncnn.bin")
    extractor = net.create_extractor()
    extractor.input("in0", ncnn.Mat(x[0]).clone())
    _, found = extractor.extract("out0")
    return np.array(found)


oracle = {
    "ReduceSum": lambda axes: x.sum(axes, keepdims=True),
    "ReduceMean": lambda axes: x.mean(axes, keepdims=True),
    "ReduceL1": lambda axes: np.abs(x).sum(axes, keepdims=True),
    "ReduceL2": lambda axes: np.sqrt((x**2).sum(axes, keepdims=True)),
}
same = True
for op, right in oracle.items():
    for axes in ([1], [2], [3], [2, 3]):
        found, expected = reduced(op, axes), right(tuple(axes))[0]
        single = len(axes) == 1
        is_input = found.shape == x[0].shape and np.allclose(found, x[0], rtol=1e-2)
        is_right = found.shape == expected.shape and np.allclose(found, expected, rtol=1e-2)
        print(op, "over", axes, "the input" if is_input else "right" if is_right else found.shape)
        same &= is_input if single else is_right
raise SystemExit(None if same else "changed: pnnx keeps the axis of a reduction over one axis")
PY
