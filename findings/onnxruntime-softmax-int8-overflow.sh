#!/usr/bin/env bash
# onnxruntime 1.31.1 turns the largest probabilities of a flat softmax into zero in a QDQ graph.
#
# One would guess: a Softmax between DequantizeLinear and QuantizeLinear, computed in int8, is off by a step at most.
# What happens: the optimizer makes it QLinearSoftmax, which multiplies exponentials of almost the largest float32 by
#   1 / scale of the output. Over D values that overflows where the scale is below 1 / (148.4 D), and the result is the
#   zero point. The scale of a flat softmax, max / 255 with a maximum near 1 / D, is always below. The scale 1/255 or
#   1/256, which quantize_static fixes, never is (D > 1). But quantize_static measures the scale of a Softmax in
#   nodes_to_exclude (for the next layer), and the excluded softmax is quantized all the same. 1.32.0 is right.
# Seen: 2026-11-29, x86-64 Linux, CPython 3.11, onnxruntime 1.31.1 against 1.32.0.
# Output: 1.31.1: equal values, 1/scale = 148 D: level 148; 149 D: level 0, expected 149, for D = 4, 49, 400.
#   Attention pooling with its softmax excluded: error 1.00, without optimization 0.00; 1.32.0: 149 and 0.00
# Hurt: attention whose weights are nearly uniform, in graphs of tools that measure the range of the softmax, or whose
#   softmax was left in float32 on purpose.
# Way out: use 1.32.0, give the output the range 0 to 1, or put a Concat of one value before the softmax.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check numpy==2.4.6 onnx==1.23.2
cat > flat.py <<'PY'
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

node = helper.make_node


def save(path, nodes, shape, result, kind, **held):
    held = [numpy_helper.from_array(np.asarray(array), n) for n, array in held.items()]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "g", [given], [helper.make_tensor_value_info("y", kind, result)], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def run(path, x, optimize):
    options = onnxruntime.SessionOptions()
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


def level(count, times):
    """The rounded probability 1 / count, in steps of 1 / (times * count): `times` is right."""
    nodes = [
        node("QuantizeLinear", ["x", "one", "zero"], ["a"]),
        node("DequantizeLinear", ["a", "one", "zero"], ["b"]),
        node("Softmax", ["b"], ["c"], axis=-1),
        node("QuantizeLinear", ["c", "step", "zero"], ["y"]),
    ]
    shape, step = [1, count], np.float32(1 / (times * count + 0.5))
    save("s.onnx", nodes, shape, shape, TensorProto.UINT8, one=np.float32(1), zero=np.uint8(0), step=step)
    x = np.ones(shape, np.float32)
    return tuple(int(run("s.onnx", x, optimize)[0, 0]) for optimize in (False, True))


class Images(CalibrationDataReader):
    def __init__(self, x):
        self.rest = [{"x": x}]

    def get_next(self):
        return self.rest.pop() if self.rest else None


levels = {(count, times): level(count, times) for count in (4, 49, 400) for times in (148, 149, 250)}
rng = np.random.default_rng(0)
x = rng.uniform(0, 1, (64, 16, 8)).astype(np.float32)  # 16 positions with 8 features
pooling = [
    node("MatMul", ["x", "score"], ["s"], name="score"),
    node("Softmax", ["s"], ["a"], axis=1, name="softmax"),
    node("Transpose", ["a"], ["t"], perm=[0, 2, 1], name="turn"),
    node("MatMul", ["t", "x"], ["y"], name="sum"),
]
score = (rng.standard_normal((8, 1)) / 100).astype(np.float32)
save("f.onnx", pooling, ["n", 16, 8], ["n", 1, 8], TensorProto.FLOAT, score=score)
quantize_static("f.onnx", "q.onnx", Images(x), activation_type=QuantType.QUInt8, nodes_to_exclude=["softmax"])
right = run("f.onnx", x, False)
plain, fused = (
    float(np.linalg.norm(run("q.onnx", x, optimize) - right) / np.linalg.norm(right)) for optimize in (False, True)
)
print("onnxruntime", onnxruntime.__version__)
for (count, times), found in levels.items():
    print(f"  softmax of {count} equal values, 1 / scale = {times} * {count}: level {found[0]}, optimized {found[1]}")
print(f"  attention pooling, its softmax excluded: error {plain:.2f}, optimized {fused:.2f}")
old = onnxruntime.__version__ == "1.31.1"
same = all(found == (times, 0 if old and times > 148 else times) for (_, times), found in levels.items())
same &= plain < 0.02 and (fused > 0.9) == old and (old or fused < 0.02)
raise SystemExit(None if same else "changed: which scales of a softmax overflow")
PY
for version in 1.31.1 1.32.0; do
  venv/bin/pip install --quiet --no-compile --disable-pip-version-check "onnxruntime==$version"
  venv/bin/python flat.py 2> log || { cat log; exit 1; }
done
