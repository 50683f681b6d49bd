#!/usr/bin/env bash
# OpenVINO and OpenCV 5 ignore antialias=1 of Resize, and OpenVINO the aspect policy too.
#
# One would guess: an attribute of the standard (opset 18) is honored or refused; and ONNX's antialiased resize is
#   Pillow's.
# What happens: both sample 2 (or 4) pixels per output as if the attribute were absent: up to 88 of 255 levels
#   off at 4x on noise. keep_aspect_ratio_policy="not_larger" is ignored by OpenVINO: 14x20 comes out
#   where 14x14 is due. ONNX Runtime filters, but equals Pillow only with exclude_outside=1 (else 7.9 levels off at
#   the border) and for cubic cubic_coeff_a=-0.5 (the default is -0.75; Pillow's is -0.5).
# Seen: 2026-11-28, x86-64 Linux, CPython 3.11, openvino 2026.4.1, opencv-python-headless 5.0.0.93, onnxruntime
#   1.32.0, pillow 13.0.0.
# Output: onnxruntime 7.9 / with exclude_outside 0.68; OpenVINO 88.5, OpenCV 88.5 levels from Pillow
# Hurt: preprocessing put into the graph: training saw filtered images, the device sees aliased ones.
# Way out: AveragePool for whole factors, or a MatMul with the filter's weights on each side.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0 opencv-python-headless==5.0.0.93 openvino==2026.4.1 pillow==13.0.0
venv/bin/python - <<'PY'
import cv2
import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

image = np.random.default_rng(1).integers(0, 256, (64, 64), dtype=np.uint8)
x = image.astype(np.float32)[None, None]
value = lambda n, dims: helper.make_tensor_value_info(n, TensorProto.FLOAT, dims)


def save(inputs, held, shape, **attributes):
    node = helper.make_node("Resize", inputs, ["y"], **attributes)
    graph = helper.make_graph(
        [node], "r", [value("x", [1, 1, 64, 64])], [value("y", shape)], [numpy_helper.from_array(held, "s")]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "r.onnx")


def ort():
    return onnxruntime.InferenceSession("r.onnx", providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


def vino():
    return openvino.Core().compile_model("r.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([x])[0]


def cv():
    net = cv2.dnn.readNetFromONNX("r.onnx")
    net.setInput(x)
    return net.forward()


def off(y, kind):
    pillow = np.asarray(Image.fromarray(image).resize((16, 16), kind), float)
    return round(float(np.abs(y.reshape(16, 16) - pillow).max()), 2)


# Oracle for "sampled": at factor 4 the center falls between pixels 1 and 2 of each group of 4.
plain = x.reshape(16, 4, 16, 4)[:, 1:3, :, 1:3].mean((1, 3))
quarter = np.float32([1, 1, 0.25, 0.25])
forms = {"linear": {}, "linear exclude_outside": {"exclude_outside": 1}}
same = True
for name, extra in forms.items():
    save(["x", "", "s"], quarter, [1, 1, 16, 16], mode="linear", antialias=1, **extra)
    got = {"onnxruntime": ort(), "OpenVINO": vino(), "OpenCV": cv()}
    print(name, {k: off(y, Image.Resampling.BILINEAR) for k, y in got.items()}, "levels from Pillow")
    same &= (off(got["onnxruntime"], Image.Resampling.BILINEAR) < 1) == bool(extra)
    same &= all(np.abs(got[k].reshape(16, 16) - plain).max() < 1e-2 for k in ("OpenVINO", "OpenCV"))
cubic = []
for a in (-0.75, -0.5):
    save(["x", "", "s"], quarter, [1, 1, 16, 16], mode="cubic", antialias=1, exclude_outside=1, cubic_coeff_a=a)
    cubic.append(off(ort(), Image.Resampling.BICUBIC))
print("onnxruntime cubic with a=-0.75 and a=-0.5:", cubic, "levels from Pillow")
same &= cubic[0] > 2 and cubic[1] < 1
save(
    ["x", "", "", "s"],
    np.array([14, 20]),
    [1, 1, 14, 14],
    mode="linear",
    axes=[2, 3],
    keep_aspect_ratio_policy="not_larger",
)
print("not_larger than 14x20: onnxruntime", ort().shape, "OpenVINO", vino().shape)
same &= ort().shape == (1, 1, 14, 14) and vino().shape == (1, 1, 14, 20)
raise SystemExit(None if same else "changed: who honors antialias or keep_aspect_ratio_policy of Resize")
PY
