#!/usr/bin/env bash
# tinygrad's TinyJit returns the second call's data for an output that is a view of an input.
#
# One would guess: a compiled function gives what the plain function gives, or refuses what it cannot compile.
# What happens: the third and later calls replay recorded kernels with the new inputs' buffers. A reshape, slice,
#   permutation or expansion of an input needs no kernel, so the returned tensor stays bound to the input of the second
#   call. Outputs that need a kernel are right, in the same return value. The first two calls are right, so a check of
#   one call passes.
# Seen: 2026-11-28, x86-64 Linux, CPython 3.11, tinygrad 0.14.0, device CPU.
# Output: calls with 1, 2, 3, 4: view 1 2 2 2, sum of the doubled input 8 16 24 32; reshape + 0: 1 2 3 4
# Hurt: networks that return their input or a slice of it next to the result (a skip, a mask, a pooled identity).
# Way out: compute something: (view + 0).contiguous(), or take the view outside the compiled function.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check numpy==2.4.6 tinygrad==0.14.0
DEV=CPU venv/bin/python - <<'PY'
import numpy as np
from tinygrad import Tensor, TinyJit

views = {
    "reshape": lambda x: x.reshape(4),
    "slice": lambda x: x[0],
    "permute": lambda x: x.permute(1, 0),
    "expand": lambda x: x.reshape(4, 1).expand(4, 3),
    "copy": lambda x: (x.reshape(4) + 0).contiguous(),
}
same = True
for name, view in views.items():
    compiled = TinyJit(lambda x, view=view: (view(x).realize(), (x * 2).sum().realize()))
    seen, sums = [], []
    for number in (1, 2, 3, 4):
        out, total = compiled(Tensor(np.full((2, 2), number, np.float32)).realize())
        seen.append(int(out.numpy().ravel()[0]))
        sums.append(int(total.item()))
    print(f"calls with 1, 2, 3, 4: {name} {seen}, sum of the doubled input {sums}")
    same &= sums == [8, 16, 24, 32] and seen == ([1, 2, 3, 4] if name == "copy" else [1, 2, 2, 2])
raise SystemExit(None if same else "changed: TinyJit follows views of its inputs")
PY
