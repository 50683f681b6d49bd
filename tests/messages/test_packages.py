"""Errors of sources that read with packages which not every environment has: each is one line with a hint."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from messages.test_messages import check_message
from poolzoo.common import errors

pytestmark = pytest.mark.slow


def require_refused(poolzoo: Callable[..., Any], sources: Sequence[str]) -> None:
    for source in sources:
        outcome = poolzoo("data", "check", source)
        assert outcome.code in (errors.CHECK_FAILED, errors.USAGE), f"{source}: {outcome}"
        assert outcome.out == "", source
        lines = [line for line in outcome.err.splitlines() if line.startswith(("error: ", "hint: "))]
        assert [line.split(": ")[0] for line in lines] == ["error", "hint"], f"{source}: {outcome}"
        check_message(lines[0].removeprefix("error: "), lines[1].removeprefix("hint: "))


def test_tables_of_hugging_face_that_cannot_be_read(poolzoo: Callable[..., Any], tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", exc_type=ImportError)
    pytest.importorskip("datasets.arrow_dataset")
    rows = datasets.Dataset.from_dict({"image": ["a.png"], "label": [0]})
    for name, splits in (("splits", {"odd": rows}), ("empty", {"train": rows.select([])})):
        datasets.DatasetDict(splits).save_to_disk(tmp_path / name)
    (tmp_path / "nothing").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "dataset_dict.json").write_text("{")
    (tmp_path / "text.txt").write_text("text")
    named = [f"hf:{tmp_path / name}" for name in ("splits", "empty", "nothing", "damaged", "text.txt")]
    require_refused(poolzoo, [*named, f"parquet:{tmp_path / 'nothing'}", f"parquet:{tmp_path / 'no-*.parquet'}"])


def test_shards_that_hold_no_images_or_odd_labels(poolzoo: Callable[..., Any], tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    for name, members in (("texts", {"a.txt": 3}), ("long", {"a.png": 3, "a.cls": 1 << 24})):
        with tarfile.open(tmp_path / f"{name}.tar", "w") as tar:
            for member, count in members.items():
                info = tarfile.TarInfo(member)
                info.size = count
                tar.addfile(info, io.BytesIO(bytes(count)))
    require_refused(poolzoo, [f"shards:{tmp_path / name}.tar" for name in ("texts", "long")])
