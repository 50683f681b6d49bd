#!/usr/bin/env bash
# IREE forgets the division of AveragePool with ceil_mode when the batch is dynamic and the windows fit.
#
# One would guess: ceil_mode changes nothing where the windows fit exactly, and the batch is no part of a pooling.
# What happens: with ceil_mode=1, count_include_pad=0 (ONNX's default), a symbolic batch or channel dimension and a map
#   that the windows fill exactly, each window comes out as its sum: 4 times too large for 2x2, 9 times for 3x3. With a
#   fixed batch, and on odd maps, where ceil_mode matters, the mean is right. With count_include_pad=1 it is the other
#   way around: exact maps are right, and windows that hang over the edge are divided by the whole kernel.
# Seen: 2026-11-28, x86-64 Linux, CPython 3.11, iree-base-compiler and iree-base-runtime 3.13.0.
# Output: 4x4 ramp, 2x2 windows: fixed batch [2.5 4.5 10.5 12.5], batch "n" [10 18 42 50]
# Hurt: ResNet-D, Res2Net and others with AvgPool2d(ceil_mode=True), exported with a dynamic batch: the test of the
#   fixed export passes, and so does one with an odd map.
# Way out: no ceil_mode where the windows fit, or a fixed batch.
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
from onnx import TensorProto, helper


def run(x, batch, **attributes):
    rows = -(-x.shape[2] // 2)
    value = lambda n, size: helper.make_tensor_value_info(n, TensorProto.FLOAT, [batch, 1, size, size])
    node = helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 2], **attributes)
    graph = helper.make_graph([node], "g", [value("x", x.shape[2])], [value("y", rows)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "g.onnx")
    importer.main(importer.parse_arguments(["g.onnx", "-o", "g.mlir"]))
    options = {"input_type": "onnx", "target_backends": ["llvm-cpu"]}
    blob = iree.compiler.compile_file("g.mlir", extra_args=["--iree-llvmcpu-target-cpu=host"], **options)
    context = iree.runtime.SystemContext(config=iree.runtime.Config("local-sync"))
    context.add_vm_module(iree.runtime.VmModule.copy_buffer(context.instance, blob))
    return np.asarray(context.modules.module["g"](x).to_host())


def windows(x):
    edge = x.shape[2] % 2
    x = np.pad(x, ((0, 0), (0, 0), (0, edge), (0, edge)), constant_values=np.nan)
    return x.reshape(1, 1, x.shape[2] // 2, 2, x.shape[3] // 2, 2)


same = True
ramp = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
odd = np.ones((1, 1, 3, 3), np.float32)
for x in (ramp, odd):
    right, total = np.nanmean(windows(x), (3, 5)), np.nansum(windows(x), (3, 5))
    for batch in (1, "n"):
        for counted in (0, 1):
            y = run(x, batch, ceil_mode=1, count_include_pad=counted)
            name = f"{x.shape[2:]} batch {batch}, count_include_pad={counted}"
            print(f"{name}: expected {right.ravel()}, IREE {y.ravel()}")
            fits = x.shape[2] % 2 == 0
            seen = total / 4 if counted else total if batch == "n" and fits else right
            same &= np.allclose(y, seen, atol=1e-5)
same &= np.allclose(run(ramp, "n"), np.nanmean(windows(ramp), (3, 5)))  # without ceil_mode
raise SystemExit(None if same else "changed: IREE's AveragePool with ceil_mode")
PY
