#!/usr/bin/env bash
# numpy.save takes arrays of bfloat16 and float8; numpy.load gives raw bytes of no type back, or cannot read the file.
#
# One would guess: what numpy.save takes without a word, numpy.load gives back, or refuses.
# What happens: bfloat16 of ml_dtypes is written as "|V2", float8_e4m3fn as "|V1". The array that comes back has the
#   right shape and size, holds void, and cannot be computed with. float8_e5m2 is written as "<f1", which numpy.load
#   refuses: the file is lost for numpy. savez is alike.
# Seen: 2026-11-29, x86-64 Linux, CPython 3.11, numpy 2.4.6, ml_dtypes 0.6.0.
# Output: bfloat16 -> |V2, float8_e4m3fn -> |V1, float8_e5m2 -> ValueError, float16 -> <f2; seen as bfloat16 again: equal
# Hurt: onnx.numpy_helper.to_array and jax give such arrays, so golden inputs and outputs of lowered graphs that are kept
#   as .npz are lost in part: the values are there, the type has to be known.
# Way out: save array.astype(float32), which is exact for bfloat16, or array.view(uint16) and the name beside it;
#   array.view(ml_dtypes.bfloat16) mends what was loaded.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check numpy==2.4.6 ml_dtypes==0.6.0
venv/bin/python - <<'PY'
import io
import warnings

import ml_dtypes
import numpy as np

warnings.simplefilter("error")  # nobody warns


def there_and_back(array):
    buffer = io.BytesIO()
    np.savez(buffer, a=array)
    buffer.seek(0)
    return np.load(buffer)["a"]


values = np.array([1.0, -2.5, 0.0078125], np.float32)
found = {}
for kind in (ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2, np.float16):
    try:
        found[np.dtype(kind).name] = there_and_back(values.astype(kind)).dtype.str
    except ValueError as error:
        found[np.dtype(kind).name] = type(error).__name__
    print(f"{np.dtype(kind).name} -> {found[np.dtype(kind).name]}")
kept = values.astype(ml_dtypes.bfloat16)
mended = np.array_equal(there_and_back(kept).view(ml_dtypes.bfloat16), kept)
print("seen as bfloat16 again:", "equal" if mended else "other values")
expected = {"bfloat16": "|V2", "float8_e4m3fn": "|V1", "float8_e5m2": "ValueError", "float16": "<f2"}
raise SystemExit(None if found == expected and mended else "changed: numpy's files know these types")
PY
