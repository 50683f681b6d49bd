#!/usr/bin/env bash
# datasets saves a split without rows, reports success, and can load neither it nor the full splits beside it.
#
# One would guess: what save_to_disk or to_parquet wrote without a complaint, load_from_disk or load_dataset reads; an
#   empty table is a table.
# What happens: save_to_disk writes an empty split as two JSON files and no table, and load_from_disk of the whole set
#   ends with `IndexError: list index out of range`, which names neither the split nor the file. The same rows removed by
#   filter() instead of select() are saved with a table and load. load_dataset refuses an empty Parquet file beside a full
#   one, unless the full split alone is asked for.
# Seen: 2026-11-29, x86-64 Linux, CPython 3.11, datasets 5.2.0, pyarrow 26.0.1.
# Output: select: IndexError list index out of range; filter: train 2, test 0; parquet: ValueError Instruction "test"
#   corresponds to no data!; train alone: 2
# Hurt: pipelines that select rows for a test or validation split: for one shard, one customer, one rare class nothing is
#   left. The training data in the same folder is then out of reach as well.
# Way out: leave splits without rows out before saving; load_from_disk of each split's own folder; load_dataset(split=...).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check numpy==2.4.6 pyarrow==26.0.1 datasets==5.2.0
HF_HOME="$folder/cache" HF_HUB_OFFLINE=1 venv/bin/python - <<'PY'
from datasets import Dataset, DatasetDict, disable_progress_bars, load_dataset, load_from_disk

disable_progress_bars()
rows = Dataset.from_dict({"x": [1, 2]})
nothing = {"select": rows.select([]), "filter": rows.filter(lambda row: row["x"] > 2)}


def outcome(read):
    try:
        return {split: part.num_rows for split, part in read().items()}
    except (IndexError, ValueError) as error:
        return f"{type(error).__name__}: {error}"


found = {}
for how, empty in nothing.items():
    assert empty.num_rows == 0 and empty.features == rows.features
    DatasetDict(train=rows, test=empty).save_to_disk(how)
    found[how] = outcome(lambda how=how: load_from_disk(how))
found["its folder"] = outcome(lambda: {"train": load_from_disk("select/train")})
rows.to_parquet("train.parquet")
nothing["select"].to_parquet("test.parquet")
tables = {"train": "train.parquet", "test": "test.parquet"}
found["parquet"] = outcome(lambda: load_dataset("parquet", data_files=tables))
found["train alone"] = outcome(lambda: {"train": load_dataset("parquet", data_files=tables, split="train")})
for name, value in found.items():
    print(f"{name}: {value}")
same = (
    "IndexError" in found["select"]
    and found["filter"] == {"train": 2, "test": 0}
    and found["its folder"] == {"train": 2}
    and "no data" in found["parquet"]
    and found["train alone"] == {"train": 2}
)
raise SystemExit(None if same else "changed: datasets loads a set with a split without rows, or fails otherwise")
PY
