#!/usr/bin/env bash
# Max pooling loses NaN, and the same map of -inf has two maxima in one runtime.
#
# One would guess: NaN spreads through a maximum as in torch and numpy, and the largest of only -inf is -inf.
# What happens: in ONNX Runtime a 2x2 MaxPool keeps a NaN only where it is the last of its window; three of four
#   places, GlobalMaxPool and ReduceMax make a plausible feature of it. A map of -inf (a masked channel) gives -inf in
#   a 2x2 MaxPool and in ReduceMax, but -3.4e38 in GlobalMaxPool and in a MaxPool over the whole map. MNN's
#   GlobalMaxPool has the floor -16777216: a map of -3e7 comes out larger than any of its values.
# Seen: 2026-11-28, x86-64 Linux, CPython 3.11, onnxruntime 1.32.0 (x86-64), MNN 3.6.1.
# Output: a NaN at the four places of a 2x2 window survives [no no no yes]; -inf: MaxPool 2x2 -inf, GlobalMaxPool
#   -3.4028235e+38; MNN GlobalMaxPool of -3e7: -16777216.0
# Hurt: masked pooling (-inf or -1e9 as a mask) and every check for finiteness that looks at the output.
# Way out: test finiteness before the pooling; mask with Where after it, not with -inf before it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0 MNN==3.6.1
venv/bin/python - <<'PY'
import os

import _tools
import MNN
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper


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


def graph(op, size, kernel=None):
    value = lambda n, dims: helper.make_tensor_value_info(n, TensorProto.FLOAT, dims)
    held = [numpy_helper.from_array(np.array([2, 3]), "a")] if op == "ReduceMax" else []
    extra = {"kernel_shape": [kernel] * 2, "strides": [kernel] * 2} if kernel else {}
    out = size // kernel if kernel else 1
    node = helper.make_node(op, ["x", "a"] if held else ["x"], ["y"], **extra)
    return helper.make_graph([node], "m", [value("x", [1, 1, size, size])], [value("y", [1, 1, out, out])], held)


def ort(op, x, kernel=None):
    model = helper.make_model(graph(op, x.shape[-1], kernel), opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, {"x": x}
    )[0]


def survives(op, row, column, kernel=None):
    x = np.arange(1024, dtype=np.float32).reshape(1, 1, 32, 32)
    x[0, 0, 8 + row, 8 + column] = np.nan
    assert np.isnan(x.max())  # numpy spreads it
    return bool(np.isnan(ort(op, x, kernel)).any())


places = [(0, 0), (0, 1), (1, 0), (1, 1)]
pooled = [survives("MaxPool", *place, 2) for place in places]
whole = [survives(op, *place) for op in ("GlobalMaxPool", "ReduceMax") for place in places]
print("a NaN survives a 2x2 MaxPool, by its place in the window:", dict(zip(places, pooled)))
print("a NaN survives GlobalMaxPool or ReduceMax:", any(whole))
same = pooled == [False, False, False, True] and not any(whole)
least = np.finfo(np.float32).min
low = np.full((1, 1, 8, 8), -np.inf, np.float32)
small, whole, every, axis = (
    ort("MaxPool", low, 2),
    ort("MaxPool", low, 8),
    ort("GlobalMaxPool", low),
    ort("ReduceMax", low),
)
print(
    "-inf: MaxPool 2x2", small.max(), "MaxPool 8x8", whole.max(), "GlobalMaxPool", every.max(), "ReduceMax", axis.max()
)
same &= bool(np.isneginf(small).all() and np.isneginf(axis).all() and every.max() == least)
deep = np.full((1, 1, 8, 8), -3e7, np.float32)
got = run("deep", graph("GlobalMaxPool", 8), 18, deep)
print("MNN GlobalMaxPool of -3e7:", got.ravel()[0])
same &= float(got.ravel()[0]) == -(2.0**24)
raise SystemExit(None if same else "changed: what max pooling does with NaN, -inf or very low values")
PY
