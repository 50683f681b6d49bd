#!/usr/bin/env bash
# onnx's version converter refuses operators that need no change, and changes the values of Softmax on the way down.
#
# One would guess: convert_version to an older opset fails where the old opset cannot say it, and gives the same
#   function everywhere else.
# What happens: "No Adapter" for Pad, Split and LpPool from opset 18 to 17, for BatchNormalization from 15 to 14 and for
#   Clip from 13 to 12, though the node as it stands is valid in both opsets and means the same. Softmax and LogSoftmax
#   from 13 to 12 are converted: axis is kept, but opset 12 normalizes over all axes behind it as well, so every axis
#   but the last gives other numbers. The result passes the checker. (12 to 13 is right: it adds Flatten and Reshape.)
# Seen: 2026-11-28, x86-64 Linux, CPython 3.11, onnx 1.23.2, onnxruntime 1.32.0.
# Output: Pad 18 -> 17: "No Adapter", renumbered by setting the opset: same values; Softmax(axis=1) of zeros [1, 2, 4,
#   4]: 0.5 in opset 13, 0.03125 in opset 12
# Hurt: attention and spatial softmax for runtimes with older opsets, and everything with padding that must go to 17.
# Way out: export at the opset that is needed; for the refused ones set model.opset_import and compare outputs.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0
venv/bin/python - <<'PY'
import copy

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper, version_converter

x = np.random.default_rng(0).normal(size=(1, 2, 4, 4)).astype(np.float32)
hold = lambda name, data: numpy_helper.from_array(np.array(data), name)


def model(opset, kind, held=(), outputs=("y",), **attributes):
    node = helper.make_node(kind, ["x", *(one.name for one in held)], list(outputs), **attributes)
    value = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
    y = [value(name, [None] * 4) for name in outputs]
    graph = helper.make_graph([node], "g", [value("x", list(x.shape))], y, list(held))
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7)
    onnx.checker.check_model(made, full_check=True)
    return made


def run(made, feed=x):
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.concatenate([one.ravel() for one in session.run(None, {"x": feed})])


def renumbered(made, opset):
    made = copy.deepcopy(made)
    made.opset_import[0].version = opset
    onnx.checker.check_model(made, full_check=True)
    return made


ones = np.ones(2, np.float32)
refused = {
    (18, 17, "Pad"): model(18, "Pad", [hold("p", [0, 0, 1, 1, 0, 0, 1, 1])]),
    (18, 17, "Split"): model(18, "Split", [hold("s", [1, 1])], ("y", "z"), axis=1),
    (18, 17, "LpPool"): model(18, "LpPool", kernel_shape=[2, 2], strides=[2, 2]),
    (15, 14, "BatchNormalization"): model(15, "BatchNormalization", [hold(name, ones) for name in "abcd"]),
    (13, 12, "Clip"): model(13, "Clip", [hold("least", np.float32(0))]),
}
same = True
for (start, end, kind), made in refused.items():
    try:
        version_converter.convert_version(made, end)
        message = "converted"
    except RuntimeError as error:
        message = str(error)[-50:].strip()
    equal = np.array_equal(run(made), run(renumbered(made, end)))
    print(f"{kind} {start} -> {end}: ...{message}; renumbered gives the same values: {equal}")
    same &= "No Adapter" in message and kind in message and equal
zeros = np.zeros_like(x)
for kind, right, wrong in (("Softmax", 1 / 2, 1 / 32), ("LogSoftmax", -np.log(2), -np.log(32))):
    new = model(13, kind, axis=1)
    old = version_converter.convert_version(new, 12)
    onnx.checker.check_model(old, full_check=True)
    back = version_converter.convert_version(old, 13)
    got = [run(one, zeros)[0] for one in (new, old, back)]
    print(f"{kind}(axis=1) of zeros: opset 13 {got[0]:.5f}, converted to 12 {got[1]:.5f}, and back to 13 {got[2]:.5f}")
    same &= np.allclose(got, [right, wrong, wrong], atol=1e-5)
raise SystemExit(None if same else "changed: onnx's version converter on the way down")
PY
