#!/usr/bin/env bash
# MNN's Mod of floats takes the sign of the divisor, where ONNX has C's fmod alone; of integers it computes both forms.
#
# One would guess: Mod with fmod=1, which the standard requires for floats, is C's fmod: fmod(-1, 3) = -1. The same node
#   is right for integers.
# What happens: of floats the attribute is dropped, and Mod of -1 by 3 is 2, as torch.remainder and Python have it.
#   Positive numbers hide it.
# Seen: 2026-11-29, x86-64 Linux, CPython 3.11, MNN 3.6.1.
# Output: [-5, -3, -1, 1, 5] fmod 3: expected [-2, -0, -1, 1, 2], MNN [1, 0, 2, 1, 2]
# Hurt: torch.fmod, phases and offsets around zero.
# Way out: x - Trunc(x / n) * n, where Trunc is Sign(q) * Floor(Abs(q)).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 MNN==3.6.1
venv/bin/python - <<'PY'
import os

import _tools
import MNN
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

x = np.array([[-5, -3, -1, 1, 5]], np.float32)


def computed(nodes):
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 5])
    numbers = [numpy_helper.from_array(np.array(3, kind), name) for name, kind in (("n", np.float32), ("i", np.int32))]
    graph = helper.make_graph(nodes, "g", [value("x")], [value("y")], numbers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "m.onnx")
    noise, null = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)  # the converter prints from C++
    _tools.mnnconvert(["convert", "-f", "ONNX", "--modelFile", "m.onnx", "--MNNModel", "m.mnn", "--bizCode", "x"])
    net = MNN.nn.load_module_from_file("m.mnn", ["x"], ["y"])
    os.dup2(noise, 1)
    holder = MNN.expr.placeholder([1, 5], MNN.expr.NCHW, MNN.expr.float)
    holder.write(x)
    return np.array(MNN.expr.convert(net.forward([holder])[0], MNN.expr.NCHW).read()).ravel()


node = helper.make_node
integers = [node("Cast", ["x"], ["a"], to=TensorProto.INT32), node("Cast", ["m"], ["y"], to=TensorProto.FLOAT)]
truncated = [
    node("Div", ["x", "n"], ["q"]),
    node("Sign", ["q"], ["s"]),
    node("Abs", ["q"], ["b"]),
    node("Floor", ["b"], ["f"]),
    node("Mul", ["s", "f"], ["t"]),
    node("Mul", ["t", "n"], ["w"]),
    node("Sub", ["x", "w"], ["y"]),
]
cases = {
    "Mod of floats, fmod=1": ([node("Mod", ["x", "n"], ["y"], fmod=1)], np.fmod, np.mod),
    "Mod of integers, fmod=1": ([integers[0], node("Mod", ["a", "i"], ["m"], fmod=1), integers[1]], np.fmod, np.fmod),
    "Mod of integers, fmod=0": ([integers[0], node("Mod", ["a", "i"], ["m"], fmod=0), integers[1]], np.mod, np.mod),
    "x - Trunc(x / 3) * 3": (truncated, np.fmod, np.fmod),
}
same = True
for text, (nodes, standard, seen) in cases.items():
    found = computed(nodes)
    print(f"{text} of {x[0].tolist()}: expected {standard(x[0], 3).tolist()}, MNN {found.tolist()}")
    same &= bool(np.array_equal(found, seen(x[0], 3)))
raise SystemExit(None if same else "changed: the remainder of floats in MNN")
PY
