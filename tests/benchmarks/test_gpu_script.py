"""`benchmarks/gpu.sh`: a rehearsal on the CPU runs every part, and what is missing is one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import planted

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks/gpu.sh"


def script(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["sh", str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    images = {
        f"{split}/{name}/{number}.jpg": planted.photograph(number + 100 * place, (32, 32))
        for split, count in (("train", 30), ("test", 10))
        for place, name in enumerate(("ant", "bee"))
        for number in range(count)
    }
    return planted.folder(tmp_path / "photos", images)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), 2, "no folder of images"),
        (("--rehearse",), 2, "first argument"),
        (("PHOTOS", "--frobnicate"), 2, "--frobnicate"),
        (("PHOTOS", "--wheels"), 2, "--wheels needs a value"),
        (("nowhere",), 4, "no train/ and test/"),
        (("PHOTOS", "--python", "no-such-python"), 4, "no-such-python"),
        (("PHOTOS", "--rehearse", "--wheels", "nowhere"), 4, "holds no wheel"),
    ],
)
def test_what_is_missing_is_one_line_and_a_hint(pictures, arguments, code, words):
    outcome = script(*(pictures if word == "PHOTOS" else word for word in arguments))
    assert outcome.returncode == code
    assert outcome.stdout == ""
    error, hint = outcome.stderr.splitlines()
    assert words in error
    assert hint.startswith("hint: ")


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="this machine has a GPU")
def test_a_machine_without_a_gpu_is_told_of_the_rehearsal(pictures):
    outcome = script(pictures, "--python", sys.executable, PATH="/usr/bin:/bin")
    assert outcome.returncode == 4
    assert "--rehearse" in outcome.stderr


@pytest.mark.slow
def test_a_rehearsal_runs_every_part(pictures, tmp_path):
    outcome = script(pictures, "--python", sys.executable, "--rehearse", "--out", tmp_path / "gpu.json")
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["rehearsal"]
    assert {part["state"] for part in found["parts"].values()} == {"done"}
    parts = found["parts"]
    assert parts["tests"]["skipped"] == parts["tests"]["tests"] > 0
    assert 0 <= parts["accuracy"]["test_accuracy"] <= 1
    assert parts["accuracy"]["images_per_s"] > 0
    assert parts["streaming"]["vit_images_per_s"] > 0
    assert [row["batch"] for row in parts["onnx"]["batches"]] == [1, 4]
    assert all(row["largest_difference"] < 1e-3 for row in parts["onnx"]["batches"])
