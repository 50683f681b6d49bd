#!/usr/bin/env bash
# torch.onnx.export(opset_version=17) gives a file of opset 17, one of opset 18, or an invalid one, by operator.
#
# One would guess: the file has the opset that was asked for, or an exception says why not.
# What happens: torch exports at opset 18 and lets onnx convert it. sum and amax come out at 17. mean, norm and pad stay
#   at 18. prod, logsumexp, var and chunk come out at 17 with attributes of 18 left over (noop_with_empty_axes,
#   num_outputs): onnx's checker and onnxruntime refuse the file. onnx.version_converter alone does the same to valid
#   files, and drops the metadata of every node. torch logs lines at most; nothing is raised in any of the cases.
# Seen: 2026-11-28, x86-64 Linux, CPython 3.11, torch 2.14.1, onnxscript 0.7.2, onnx 1.23.2, onnxruntime 1.32.0.
# Output: sum 17 valid, amax 17 valid, mean 18 valid, norm 18 valid, logsumexp 17 invalid, prod 17 invalid, chunk 17
#   invalid
# Hurt: who targets a runtime of opset 17 or less: every network with global average pooling is left at 18.
# Way out: check model.opset_import and onnx.checker after the export; remove the two attributes (at their defaults)
#   before onnx.version_converter.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0 torch==2.14.1
venv/bin/python - <<'PY'
import contextlib
import io
import logging
import warnings

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper, version_converter

warnings.simplefilter("ignore")
logging.disable(logging.ERROR)


class Function(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def valid(model):
    verdicts = []
    for check in (onnx.checker.check_model, lambda m: onnxruntime.InferenceSession(m.SerializeToString())):
        try:
            check(model)
            verdicts.append(True)
        except Exception:
            verdicts.append(False)
    assert len(set(verdicts)) == 1
    return "valid" if verdicts[0] else "invalid"


cases = {
    "sum": (lambda x: x.sum((2, 3)), (17, "valid")),
    "amax": (lambda x: x.amax((2, 3)), (17, "valid")),
    "mean": (lambda x: x.mean((2, 3)), (18, "valid")),
    "norm": (lambda x: x.norm(dim=1), (18, "valid")),
    "logsumexp": (lambda x: x.logsumexp((2, 3)), (17, "invalid")),
    "prod": (lambda x: x.prod(3), (17, "invalid")),
    "chunk": (lambda x: x.chunk(3, 1)[1], (17, "invalid")),
}
same = True
x = torch.rand(2, 3, 8, 8)
for name, (function, seen) in cases.items():
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        model = torch.onnx.export(Function(function).eval(), (x,), dynamo=True, opset_version=17).model_proto
    got = model.opset_import[0].version, valid(model)
    print(f"torch.onnx.export({name}, opset_version=17): opset {got[0]}, {got[1]}")
    same &= got == seen

value = lambda n, dims: helper.make_tensor_value_info(n, TensorProto.FLOAT, dims)
for default in ({}, {"noop_with_empty_axes": 0}):
    node = helper.make_node("ReduceMean", ["x", "a"], ["y"], keepdims=1, **default)
    node.metadata_props.add(key="layer", value="pool")
    held = [numpy_helper.from_array(np.array([2]), "a")]
    graph = helper.make_graph([node], "r", [value("x", [2, 3, 4])], [value("y", [2, 3, 1])], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    old = version_converter.convert_version(model, 17)
    kept = len(old.graph.node[0].metadata_props)
    print("onnx converts ReduceMean", default or "without the attribute", "to 17:", valid(old), "metadata kept:", kept)
    same &= valid(old) == ("invalid" if default else "valid") and kept == 0
raise SystemExit(None if same else "changed: what torch or onnx makes of a request for opset 17")
PY
