#!/usr/bin/env bash
# coremltools converts calls that differ in an option to the same program, without a warning.
#
# One would guess: what Core ML has no operator for is an error, as it is for dilated max pooling or divisor_override.
# What happens: the programs are equal, line by line, for interpolate with and without antialias=True; for std and var with
#   correction=1 and 9; for instance_norm with running statistics and with those of the input; for softplus with any
#   threshold.
# Seen: 2026-11-29, x86-64 Linux, CPython 3.11, coremltools 9.0, torch 2.14.1.
# Output: antialias: outputs differ by 1.63, programs equal; correction 1 and 9: 0.06, equal; use_input_stats: 2.29, equal;
#   threshold 20 and 0: 0.69, equal; align_corners: 3.66, programs differ; dilation: an error
# Hurt: networks that resize in the graph (a photograph that shrinks 8 times loses its antialiasing); networks with
#   InstanceNorm2d(track_running_stats=True), as in style transfer and re-identification, in eval mode; statistics
#   poolings with another correction than 1.
# Way out: compare outputs on a device; write the option out (running statistics as a scale and a shift, the correction as
#   a factor, antialiasing as two matrix products).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check numpy==2.4.6 torch==2.14.1 coremltools==9.0
TQDM_DISABLE=1 venv/bin/python -W ignore - <<'PY'
import logging
import re

import torch
from torch.nn import functional

logging.disable(logging.CRITICAL)
import coremltools  # it logs while it is imported
X = torch.randn(1, 4, 9, 9, generator=torch.Generator().manual_seed(0))
MEAN, VARIANCE = torch.ones(4), torch.full((4,), 9.0)
CALLS = {
    "antialias": (lambda x, how: functional.interpolate(x, (3, 3), mode="bilinear", antialias=how), False, True),
    "correction": (lambda x, how: torch.std(x, (2, 3), correction=how), 1, 9),
    "use_input_stats": (lambda x, how: functional.instance_norm(x, MEAN, VARIANCE, use_input_stats=how), True, False),
    "threshold": (lambda x, how: functional.softplus(x, threshold=how), 20, 0),
    "align_corners": (lambda x, how: functional.interpolate(x, (3, 3), mode="bilinear", align_corners=how), False, True),
}


class Call(torch.nn.Module):
    def __init__(self, call, how):
        super().__init__()
        self.call, self.how = call, how

    def forward(self, x):
        return self.call(x, self.how)


def program(call, how):
    """The operations of the converted program, with its values numbered in order."""
    made = coremltools.convert(
        torch.jit.trace(Call(call, how).eval(), X),
        inputs=[coremltools.TensorType(name="x", shape=X.shape)],
        convert_to="milinternal",
        compute_precision=coremltools.precision.FLOAT32,
    )
    lines = [re.sub(r', name="[^"]*"', "", line.strip()) for line in str(made).splitlines() if "=" in line]
    names = {}
    return [re.sub(r"%\w+", lambda name: names.setdefault(name[0], f"%{len(names)}"), line) for line in lines]


equal = {}
for name, (call, one, other) in CALLS.items():
    differ = (call(X, one) - call(X, other)).abs().max()
    equal[name] = program(call, one) == program(call, other)
    print(f"{name} {one} and {other}: outputs differ by {differ:.2f}, programs {'equal' if equal[name] else 'differ'}")
    assert differ > 0.05
try:
    program(lambda x, how: functional.max_pool2d(x, 2, dilation=how), 2)
    refused = False
except ValueError as error:
    print("dilation:", error)
    refused = True
same = refused and [name for name in equal if equal[name]] == list(CALLS)[:4]
raise SystemExit(None if same else "changed: coremltools keeps one of these options, or refuses it")
PY
