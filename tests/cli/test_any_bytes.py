"""Names of any bytes, as a disk may hold them: they are read and told of, or refused where a file would name them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

ODD = "\udcff"  # the byte ff, as Python names it in a path


@pytest.fixture
def odd(photos: Path) -> Path:
    """Data with a broken file, and one of 16 bits that uses little of them, whose names are no UTF-8."""
    try:
        (photos / f"train/red/{ODD}.png").write_bytes(b"no image")
    except OSError:
        pytest.skip("this disk holds names in UTF-8 alone")
    Image.new("I;16", (16, 16), 999).save(photos / f"train/red/{ODD}{ODD}.png")
    return photos


def finetune(poolzoo, data: Path | str, *options: object):
    return poolzoo("finetune", "--data", f"folder:{data}", "--backbone", "nano/plain", "--epochs", 1, *options)


def test_a_run_names_files_of_any_bytes(poolzoo, odd, tmp_path):
    options = ("--threads", 1, "--skip-broken", 1, "--json", "--no-check-export")
    for name in ("first", "second"):  # decoded, and found decoded
        outcome = finetune(poolzoo, odd, *options, "--out", tmp_path / name)
        assert outcome.code == 0
        assert "1 of 26 train images use a quarter or less" in outcome.err
        (skipped,) = json.loads(outcome.out.splitlines()[-1])["skipped"]
        assert skipped["file"] == str(odd / "train/red/\\udcff.png")


def test_an_undecodable_data_path_is_refused_and_still_evaluated(poolzoo, photos, tmp_path):
    assert finetune(poolzoo, photos, "--threads", 1, "--no-check-export", "--out", tmp_path / "run").code == 0
    try:
        shutil.copytree(photos, tmp_path / ODD)
    except OSError:
        pytest.skip("this disk holds names in UTF-8 alone")
    outcome = finetune(poolzoo, f"{tmp_path}/{ODD}", "--out", tmp_path / "second")
    assert outcome.code == 2
    error, hint = outcome.err.splitlines()
    assert error.endswith("is not UTF-8, so that run.toml cannot hold it")
    assert "link" in hint
    assert not (tmp_path / "second").exists()
    assert poolzoo("evaluate", tmp_path / "run", "--data", f"folder:{tmp_path}/{ODD}", "--json").code == 0
