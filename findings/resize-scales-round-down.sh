#!/usr/bin/env bash
# Resize by the scale 224/96 gives 223 pixels in some runtimes and 224 in others.
#
# One would guess: 96 * (224 / 96) is 224.
# What happens: the scales of ONNX are float32, and the size is floor(input * scale). float32(224/96) lies below
#   224/96: the product is 224 when it is rounded to float32, and 223.99999 in float64. onnxruntime, OpenVINO, OpenCV
#   and tract give 224; onnx's own shape inference and evaluator, IREE and tinygrad give 223. onnxruntime even infers
#   223 for its plan and warns of its own kernel. Of all pairs of sizes up to 512, 47 of 100 lose a pixel in float64,
#   and 5 of 100 even in float32.
# Seen: 2026-11-28, x86-64 Linux, CPython 3.11, onnx 1.23.2, onnxruntime 1.32.0, openvino 2026.4.1,
#   opencv-python-headless 5.0.0.93, tract 0.23.9, tinygrad 0.14.0 (by hand: iree-base-compiler 3.13.0).
# Output: 96 -> 224: onnxruntime 224, OpenVINO 224, OpenCV 224, tract 224, inferred 223, reference 223, tinygrad 223
# Hurt: preprocessing or a feature pyramid in the graph: another map size, an addition that no longer fits, or a
#   picture with one row less. The usual examples (2, 0.5) are exact and never show it.
# Way out: give Resize the sizes instead of the scales, or write np.nextafter(scale, inf).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0 opencv-python-headless==5.0.0.93 openvino==2026.4.1 tract==0.23.9 tinygrad==0.14.0
venv/bin/python - <<'PY'
import os

os.environ["DEV"] = "PYTHON"  # tinygrad without a C compiler
import cv2
import numpy as np
import onnx
import onnxruntime
import openvino
import tract
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from tinygrad import Tensor
from tinygrad.nn.onnx import OnnxRunner


def sizes(source, scale):
    x = np.ones((1, 1, source, source), np.float32)
    value = lambda n, dims: helper.make_tensor_value_info(n, TensorProto.FLOAT, dims)
    held = numpy_helper.from_array(np.array([1, 1, scale, scale], np.float32), "s")
    nodes = [helper.make_node("Resize", ["x", "", "s"], ["r"], mode="linear"), helper.make_node("Relu", ["r"], ["y"])]
    graph = helper.make_graph(nodes, "r", [value("x", [*x.shape])], [value("y", [1, 1, "h", "w"])], [held])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "r.onnx")
    quiet = onnxruntime.SessionOptions()
    quiet.log_severity_level = 3
    net = cv2.dnn.readNetFromONNX("r.onnx")
    net.setInput(x)
    loaded = tract.onnx().load("r.onnx")
    loaded = loaded.into_model() if hasattr(loaded, "into_model") else loaded
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph.value_info[0].type.tensor_type.shape
    return {
        "onnxruntime": onnxruntime.InferenceSession("r.onnx", quiet).run(None, {"x": x})[0].shape[2],
        "OpenVINO": openvino.Core().compile_model("r.onnx", "CPU")([x])[0].shape[2],
        "OpenCV": net.forward().shape[2],
        "tract": loaded.into_runnable().run([x])[0].to_numpy().shape[2],
        "inferred": inferred.dim[2].dim_value,
        "reference": ReferenceEvaluator(model).run(None, {"x": x})[0].shape[2],
        "tinygrad": OnnxRunner("r.onnx")({"x": Tensor(x)})["y"].shape[2],
    }


scale = np.float32(224 / 96)
print("96 * float32(224/96):", np.float32(96) * scale, "in float32,", 96 * float(scale), "in float64")
got = sizes(96, scale)
print("96 -> 224:", got)
low = ("inferred", "reference", "tinygrad")
same = all(size == (223 if name in low else 224) for name, size in got.items())
got = sizes(96, np.nextafter(scale, np.float32(9)))
print("96 -> 224, next scale:", got)
same &= set(got.values()) == {224}
a, b = np.meshgrid(np.arange(1, 513), np.arange(1, 513))
scale = (b / a).astype(np.float32)
lost = {"float64": np.floor(scale.astype(float) * a) < b, "float32": np.floor(scale * a.astype(np.float32)) < b}
for kind, mask in lost.items():
    print(f"pairs of sizes up to 512 that lose a pixel in {kind}: {mask.mean():.3f}")
raise SystemExit(None if same else "changed: who rounds the size of a Resize down")
PY
