#!/usr/bin/env bash
# coremltools converts 1 / x to 1 / (x + 0.0001), in float32 too.
#
# One would guess: the conversion of a division is a division. Where PyTorch has no epsilon, the converted program has none.
# What happens: torch.reciprocal(x), which 1 / x and 2 / x become in a trace as well, is converted to `inverse` with that
#   operator's default epsilon of 1e-4, and rsqrt to one with 1e-12. 1 / 0.001 is 909. A quotient of two tensors is exact.
#   `log` gets 1.4e-45, so log(0) is -103.28 instead of -inf. log_softmax becomes the logarithm of a softmax: what is more
#   than 103 below the largest logit ends at -103.28.
# Seen: 2026-11-29, x86-64 Linux, CPython 3.11, coremltools 9.0, torch 2.14.1 (values by the converter's own folding of
#   constants; nothing is run on a device).
# Output: 1 / x of [1e-06, 0.001, 0.3, -0.0002]: torch [1e+06, 1000, 3.33333, -5000], converted [9900.99, 909.091, 3.33222,
#   -10000]; with a tensor of ones as the dividend: as torch
# Hurt: poolings and attention that normalize by 1 / sum, with sums of small weights; standardization by 1 / std; harmonic
#   means; losses and entropies that count on -inf.
# Way out: divide two tensors (torch.ones_like(x) / x), or run_decompositions({aten.reciprocal.default: ...}) on the exported
#   program.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check numpy==2.4.6 torch==2.14.1 coremltools==9.0
TQDM_DISABLE=1 venv/bin/python -W ignore - <<'PY'
import logging

import numpy as np
import torch

logging.disable(logging.CRITICAL)
import coremltools  # it logs while it is imported


class OfConstants(torch.nn.Module):
    """Adds to its input what a function gives of constants: the converter folds that into one value."""

    def __init__(self, function, values):
        super().__init__()
        self.function = function
        self.register_buffer("values", values)

    def forward(self, x):
        return x + self.function(self.values)


def converted(function, values):
    x = torch.zeros_like(values)
    program = coremltools.convert(
        torch.jit.trace(OfConstants(function, values).eval(), x),
        inputs=[coremltools.TensorType(name="x", shape=x.shape)],
        convert_to="milinternal",
        compute_precision=coremltools.precision.FLOAT32,
    )
    (add,) = (op for op in program.functions["main"].operations if op.op_type == "add")
    return next(np.asarray(side.val) for side in (add.x, add.y) if side.val is not None)


def shown(values):
    return [float(f"{value:.6g}") for value in values.tolist()]


def agrees(name, function, values):
    values = torch.tensor(values)
    expected, found = function(values).numpy(), converted(function, values)
    print(f"{name} of {shown(values)}: torch {shown(expected)}, converted {shown(found)}")
    return bool(np.allclose(expected, found, rtol=1e-5))


small = [1e-6, 1e-3, 0.3, -2e-4]
wrong = [
    agrees("1 / x", lambda x: 1 / x, small),
    agrees("reciprocal", torch.reciprocal, small),
    agrees("log", torch.log, [0.0, 1.0]),
    agrees("log_softmax", lambda x: torch.log_softmax(x, -1), [0.0, 150.0]),
]
right = [
    agrees("ones / x", lambda x: torch.ones_like(x) / x, small),
    agrees("x ** -1", lambda x: x**-1, small),
    agrees("log of what is not zero", torch.log, [1e-30, 1.0]),
]
same = not any(wrong) and all(right)
raise SystemExit(None if same else "changed: coremltools converts 1 / x, log or log_softmax otherwise")
PY
