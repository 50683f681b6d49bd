#!/usr/bin/env bash
# Pillow 13 resizes tall pictures vertically first: other pixels than Pillow 12.
#
# One would guess: resize of the same picture gives the same bytes in every release; a change would be in the notes.
# What happens: up to 12.3 the horizontal pass is the first one. 13.0 begins with the vertical pass where H > h and
#   H - h > 2 * (W - w), and each pass rounds and clips to 8 bits. Noise of 333x500 to 224x224 differs by up to 7
#   levels in bicubic and 13 in Lanczos. Wide pictures keep their pixels.
# Seen: 2026-11-28, x86-64 Linux, CPython 3.11, pillow 12.3.0 against 13.0.0.
# Output: 333x500 to 224x224: 12.3.0 horizontal first, 13.0.0 vertical first, 7 levels apart; 500x333: the same
# Hurt: golden images, cached features and duplicate detection; training with one release and serving with the other.
# Way out: im.resize((w, H)).resize((w, h)) fixes the order in all releases.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
cat > order.py <<'PY'
import sys

import numpy as np
import PIL
from PIL import Image

BICUBIC = Image.Resampling.BICUBIC
noise = np.random.default_rng(1)
new = PIL.__version__ == "13.0.0"
same = True


def passes(source, target):
    image = Image.fromarray(noise.integers(0, 256, source[::-1], dtype=np.uint8))
    direct = np.asarray(image.resize(target, BICUBIC), int)
    across = np.asarray(image.resize((target[0], source[1]), BICUBIC).resize(target, BICUBIC), int)
    down = np.asarray(image.resize((source[0], target[1]), BICUBIC).resize(target, BICUBIC), int)
    return direct, across, down


for source in ((333, 500), (500, 333), (333, 700), (480, 640), (640, 480)):
    direct, across, down = passes(source, (224, 224))
    first = "horizontal" if np.array_equal(direct, across) else "vertical" if np.array_equal(direct, down) else "?"
    print(PIL.__version__, source, "to 224x224:", first, "first; the two orders differ by", abs(across - down).max())
    tall = source[1] - 224 > 2 * (source[0] - 224)
    same &= first == ("vertical" if new and tall else "horizontal")
hit = 0
for _ in range(500):  # the rule, on random sizes
    W, H, w, h = (int(v) for v in noise.integers(8, 80, 4))
    if W == w or H == h:
        continue
    direct, across, down = passes((W, H), (w, h))
    rule = new and H > h and H - h > 2 * (W - w)
    hit += rule
    same &= np.array_equal(direct, down if rule else across)
print(PIL.__version__, "random sizes that begin vertically:", hit, "of 500, all by the rule:", bool(same))
sys.exit(None if same else "changed: the order of the passes of Pillow's resize")
PY
for version in 12.3.0 13.0.0; do
  venv/bin/pip install --quiet --no-compile --disable-pip-version-check numpy==2.4.6 "pillow==$version"
  venv/bin/python order.py
done
