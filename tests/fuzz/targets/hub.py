"""Data that the library `datasets` reads: folders that it wrote, folders of images with a table, Parquet files."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

from fuzz.harness import Target
from fuzz.targets.caches import damaged
from fuzz.targets.runs import mutated_json
from fuzz.targets.tables import mutated_table
from poolzoo.datasets import hugging_face
from poolzoo.plugin.spec import Dataset

ROWS = 4


def targets(folder: Path) -> Iterator[Target]:
    import datasets
    import numpy as np
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(buffer, "PNG")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["ant", "bee"])})
    datasets.disable_progress_bars()
    images = [{"bytes": buffer.getvalue(), "path": None}] * ROWS
    made = datasets.Dataset.from_dict({"image": images, "label": [0, 1] * (ROWS // 2)}, features)
    saved, photos, tables = folder / "saved", folder / "photos", folder / "tables"
    datasets.DatasetDict({"train": made, "test": made}).save_to_disk(saved)
    photos.mkdir()
    for number in range(ROWS):
        (photos / f"{number}.png").write_bytes(buffer.getvalue())
    table = b"file_name,label\n" + b"".join(b"%d.png,%s\n" % (n, (b"ant", b"bee")[n % 2]) for n in range(ROWS))
    tables.mkdir()
    made.to_parquet(tables / "train.parquet")

    def replaced(file: Path, open_data: Callable[[], Dataset]) -> Callable[[bytes], object]:
        before = file.read_bytes() if file.is_file() else None

        def read(content: bytes) -> object:
            file.unlink(missing_ok=True)  # the file of before may be mapped into memory
            file.write_bytes(content)
            try:
                with mock.patch.dict("os.environ", POOLZOO_CACHE=str(folder / "cache")):
                    return _rows(open_data(), folder)
            finally:
                shutil.rmtree(folder / "cache", ignore_errors=True)
                if before is not None:
                    file.unlink()
                    file.write_bytes(before)

        return read

    for name, file, share in (
        ("hub-splits", "dataset_dict.json", 0.5),
        ("hub-state", "train/state.json", 1.0),
        ("hub-info", "train/dataset_info.json", 1.0),
    ):
        read = replaced(saved / file, lambda: hugging_face.open_hub(str(saved)))
        yield Target(name, [(saved / file).read_bytes()], mutated_json, read, share)
    (arrow,) = saved.glob("train/*.arrow")
    read = replaced(arrow, lambda: hugging_face.open_hub(str(saved)))
    yield Target("hub-arrow", [arrow.read_bytes()], damaged, read)
    read = replaced(photos / "metadata.csv", lambda: hugging_face.open_hub(str(photos)))
    yield Target("hub-folder", [table], mutated_table, read, 0.2)
    read = replaced(tables / "train.parquet", lambda: hugging_face.open_parquet(str(tables)))
    yield Target("parquet-data", [(tables / "train.parquet").read_bytes()], damaged, read, 0.3)


def _rows(found: Dataset, folder: Path) -> object:
    assert found.index is not None
    sizes = {}
    for split in found.splits:
        index = found.index(split, folder)
        for position in range(min(len(index), ROWS)):
            try:
                with index.open(position) as file:
                    file.read()
            except OSError:  # the reader of images says it in one line
                continue
        sizes[split] = len(index)
    return sizes, found.classes
