"""What needs no torch works where there is none, and what needs it says so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.torch_free import alone

from poolzoo.artifacts import manifest
from poolzoo.cli import COMMANDS
from poolzoo.export import script

ROOT = Path(__file__).parents[2]
ENOUGH = ("onnxruntime", "numpy", "pillow", "click", "pluggy", "rich")


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(path)
    return path


def test_the_help_needs_nothing():
    for arguments in (("--help",), ("--version",), *((name, "--help") for name in COMMANDS)):
        outcome = alone(*arguments)
        assert (outcome.returncode, outcome.stderr) == (0, ""), arguments
        assert outcome.stdout


@pytest.mark.parametrize("what", [(), ("poolings",), ("datasets",)])
def test_the_catalog_is_listed_without_torch(what):
    outcome = alone("list", *what)
    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert len(outcome.stdout.splitlines()) > 1


def test_a_bundle_is_used_without_torch(exported, photo):
    with_all = subprocess.run(
        [sys.executable, "-m", "poolzoo", "predict", exported, photo, "--csv"],
        capture_output=True,
        text=True,
        check=True,
    )
    outcome = alone("predict", exported, photo, "--csv")
    assert (outcome.returncode, outcome.stderr, outcome.stdout) == (0, with_all.stderr, with_all.stdout)
    assert "of a side is cut off" in outcome.stderr  # the photograph is no square
    outcome = alone("verify", exported)
    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert "FAILED" not in outcome.stdout


def test_a_bundle_is_timed_without_torch(exported):
    outcome = alone("bench", exported)
    assert (outcome.returncode, "error" in outcome.stderr) == (0, False), outcome.stderr


@pytest.mark.parametrize("command", ["finetune", "export", "evaluate"])
def test_what_needs_torch_says_so(trained, tmp_path, command):
    arguments = {
        "finetune": ("--data", "digits", "--out", tmp_path / "run"),
        "export": (trained, "--out", tmp_path / "bundle"),
        "evaluate": (trained,),
    }
    outcome = alone(command, *arguments[command])
    error, hint = outcome.stderr.splitlines()[-2:]
    assert (outcome.returncode, outcome.stdout) == (4, "")
    assert error.startswith("error: this needs ")
    assert error.endswith(", which is not installed")
    assert hint.startswith("hint: ")
    assert "Traceback" not in outcome.stderr
    assert list(tmp_path.iterdir()) == []


def environment(path: Path, *packages: str) -> Path:
    """A fresh virtual environment with some packages: its interpreter."""
    venv.create(path, with_pip=True)
    python = path / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *packages], check=True)
    return python


def plainly(*command: object, remark: str = "") -> str:
    """What a command prints where nothing of this process leads back here; `remark` is all of its stderr."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    outcome = subprocess.run(list(map(str, command)), cwd="/", env=clean, capture_output=True, text=True, check=False)
    assert (outcome.returncode, outcome.stderr) == (0, remark)
    return outcome.stdout


@pytest.mark.slow
def test_six_packages_are_enough_for_the_command(exported, photo, tmp_path):
    python = environment(tmp_path / "venv", *ENOUGH)
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", str(ROOT)], check=True)
    expected = alone("predict", exported, photo, "--csv")
    found = plainly(python, "-m", "poolzoo", "predict", exported, photo, "--csv", remark=expected.stderr)
    assert found == expected.stdout
    assert "FAILED" not in plainly(python, "-m", "poolzoo", "verify", exported, "--no-bench")
    have = plainly(python, "-m", "pip", "list", "--disable-pip-version-check").lower()
    assert "torch" not in have
    assert "onnxruntime" in have


@pytest.mark.slow
def test_three_packages_are_enough_for_the_bundles_own_script(bundle_copy, photo, tmp_path):
    (bundle_copy / "predict.py").write_text(script.render())
    manifest.write_manifest(bundle_copy, "bundle")
    python = environment(tmp_path / "venv", "onnxruntime", "numpy", "pillow")
    label, score = plainly(python, bundle_copy / "predict.py", photo).rstrip("\n").split("\t")
    _, expected, expected_score, _ = alone("predict", bundle_copy, photo, "--csv").stdout.splitlines()[1].split(",")
    assert label == expected
    assert float(score) == pytest.approx(float(expected_score), abs=1e-5)
    assert "FAILED" not in plainly(python, bundle_copy / "predict.py", "--verify")


def test_doctor_names_all_that_is_missing():
    examined = alone("doctor", "--json")
    assert examined.returncode == 1
    states = {one["what"]: one["state"] for one in json.loads(examined.stdout)["findings"]}
    assert states["devices"] == states["cpu provider"] == states["caches"] == "wrong"
    assert states["onnxruntime"] == "ok"
    assert "pip install platformdirs" in examined.stderr
