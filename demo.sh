#!/bin/sh
# The main job on embedded data: fine-tune, export, verify, predict. Usage: demo.sh BIN, the folder that holds poolzoo.
set -eu
bin=$1
place=demo
rm -rf "$place"
mkdir "$place"

say() { printf '\n== %s\n' "$*"; }
run() { printf '$ poolzoo %s\n' "$*"; "$bin/poolzoo" "$@"; }

say "1. Fine-tune a small network that has seen natural images, with GeM pooling, on scans of handwritten digits"
run finetune --data digits --backbone nano/resnet --pool gem --pretrained --epochs 10 --out $place/run

say "2. Export it to ONNX; the file must agree with the network, and its speed is measured"
run export $place/run --out $place/bundle

say "3. Verify the bundle as a stranger would, without torch"
run verify $place/bundle --no-bench

say "4. Predict one image: a scan of a seven"
"$bin/python" - "$place/seven.png" <<'PYTHON'
import sys
from PIL import Image
from poolzoo.datasets import digits
images, labels = digits.load("test")
Image.fromarray(images[labels.tolist().index(7)]).save(sys.argv[1])
PYTHON
run predict $place/bundle $place/seven.png --top 3

say "Done. The run, with its model card, is in $place/run; the bundle to ship is in $place/bundle."
