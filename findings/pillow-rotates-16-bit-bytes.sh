#!/usr/bin/env bash
# Pillow rotates 16-bit images wrongly with bilinear and bicubic, and measures them as 8 bit.
#
# One would guess: rotate, transform and ImageStat treat mode I;16 as 16-bit numbers, as resize does, or refuse it.
# What happens: transform and rotate with BILINEAR or BICUBIC interpolate single bytes: a smooth ramp of 0-63000 comes
#   out as noise under 256 (NEAREST is right; mode I or F is right; even the identity transform destroys the image).
#   histogram counts the bytes of the left half of each row, so ImageStat.mean of an image of 1000 is 117.5.
# Seen: 2026-11-28, x86-64 Linux, CPython 3.11, pillow 13.0.0.
# Output: ramp row 24000..31000 through an identity transform: BILINEAR [192 93 168 97 ...]; ImageStat mean 117.5 of
#   25500
# Hurt: medical, depth and microscopy images (16-bit PNG, TIFF) under rotation augmentation, and normalization
#   statistics taken with ImageStat.
# Way out: convert to mode F or I first, or work in numpy.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check numpy==2.4.6 pillow==13.0.0
venv/bin/python - <<'PY'
import numpy as np
from PIL import Image, ImageStat

ramp = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
kinds = Image.Resampling
identity = {
    (mode, kind.name): np.asarray(image.transform((8, 8), Image.Transform.AFFINE, (1, 0, 0, 0, 1, 0), kind)).astype(
        float
    )
    for mode, image in (("I;16", Image.fromarray(ramp)), ("I", Image.fromarray(ramp.astype(np.int32))))
    for kind in (kinds.NEAREST, kinds.BILINEAR, kinds.BICUBIC)
}
same = True
for (mode, kind), y in identity.items():
    right = np.array_equal(y, ramp)
    print(f"{mode:5} {kind:9} identity kept: {right}  row 3: {y[3].astype(int)}")
    same &= right == (mode == "I" or kind == "NEAREST") and (right or y.max() < 256)
half = np.full((4, 8), 1000, np.uint16)
half[:, 4:] = 50000  # the right half is never looked at
mean = ImageStat.Stat(Image.fromarray(half)).mean[0]
print(
    "ImageStat mean",
    mean,
    "true mean",
    half.mean(),
    "mean of the left half's bytes",
    half[:, :4].copy().view(np.uint8).mean(),
)
same &= mean == half[:, :4].copy().view(np.uint8).mean() == 117.5
print(
    "resize (BOX) is right:",
    np.array_equal(np.asarray(Image.fromarray(ramp).resize((4, 4), kinds.BOX)), ramp.reshape(4, 2, 4, 2).mean((1, 3))),
)
raise SystemExit(None if same else "changed: Pillow's 16-bit transform or statistics")
PY
