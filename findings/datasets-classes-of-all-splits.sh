#!/usr/bin/env bash
# datasets takes the classes of an image folder from all splits, so a class of the test split alone shifts the labels.
#
# One would guess: the classes are those of the training split, as torchvision's ImageFolder("train") takes them, and
#   split="train" gives the same labels whatever the test folder holds.
# What happens: the names of all splits together are sorted. A folder test/ant makes `ant` class 0 of the training
#   split, though no training image has it, and train's cat and dog become 1 and 2. Asking for split="train" alone, or
#   reading the folder again as data_dir="images/train", changes which numbers the same files get.
# Seen: 2026-11-28, x86-64 Linux, CPython 3.11, datasets 5.2.0.
# Output: images/: train is labeled [1, 2] of [ant, cat, dog]; images/train: [0, 1] of [cat, dog]
# Hurt: a classifier with an output that no image trains; a model trained on the whole folder and scored by a script
#   that reads one split gives wrong classes. A stray folder (test/unsorted) is enough.
# Way out: name the files of one split (data_files={"train": "images/train/**"}), keep its `label.names` with the model,
#   and map other splits to them by name.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check numpy==2.4.6 pillow==13.0.0 datasets==5.2.0
HF_HOME="$folder/cache" HF_HUB_OFFLINE=1 venv/bin/python - <<'PY'
import os

from datasets import disable_progress_bars, load_dataset
from PIL import Image

disable_progress_bars()
for split, names in {"train": ["cat", "dog"], "test": ["ant", "cat", "dog"]}.items():
    for name in names:
        os.makedirs(f"images/{split}/{name}")
        Image.new("RGB", (4, 4)).save(f"images/{split}/{name}/0.png")


def labels(**where):
    rows = load_dataset("imagefolder", split="train", **where)
    return rows.features["label"].names, list(rows["label"])


whole, alone = labels(data_dir="images"), labels(data_dir="images/train")
named = labels(data_files={"train": "images/train/**"})
print("data_dir=images, split=train:", *whole)
print("data_dir=images/train:", *alone)
print("data_files of train:", *named)
same = whole == (["ant", "cat", "dog"], [1, 2]) and alone == named == (["cat", "dog"], [0, 1])
raise SystemExit(None if same else "changed: datasets takes the classes of an image folder from one split")
PY
