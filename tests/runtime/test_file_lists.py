"""Lists of images: what they name, in which format, and what is refused."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest
from PIL import Image
from support.linear_bundle import linear_bundle
from support.odd_images import PIXELS

from poolzoo.common.errors import UsageError
from poolzoo.data.walk import Tally
from poolzoo.runtime.prediction import file_lists

NAMES = ["b.png", "sub/with, comma.png", 'a "quoted" one.png', "näher.png", os.fsdecode(b"odd-\xff.png"), "b.png"]


def named(path: Path) -> list[str]:
    return list(file_lists.images_in(f"@{path}", Tally()))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\0"], ids=["newline", "crlf", "nul"])
@pytest.mark.parametrize("last", [True, False], ids=["ended", "open"])
@pytest.mark.parametrize("block", [3, 1 << 20])
def test_a_text_names_images_in_order(tmp_path, monkeypatch, end, last, block):
    monkeypatch.setattr(file_lists, "BLOCK", max(block, 8) if end == "\0" else block)
    text = end.join(NAMES) + end * last
    (tmp_path / "list.txt").write_bytes(os.fsencode(text))
    assert named(tmp_path / "list.txt") == NAMES


@pytest.mark.parametrize("header", [["file"], ["id", "path", "label"], ["whatever"]], ids=str)
def test_a_csv_file_has_a_column_of_names(tmp_path, header):
    at = max(header.index("path") if "path" in header else 0, 0)
    with (tmp_path / "list.csv").open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows([name if index == at else "x" for index in range(len(header))] for name in NAMES)
    assert list(file_lists.images_in(str(tmp_path / "list.csv"), Tally())) == NAMES


def test_a_parquet_file_has_a_column_of_names(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    names = [name for name in NAMES if name.isprintable()]
    parquet.write_table(pyarrow.table({"label": ["x"] * len(names), "file": names}), tmp_path / "list.parquet")
    assert named(tmp_path / "list.parquet") == names


def test_a_damaged_parquet_file_is_one_line(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "list.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(UsageError, match="is no Parquet file, or damaged: ") as raised:
        named(tmp_path / "list.parquet")
    assert "\n" not in raised.value.message


def test_a_table_without_names_is_refused_with_its_columns(tmp_path):
    (tmp_path / "list.csv").write_text("id,label\n1,cat\n")
    with pytest.raises(UsageError) as caught:
        named(tmp_path / "list.csv")
    assert "no column file or path or image" in caught.value.message
    assert "id, label" in caught.value.hint


@pytest.mark.parametrize("text", ["", "\n\n", "file\n"])
def test_a_list_that_names_nothing_is_a_usage_error(poolzoo, tmp_path, text):
    path = tmp_path / ("list.csv" if "file" in text else "list.txt")
    path.write_text(text)
    outcome = poolzoo("predict", linear_bundle(tmp_path / "linear", "uint8"), f"@{path}")
    assert (outcome.code, outcome.out) == (2, "")
    assert "names no image" in outcome.err


def test_a_list_that_is_missing_ends_in_one_line(poolzoo, tmp_path):
    outcome = poolzoo("predict", linear_bundle(tmp_path / "linear", "uint8"), f"@{tmp_path}/none.txt")
    assert (outcome.code, outcome.out) == (2, "")
    assert "none.txt does not exist" in outcome.err.splitlines()[0]


def test_a_list_gives_the_rows_of_its_files(poolzoo, tmp_path, monkeypatch):
    bundle = linear_bundle(tmp_path / "linear", "uint8")
    monkeypatch.chdir(tmp_path)
    Image.fromarray(PIXELS).save("a.png")
    Path("broken.png").write_bytes(b"no image")
    Path("list.txt").write_text("broken.png\na.png\n")
    by_list = poolzoo("predict", bundle, "@list.txt", "--csv")
    by_name = poolzoo("predict", bundle, "broken.png", "a.png", "--csv")
    assert by_list == by_name
    assert by_list.out.count("\n") == 3
