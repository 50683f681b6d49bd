#!/usr/bin/env bash
# ExecuTorch's remainder of integers takes the sign of the dividend; of floats it takes that of the divisor, as in torch.
#
# One would guess: x % 4 of an exported program is that of torch and Python, -1 % 4 = 3, for every type. Its // is.
# What happens: the portable kernel of aten.remainder gives C's remainder for integers of any width: -1 % 4 = -1. For
#   floats, half precision included, it gives torch's. So (x // 4) * 4 + x % 4 is x for floats, and another number for
#   negative integers.
# Seen: 2026-11-29, x86-64 Linux, CPython 3.11, executorch 1.5.1, torch 2.14.1.
# Output: [-9, -1, 7] % 4: int8 to int64 [-1, -1, 3], float32 [3, 3, 3]; // 4: [-3, -1, 1]
# Hurt: positions that wrap around, as in circular padding, rolled windows and hashing: those that are negative are not
#   brought into range.
# Way out: add the divisor first where the dividend's range is known, or compute x - torch.div(x, n,
#   rounding_mode="floor") * n.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check numpy==2.4.6 torch==2.14.1 executorch==1.5.1
venv/bin/python - 2>/dev/null <<'PY'
import logging
import warnings

import torch
from executorch.exir import to_edge
from executorch.runtime import Runtime

warnings.simplefilter("ignore")
logging.disable(logging.WARNING)


class Function(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def both(function, x):
    module = Function(function)
    buffer = to_edge(torch.export.export(module, (x,))).to_executorch().buffer
    method = Runtime.get().load_program(buffer).load_method("forward")
    return method.execute([x])[0].tolist(), module(x).tolist()


same = True
values = torch.tensor([-9, -8, -1, 0, 7])
for dtype in (torch.int8, torch.int16, torch.int32, torch.int64, torch.float32, torch.float16):
    found, expected = both(lambda x: x % 4, values.to(dtype))
    print(f"{values.tolist()} % 4, {dtype}: {found} (torch {expected})")
    same &= expected == [3, 0, 3, 0, 3]
    same &= found == (expected if dtype.is_floating_point else [-1, 0, -1, 0, 3])
for text, function in (
    ("x // 4", lambda x: x // 4),
    ("x - floor(x / 4) * 4", lambda x: x - torch.div(x, 4, rounding_mode="floor") * 4),
):
    found, expected = both(function, values)
    print(f"{text}: {found} (torch {expected})")
    same &= found == expected
raise SystemExit(None if same else "changed: the remainder of integers in ExecuTorch")
PY
