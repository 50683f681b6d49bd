#!/usr/bin/env bash
# MNN reduces over everything when ReduceL2 gets its axes as an input (opset 18).
#
# One would guess: axes given as a constant input mean the same as axes given as an attribute.
# What happens: ReduceL1, ReduceL2, ReduceSumSquare and ReduceLogSumExp ignore the input and reduce all axes, batch
#   included, to one number; ReduceMean, ReduceSum, ReduceMax honor it. With axes as an attribute (opset 13) all are
#   right.
# Seen: 2026-11-28, x86-64 Linux, CPython 3.11, MNN 3.6.1.
# Output: ReduceL2: expected (2, 3), opset 13 (2, 3), opset 18 () = 13.19; ReduceMean: right in both
# Hurt: norms, L2 normalization, Lp pooling: embeddings are all scaled by one number of the whole batch, and batch 1
#   often hides it.
# Way out: Sqrt(ReduceSum(x * x)), or export at opset 17.
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

x = np.arange(1, 13, dtype=np.float32).reshape(2, 3, 2) / 2


def run(name, graph, opset, feed):
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), f"{name}.onnx")
    noise, null = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)  # the converter prints from C++
    _tools.mnnconvert(
        ["convert", "-f", "ONNX", "--modelFile", f"{name}.onnx", "--MNNModel", f"{name}.mnn", "--bizCode", "x"]
    )
    net = MNN.nn.load_module_from_file(f"{name}.mnn", ["x"], ["y"])
    os.dup2(noise, 1)
    holder = MNN.expr.placeholder(list(feed.shape), MNN.expr.NCHW, MNN.expr.float)
    holder.write(feed)
    return np.array(MNN.expr.convert(net.forward([holder])[0], MNN.expr.NCHW).read()).copy()


def reduce(op, opset):
    value = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
    if opset < 18:
        node, held = helper.make_node(op, ["x"], ["y"], axes=[2], keepdims=0), []
    else:
        node, held = helper.make_node(op, ["x", "a"], ["y"], keepdims=0), [numpy_helper.from_array(np.array([2]), "a")]
    graph = helper.make_graph([node], "r", [value("x", [2, 3, 2])], [value("y", [2, 3])], held)
    return run(f"{op}{opset}", graph, opset, x)


wide = x.astype(float)
oracle = {
    "ReduceL1": lambda axes: np.abs(wide).sum(axes),
    "ReduceL2": lambda axes: np.sqrt((wide**2).sum(axes)),
    "ReduceSumSquare": lambda axes: (wide**2).sum(axes),
    "ReduceLogSumExp": lambda axes: np.log(np.exp(wide).sum(axes)),
    "ReduceMean": lambda axes: wide.mean(axes),
}
same = True
for op, right in oracle.items():
    old, new = reduce(op, 13), reduce(op, 18)
    print(op, "expected", right(2).shape, "opset 13", old.shape, "opset 18", new.shape, new.ravel()[:2])
    same &= old.shape == (2, 3) and np.allclose(old, right(2), atol=1e-3)
    if op == "ReduceMean":
        same &= new.shape == (2, 3) and np.allclose(new, right(2), atol=1e-3)
    else:
        same &= new.size == 1 and np.allclose(new, right((0, 1, 2)), atol=1e-2)
raise SystemExit(None if same else "changed: MNN no longer reduces everything for axes given as an input")
PY
