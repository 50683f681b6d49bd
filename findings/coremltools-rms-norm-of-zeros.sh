#!/usr/bin/env bash
# coremltools converts rms_norm so that a row of zeros gives NaN, and a row of small values comes out at full size.
#
# One would guess: the epsilon inside the root does in Core ML what it does in PyTorch: it keeps 0 / 0 away, and lets rows
#   that are far below it stay small.
# What happens: rows are divided by their largest absolute value first, without a floor, and epsilon is added to the mean
#   square of what that gives. A row of zeros is 0 / 0. For the others, epsilon counts relative to the row's own maximum: a
#   row around 1e-4 with epsilon 1e-6 comes out 7.6 times too large. layer_norm keeps its epsilon.
# Seen: 2026-11-29, x86-64 Linux, CPython 3.11, coremltools 9.0, torch 2.14.1 (values by the converter's own folding of
#   constants; nothing is run on a device).
# Output: zeros: torch 0, converted nan; 1e-4: torch 0.099, converted 0.756; 1: torch 0.756, converted 0.756
# Hurt: transformers with RMSNorm whose padding tokens, masked patches or dead channels are zeros: one NaN reaches every
#   token in the next attention. Tests with random inputs pass.
# Way out: write the norm out: x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps).
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
from torch.nn import functional

logging.disable(logging.CRITICAL)
import coremltools  # it logs while it is imported
EPSILON = 1e-6
ROW = torch.tensor([[1.0, -1.0, 1.0, 2.0]])


class NormOf(torch.nn.Module):
    """Adds to its input the norm of constants: the converter folds that into one value."""

    def __init__(self, norm, rows):
        super().__init__()
        self.norm = norm
        self.register_buffer("rows", rows)

    def forward(self, x):
        return x + self.norm(self.rows)


def converted(norm, rows):
    x = torch.zeros_like(rows)
    program = coremltools.convert(
        torch.jit.trace(NormOf(norm, rows).eval(), x),
        inputs=[coremltools.TensorType(name="x", shape=x.shape)],
        convert_to="milinternal",
        compute_precision=coremltools.precision.FLOAT32,
    )
    (add,) = (op for op in program.functions["main"].operations if op.op_type == "add")
    return next(np.asarray(side.val) for side in (add.x, add.y) if side.val is not None)


def built_in(rows):
    return functional.rms_norm(rows, (4,), eps=EPSILON)


def written_out(rows):
    return rows * torch.rsqrt(rows.square().mean(-1, keepdim=True) + EPSILON)


found = {}
for scale in (0.0, 1e-4, 1.0):
    rows = ROW * scale
    expected = built_in(rows).numpy()
    found[scale] = expected[0, 0], converted(built_in, rows)[0, 0], converted(written_out, rows)[0, 0]
    print("rows of {}: torch {:.4f}, converted {:.4f}, written out and converted {:.4f}".format(scale, *found[scale]))
(zero, nan, kept), (small, full, small_kept), (one, one_too, _) = found.values()
same = (
    zero == kept == 0
    and np.isnan(nan)
    and full > 7 * small
    and np.isclose(small, small_kept, rtol=1e-3)
    and np.isclose(one, one_too, rtol=1e-3)
)
raise SystemExit(None if same else "changed: coremltools converts rms_norm otherwise")
PY
