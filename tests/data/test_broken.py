"""Images that cannot be read: all are listed, and may be left out where one says so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from poolzoo.common.errors import CheckFailed, UsageError
from poolzoo.compare import table
from poolzoo.data import source, unreadable
from poolzoo.train.settings import Settings


@pytest.fixture
def spoiled(photos: Path) -> Path:
    """Three broken images of 24 to train on, one of 8 to test on, each in another way."""
    (photos / "train/red/3.png").write_bytes(b"")
    (photos / "train/blue/4.png").write_bytes((photos / "train/blue/4.png").read_bytes()[:200])
    (photos / "train/red/5.png").write_text("no image")
    (photos / "test/red/1.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    return photos


def finetune(poolzoo, data: Path, *options: object):
    fixed = ("--backbone", "nano/plain", "--epochs", 1, "--threads", 1)
    return poolzoo("finetune", "--data", f"folder:{data}", *fixed, *options)


def test_all_broken_images_of_all_splits_are_listed(poolzoo, spoiled, tmp_path):
    outcome = finetune(poolzoo, spoiled, "--out", tmp_path / "run")
    assert outcome.code == 1
    assert not (tmp_path / "run").exists()
    named = [line for line in outcome.err.splitlines() if line.startswith("cannot be read: ")]
    assert [Path(line.split(": ")[1]).relative_to(spoiled).as_posix() for line in named] == [
        *("test/red/1.png", "train/blue/4.png", "train/red/3.png", "train/red/5.png")
    ]
    error = next(line for line in outcome.err.splitlines() if line.startswith("error: "))
    assert error.startswith("error: 4 of 32 images cannot be read, first ")
    listed = Path(error.rpartition(" ")[2])
    assert len(listed.read_text().splitlines()) == 4
    assert "empty, or nothing that Pillow reads" in listed.read_text()


def test_beyond_twenty_the_rest_is_in_the_file(photos, capsys, tmp_path):
    for file in sorted(photos.glob("train/*/*"))[:23]:
        file.write_text("no image")
    with pytest.raises(CheckFailed, match="23 of 32 images") as caught:
        source.load_split(source.open_dataset(f"folder:{photos}", skip=22), "train")
    lines = capsys.readouterr().err.splitlines()
    assert len([line for line in lines if line.startswith("cannot be read")]) == unreadable.SHOWN
    assert lines[-1] == "and 3 more"
    assert len(Path(caught.value.message.rpartition(" ")[2]).read_text().splitlines()) == 23


def test_so_many_may_be_left_out_and_no_more(poolzoo, spoiled, tmp_path):
    outcome = finetune(poolzoo, spoiled, "--skip-broken", 4, "--out", tmp_path / "run", "--json")
    assert outcome.code == 0
    assert "3 of 24 train images cannot be read and are left out" in outcome.err
    assert "1 of 8 test images cannot be read and are left out" in outcome.err
    found = json.loads((tmp_path / "run/metrics.json").read_text())
    assert found["test"]["n"] == 7
    assert json.loads(outcome.out.splitlines()[-1])["skipped"] == found["skipped"]
    assert table.data_of(tmp_path / "run").skipped == found["skipped"]  # as a comparison tells of it
    assert [Path(one["file"]).name for one in found["skipped"]] == ["4.png", "3.png", "5.png", "1.png"]
    assert "4 images could not be read" in (tmp_path / "run/README.md").read_text()
    assert "skip_broken = 4" in (tmp_path / "run/run.toml").read_text()
    assert poolzoo("evaluate", tmp_path / "run", "--skip-broken", 0).code == 1
    figures = poolzoo("evaluate", tmp_path / "run", "--json").json  # leaves out what the run allowed
    assert (figures["n"], len(figures["skipped"])) == (7, 1)


def test_what_is_left_is_what_would_be_there_without_them(spoiled):
    left = [source.load_split(source.open_dataset(f"folder:{spoiled}", skip="all"), one) for one in ("train", "test")]
    for file in ("train/red/3.png", "train/blue/4.png", "train/red/5.png", "test/red/1.png"):
        (spoiled / file).unlink()
    for (pixels, labels), split in zip(left, ("train", "test"), strict=True):
        expected = source.load_split(source.open_dataset(f"folder:{spoiled}"), split)
        np.testing.assert_array_equal(pixels, expected[0])
        np.testing.assert_array_equal(labels, expected[1])


def test_a_class_that_loses_all_its_images_is_refused(photos):
    for file in photos.glob("train/red/*"):
        file.write_text("no image")
    with pytest.raises(CheckFailed, match="no train image of red can be read"):
        source.load_split(source.open_dataset(f"folder:{photos}", skip="all"), "train")


def test_validation_images_that_are_all_unreadable_are_reported(photos):
    shutil.copytree(photos / "test", photos / "val")
    for file in photos.glob("val/*/*"):
        file.write_text("no image")
    with pytest.raises(CheckFailed, match="no image of val/ can be read"):
        source.load_split(source.open_dataset(f"folder:{photos}", skip="all", validation=True), "train")


def test_predict_goes_on_and_its_exit_code_is_honest(poolzoo, spoiled, tmp_path):
    from support.linear_bundle import linear_bundle

    bundle = linear_bundle(tmp_path / "linear", "uint8")
    codes = [
        poolzoo("predict", bundle, spoiled / "train", "--json", *options).code
        for options in ((), ("--skip-broken", 2), ("--skip-broken", 3), ("--skip-broken", "all"))
    ]
    assert codes == [1, 1, 0, 0]
    outcome = poolzoo("predict", bundle, spoiled / "train", "--json", "--skip-broken", "all")
    assert "warning: 3 of 24 images cannot be read" in outcome.err
    assert len([row for row in outcome.json if "error" in row]) == 3


@pytest.mark.parametrize("text", ["some", "-1", "1.5", ""])
def test_skip_broken_takes_a_number_or_all(text):
    with pytest.raises(UsageError, match="--skip-broken"):
        Settings(skip_broken=text)


def test_each_listed_file_is_one_line_safe_for_terminals(spoiled, monkeypatch, tmp_path):
    monkeypatch.setenv("POOLZOO_CACHE", str(tmp_path / "cache"))
    (spoiled / "train/red/a\x1b[31m\nb.png").write_bytes(b"")
    with pytest.raises(CheckFailed, match="5 of 33 images") as caught:
        source.load_split(source.open_dataset(f"folder:{spoiled}"), "train")
    lines = Path(caught.value.message.rpartition(" ")[2]).read_text().splitlines()
    assert len(lines) == 5
    assert all(line.replace("\t", "").isprintable() for line in lines)
    assert any("a\\x1b[31m\\nb.png" in line for line in lines)
