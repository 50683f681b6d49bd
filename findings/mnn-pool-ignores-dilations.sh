#!/usr/bin/env bash
# MNN drops the dilations of MaxPool and AveragePool.
#
# One would guess: a converter that does not support an attribute refuses the node.
# What happens: the attribute is ignored: a 2x2 window with dilation 2 is computed as a dense one, and the output has
#   another shape than the file declares.
# Seen: 2026-11-28, x86-64 Linux, CPython 3.11, MNN 3.6.1.
# Output: dilated MaxPool of a 4x4 ramp: expected (1, 1, 2, 2) = [10 11 14 15], MNN (1, 1, 3, 3) = [5 6 7 9 10 11 13
#   14 15]
# Hurt: atrous spatial pooling: wrong features, and a size that later layers may absorb.
# Way out: take strided slices and Max or Add.
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
from onnx import TensorProto, helper

x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)


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


def pool(name, op, feed, shape, **attributes):
    value = lambda n, dims: helper.make_tensor_value_info(n, TensorProto.FLOAT, dims)
    node = helper.make_node(op, ["x"], ["y"], kernel_shape=[2, 2], **attributes)
    return run(name, helper.make_graph([node], "p", [value("x", list(feed.shape))], [value("y", shape)]), 19, feed)


def windows(a, step):
    size = a.shape[-1] - step
    return np.stack([a[..., i : i + size, j : j + size] for i in (0, step) for j in (0, step)])


same = True
for op, fold in (("MaxPool", np.max), ("AveragePool", np.mean)):
    got = pool(op, op, x, [1, 1, 2, 2], strides=[1, 1], dilations=[2, 2])
    right, dense = fold(windows(x, 2), 0), fold(windows(x, 1), 0)
    print(op, "expected", right.shape, right.ravel(), "MNN", got.shape, got.ravel())
    same &= got.shape == dense.shape and np.allclose(got, dense)
raise SystemExit(None if same else "changed: MNN reads the dilations of a pooling now")
PY
