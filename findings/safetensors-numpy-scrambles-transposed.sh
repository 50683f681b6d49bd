#!/usr/bin/env bash
# safetensors.numpy writes a transposed array with its values in the wrong order, and says nothing.
#
# One would guess: save_file writes what the array holds, as numpy.save does and as releases up to 0.7.0 did. Or it
#   refuses, as safetensors.torch does for a tensor that is not contiguous.
# What happens: from 0.8.0 on the buffer goes to the file as it lies in memory, under the shape of the view. Transposed
#   and Fortran-ordered arrays come back with the right shape and other values. "Tensors need to be contiguous" is one
#   line of a docstring.
# Seen: 2026-11-29, x86-64 Linux, CPython 3.11, safetensors 0.8.0 and 0.7.0, numpy 2.4.6.
# Output: 0.7.0 transposed: equal; 0.8.0 transposed: other values, Fortran order: other values; torch: ValueError
# Hurt: converted weights: kernels from H×W×I×O to O×I×H×W, dense layers from I×O to O×I. The file loads everywhere,
#   shapes fit, and the network is noise.
# Way out: numpy.ascontiguousarray before saving, or safetensors.torch, which refuses; compare the file with the arrays.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
cat > shows.py <<'PY'
import sys

import numpy as np
import safetensors
from safetensors.numpy import load, save

kernel = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
arrays = {"transposed": kernel.transpose(2, 1, 0), "Fortran order": np.asfortranarray(kernel), "contiguous": kernel}
same = {name: bool(np.array_equal(load(save({"a": array}))["a"], array)) for name, array in arrays.items()}
for name, is_equal in same.items():
    print(f"{safetensors.__version__} {name}: {'equal' if is_equal else 'other values'}")
expected = sys.argv[1] == "equal"
raise SystemExit(same != {"transposed": expected, "Fortran order": expected, "contiguous": True})
PY
pip() { venv/bin/pip install --quiet --no-compile --disable-pip-version-check "$@"; }
pip numpy==2.4.6 safetensors==0.7.0
venv/bin/python shows.py equal || { echo "changed: 0.7.0 was right"; exit 1; }
pip safetensors==0.8.0
venv/bin/python shows.py other || { echo "changed: 0.8.0 wrote memory as it lay"; exit 1; }
