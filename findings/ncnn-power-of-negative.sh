#!/usr/bin/env bash
# ncnn's power of 0 or of a negative number is 2.4e38 on x86, for whole exponents too.
#
# One would guess: (-2)³ = -8, 0² = 0 and √0 = 0, as pow of C gives, which ncnn calls for what its vectors leave over.
# What happens: BinaryOp's POW computes exp(b · log(a)) in vectors, and the logarithm of what is not positive overflows
#   there: 2.406e38. Up to three last values of a row are right: they are computed one by one. The square is spared
#   where pnnx converts it to a layer of its own.
# Seen: 2026-11-29, x86-64 Linux (AVX2), CPython 3.11, ncnn 1.0.20261020.
# Output: exponent 3 of [-2, -1, 0, 1]: 2.4e38, 2.4e38, 2.4e38, 1; exponent 0.5 of 0: 2.4e38
# Hurt: GELU by its tanh form has x³: ConvNeXt and ViT are wrong behind the first such layer, without NaN. Power means
#   of features behind a ReLU (dead channels are 0) as well.
# Way out: write whole powers as products, and clamp what is raised to others to the smallest positive number.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check numpy==2.4.6 ncnn==1.0.20261020
venv/bin/python - <<'PY'
import ncnn
import numpy as np

POW = 6


def power(x, exponent):
    with open("m.param", "w") as file:
        file.write(f"7767517\n2 2\nInput in0 0 1 in0\nBinaryOp p 1 1 in0 out0 0={POW} 1=1 2={exponent}\n")
    open("m.bin", "wb").close()
    net = ncnn.Net()
    for name in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
        setattr(net.opt, name, False)
    net.load_param("m.param")
    net.load_model("m.bin")
    extractor = net.create_extractor()
    extractor.input("in0", ncnn.Mat(x).clone())
    return np.array(extractor.extract("out0")[1])


x = np.tile(np.array([-2, -1, 0, 1, 2], np.float32), 8)
same = True
for exponent in (2.0, 3.0, 4.0):
    found, expected = power(x, exponent), x.astype(float) ** exponent
    print(f"exponent {exponent:g} of {x[:5].tolist()}: {[f'{value:.4g}' for value in found[:5]]}")
    same &= np.allclose(found[x > 0], expected[x > 0], rtol=1e-4) and bool((found[x <= 0] > 1e38).all())
zeros = power(np.zeros(8, np.float32), 0.5)
print(f"exponent 0.5 of 0: {zeros[0]:.4g}")
same &= bool((zeros > 1e38).all())
raise SystemExit(None if same else "changed: ncnn raises 0 and negative numbers to a power")
PY
