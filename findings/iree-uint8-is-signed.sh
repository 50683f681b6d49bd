#!/usr/bin/env bash
# IREE pools, sorts and divides uint8 as signed bytes, and returns uint8 outputs as int8.
#
# One would guess: the uint8 of the ONNX graph, which the importer writes down as unsigned, stays unsigned.
# What happens: the type loses its sign on the way. MaxPool of [127 128] is 127, TopK of 0..255 is 127, 200 / 2 is -28:
#   wrong in the graph, not just in the display. Max, ReduceMax, comparisons, Cast and DequantizeLinear are right inside
#   but every computed uint8 output arrives in Python as int8 (Identity alone as uint8).
# Seen: 2026-11-28, x86-64 Linux, CPython 3.11, iree-base-compiler and iree-base-runtime 3.13.0, onnxruntime 1.32.0.
# Output: x = [0 1 127 128 200 255]: MaxPool over pairs: expected [1 128 255], IREE int8 [1 127 -1]; x / 2: expected
#   [0 0 63 64 100 127], IREE [0 0 63 -64 -28 0]
# Hurt: pictures and segmentation masks as uint8 in and out, quantized graphs: all above 127.
# Way out: y.view(numpy.uint8) for what is right inside; Cast to int32 or float before MaxPool, TopK and Div.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 iree-base-compiler==3.13.0 iree-base-runtime==3.13.0
venv/bin/python - <<'PY'
import iree.compiler
import iree.runtime
import numpy as np
import onnx
from iree.compiler.tools.import_onnx import __main__ as importer
from onnx import TensorProto, helper, numpy_helper

x = np.uint8([0, 1, 127, 128, 200, 255]).reshape(1, 1, 1, 6)
signed = x.view(np.int8)


def run(nodes, shape, kind=TensorProto.UINT8, **held):
    value = lambda n, dims, kind: helper.make_tensor_value_info(n, kind, dims)
    held = [numpy_helper.from_array(a, n) for n, a in held.items()]
    ends = [value("x", [1, 1, 1, 6], TensorProto.UINT8)], [value("y", shape, kind)]
    graph = helper.make_graph(nodes, "g", *ends, held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "g.onnx")
    importer.main(importer.parse_arguments(["g.onnx", "-o", "g.mlir"]))
    options = {"input_type": "onnx", "target_backends": ["llvm-cpu"]}
    blob = iree.compiler.compile_file("g.mlir", extra_args=["--iree-llvmcpu-target-cpu=host"], **options)
    context = iree.runtime.SystemContext(config=iree.runtime.Config("local-sync"))
    context.add_vm_module(iree.runtime.VmModule.copy_buffer(context.instance, blob))
    y = context.modules.module["g"](x)
    return np.asarray((y[0] if isinstance(y, (list, tuple)) else y).to_host())


n = helper.make_node
pairs = [1, 1, 1, 3]
reshape, all_six = n("Reshape", ["x", "s"], ["y"]), [1, 1, 1, 6]
two, top = np.uint8([2]), np.array([1])
toward_zero = np.trunc(signed / 2).astype(np.int8)
rows = {  # the operator: what came, what is right, the signed computation
    "Reshape": (run([reshape], [6], s=np.array([6])), x.ravel(), signed.ravel()),
    "Max(x, 2)": (run([n("Max", ["x", "c"], ["y"])], all_six, c=two), np.maximum(x, 2), np.maximum(x, 2).view(np.int8)),
    "MaxPool": (
        run([n("MaxPool", ["x"], ["y"], kernel_shape=[1, 2], strides=[1, 2])], pairs),
        x.reshape(1, 1, 3, 2).max(3),
        signed.reshape(1, 1, 3, 2).max(3),
    ),
    "TopK": (run([n("TopK", ["x", "k"], ["y", "i"], axis=3)], [1, 1, 1, 1], k=top), x.max(), signed.max()),
    "Div(x, 2)": (run([n("Div", ["x", "c"], ["y"])], all_six, c=two), x // 2, toward_zero),
    "Cast": (run([n("Cast", ["x"], ["y"], to=TensorProto.FLOAT)], all_six, TensorProto.FLOAT), x, x),
}
same = True
for name, (y, right, seen) in rows.items():
    print(f"{name}: expected {right.ravel()}, IREE {y.dtype} {y.ravel()}")
    same &= np.array_equal(y.ravel(), seen.ravel()) and y.dtype == (np.float32 if name == "Cast" else np.int8)
raise SystemExit(None if same else "changed: IREE's treatment of uint8")
PY
