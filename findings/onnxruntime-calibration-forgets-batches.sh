#!/usr/bin/env bash
# onnxruntime's calibration with CalibMaxIntermediateOutputs=n forgets n batches at a time.
#
# One would guess: the option limits memory. Its documentation promises the same ranges as without it.
# What happens: after every n batches the collected minima and maxima are deleted before they are merged. Only the
#   batches after the last multiple of n count. If nothing is left, calibration ends with "No data is collected.".
# Seen: 2026-11-29, x86-64 Linux, CPython 3.11, onnxruntime 1.31.1 and 1.32.0.
# Output: batches [8, 1, 2, 1, 1]: without the option the range is 0 to 8; with n=2, 0 to 1; n=3, 0 to 1; n=4, 0 to 1;
#   n=5, ValueError; n=6, 0 to 8
# Hurt: whoever calibrates on many images in little memory: the graph is made, and saturates on most images.
# Way out: leave the option out (MinMax keeps only scalars of each batch), or call collect_data once for each part with
#   one calibrator, which does merge.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check numpy==2.4.6 onnx==1.23.2
cat > forgets.py <<'PY'
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, create_calibrator, quantize_static

LARGEST = [8, 1, 2, 1, 1]  # of each batch


class Batches(CalibrationDataReader):
    def __init__(self, largest):
        self.rest = [{"x": np.float32([[0, top]])} for top in largest]

    def get_next(self):
        return self.rest.pop(0) if self.rest else None


def range_of_x(limit):
    options = {} if limit is None else {"CalibMaxIntermediateOutputs": limit}
    try:
        quantize_static(
            "g.onnx", "q.onnx", Batches(LARGEST), activation_type=QuantType.QUInt8, extra_options=options
        )
    except ValueError as error:
        return str(error)
    held = {one.name: numpy_helper.to_array(one) for one in onnx.load("q.onnx").graph.initializer}
    return round(float(held["x_scale"]) * 255, 3)  # the zero point is 0


value = lambda n: helper.make_tensor_value_info(n, TensorProto.FLOAT, [None, 2])
graph = helper.make_graph(
    [helper.make_node("MatMul", ["x", "w"], ["y"])],
    "g",
    [value("x")],
    [value("y")],
    [numpy_helper.from_array(np.eye(2, dtype=np.float32), "w")],
)
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), "g.onnx")
got = {limit: range_of_x(limit) for limit in (None, 1, 2, 3, 4, 5, 6)}
calibrator = create_calibrator("g.onnx")
for largest in LARGEST:
    calibrator.collect_data(Batches([largest]))
merged = float(np.max(calibrator.compute_data()["x"].highest))
print("onnxruntime", onnxruntime.__version__, "largest value of each batch:", LARGEST)
for limit, found in got.items():
    print(f"  CalibMaxIntermediateOutputs={limit}: {found}")
print("  collect_data once for each batch:", merged)
nothing = "No data is collected."
seen = {None: 8, 1: nothing, 2: 1, 3: 1, 4: 1, 5: nothing, 6: 8}
same = got == seen and merged == 8
raise SystemExit(None if same else "changed: ranges are merged when CalibMaxIntermediateOutputs is reached")
PY
for version in 1.31.1 1.32.0; do
  venv/bin/pip install --quiet --no-compile --disable-pip-version-check "onnxruntime==$version"
  venv/bin/python forgets.py 2> log || { cat log; exit 1; }
done
