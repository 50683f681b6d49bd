#!/usr/bin/env bash
# datasets serves the old rows of a local file that was replaced, as long as the modification time is the same.
#
# One would guess: load_dataset of a local Parquet or CSV file notices that the file holds other rows, at the least when
#   its size changed.
# What happens: the key of the prepared copy is path and modification time (a float, so 1 ns is lost). Size and content
#   are no part of it. A file of five rows is read as the three rows that stood there before, without a message.
#   streaming=True reads the file itself and disagrees.
# Seen: 2026-11-28, x86-64 Linux, CPython 3.11, datasets 5.2.0, pyarrow 26.0.1.
# Output: parquet: 3 rows at first; file now has 5, load_dataset gives 3, streaming 5; one second later: 5
# Hurt: data that arrives with fixed times: archives built with SOURCE_DATE_EPOCH or `tar --mtime`, layers of container
#   images, `cp -p` and `rsync -t` of another version, restored checkpoints of a volume.
# Way out: download_mode="force_redownload", or a new file name (a checksum in it) for new content.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check numpy==2.4.6 pyarrow==26.0.1 datasets==5.2.0
HF_HOME="$folder/cache" HF_HUB_OFFLINE=1 venv/bin/python - <<'PY'
import csv
import os

import pyarrow
import pyarrow.parquet
from datasets import disable_progress_bars, load_dataset

disable_progress_bars()


def write(kind, rows, second):
    path = f"rows.{kind}"
    if kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.table({"a": rows}), path)
    else:
        with open(path, "w", newline="") as file:
            csv.writer(file).writerows([["a"], *([row] for row in rows)])
    os.utime(path, (second, second))
    return os.path.getsize(path)


def read(kind, **options):
    return [row["a"] for row in load_dataset(kind, data_files=f"rows.{kind}", split="train", **options)]


same = True
old, new = [1, 2, 3], [14, 15, 16, 17, 18]
for kind in ("parquet", "csv"):
    before = write(kind, old, 1_700_000_000)
    first = read(kind)
    after = write(kind, new, 1_700_000_000)
    again, streamed = read(kind), read(kind, streaming=True)
    write(kind, new, 1_700_000_001)
    later = read(kind)
    print(f"{kind}: {before} bytes {first}; then {after} bytes {new}: {again}, streaming {streamed}; later {later}")
    same &= before != after and first == again == old and streamed == later == new
raise SystemExit(None if same else "changed: datasets notices a replaced file with the same modification time")
PY
