"""The bundle in `exports/`: what was exported once must always verify and predict, whatever becomes of the code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from poolzoo.data import digits

BUNDLE = Path(__file__).parents[1] / "exports" / "digits"


@pytest.fixture
def scans(tmp_path: Path) -> list[Path]:
    """Twenty test scans as files, named by what they show."""
    images, labels = digits.load("test")
    paths = [tmp_path / f"{index}-{labels[index]}.png" for index in range(20)]
    for index, path in enumerate(paths):
        Image.fromarray(images[index]).save(path)
    return paths


def test_it_verifies(poolzoo):
    outcome = poolzoo("verify", BUNDLE, "--json", "--no-speed")
    assert outcome.code == 0
    assert outcome.json["passed"]
    assert {check["id"] for check in outcome.json["checks"]} >= {"manifest", "session", "golden-batch-1"}


def test_it_is_small_and_whole():
    listed = json.loads((BUNDLE / "manifest.json").read_text())["files"]
    assert {path.name for path in BUNDLE.iterdir()} == {*listed, "manifest.json"}
    assert sum(path.stat().st_size for path in BUNDLE.iterdir()) < 1_000_000


def test_it_predicts(poolzoo, scans):
    rows = poolzoo("predict", BUNDLE, *scans, "--json").json
    assert sum(Path(row["file"]).stem.endswith(row["label"]) for row in rows) >= 19
    assert poolzoo("evaluate", BUNDLE, "--onnx", "--json").json["accuracy"] > 0.97


def test_its_own_script_says_the_same(poolzoo, scans):
    rows = poolzoo("predict", BUNDLE, *scans, "--json").json
    script = [sys.executable, str(BUNDLE / "predict.py")]
    said = subprocess.run([*script, *map(str, scans)], capture_output=True, text=True, check=True).stdout
    assert [line.split("\t")[0] for line in said.splitlines()] == [row["label"] for row in rows]
    subprocess.run([*script, "--verify"], capture_output=True, check=True)
