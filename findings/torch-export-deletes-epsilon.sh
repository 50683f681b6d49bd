#!/usr/bin/env bash
# torch.onnx.export deletes an addition of 1e-8 or less, so that the guard against 0 / 0 is gone.
#
# One would guess: an exporter keeps x + 1e-8: it is there for the one value, 0, where it is not lost to rounding.
# What happens: an addition or subtraction of a constant up to 1e-8, and a factor within 1e-7 of 1, are taken for no
#   operation: x / (x + 1e-8) becomes x / x and is NaN at 0; x - 1e-8 becomes Identity. 1e-7 stays. A check with
#   random inputs never meets it.
# Seen: 2026-11-28, x86-64 Linux, CPython 3.11, torch 2.14.1, onnxscript 0.7.2, onnxruntime 1.32.0.
# Output: x / (x + 1e-8): nodes [Div], at 0 nan (torch 0.0); with 1e-7: [Add, Div], 0.0
# Hurt: L2 normalization, attention weights, GeM and every other pooling with a tiny epsilon, on a map that ReLU has
#   made zero.
# Way out: x.clamp(min=2e-6), or + 1e-7 and more.
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
import onnxruntime
import torch

warnings.simplefilter("ignore")
logging.disable(logging.WARNING)


class Function(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def export(function):
    x = torch.zeros(1, 4)
    with contextlib.redirect_stdout(io.StringIO()):
        model = torch.onnx.export(Function(function), (x,), dynamo=True).model_proto
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    y = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    return [node.op_type for node in model.graph.node], y.ravel()[0], function(x).numpy().ravel()[0]


zero = np.float32(0)
cases = {
    "x / (x + 1e-7)": (lambda x: x / (x + 1e-7), ["Add", "Div"], zero),
    "x / (x + 1e-8)": (lambda x: x / (x + 1e-8), ["Div"], np.float32("nan")),
    "x / x.clamp(min=2e-6)": (lambda x: x / x.clamp(min=2e-6), None, zero),
    "x - 1e-8": (lambda x: x - 1e-8, ["Identity"], zero),
    "x * (1 + 1e-7)": (lambda x: x * (1 + 1e-7), ["Identity"], zero),
}
same = True
for text, (function, nodes, seen) in cases.items():
    found, y, right = export(function)
    print(f"{text}: nodes {found}, at 0: torch {right}, exported {y}")
    same &= nodes in (None, found) and np.array_equal(y, seen, equal_nan=True) and bool(np.isfinite(right))
raise SystemExit(None if same else "changed: torch's exporter keeps a small epsilon, or drops another")
PY
