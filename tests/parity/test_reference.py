"""The bundle in `exports/`, and one of an earlier version: what was exported once must always verify and predict."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image
from scipy.special import softmax

from poolzoo.datasets import digits

BUNDLE = Path(__file__).parents[2] / "exports" / "digits"
EARLIER = Path(__file__).parents[1] / "data" / "digits_bundle"


@pytest.fixture
def scans(tmp_path: Path) -> list[Path]:
    """Twenty test scans as files, named by what they show."""
    images, labels = digits.load("test")
    paths = [tmp_path / f"{index}-{labels[index]}.png" for index in range(20)]
    for index, path in enumerate(paths):
        Image.fromarray(images[index]).save(path)
    return paths


@pytest.mark.parametrize("bundle", [BUNDLE, EARLIER], ids=["today's", "an earlier one"])
def test_it_verifies(poolzoo, bundle):
    outcome = poolzoo("verify", bundle, "--json", "--no-bench")
    assert outcome.code == 0
    assert outcome.json["passed"]
    assert {check["id"] for check in outcome.json["checks"]} >= {"manifest", "session", "golden-batch-1"}


def test_it_is_small_and_whole():
    listed = json.loads((BUNDLE / "manifest.json").read_text())["files"]
    assert {path.name for path in BUNDLE.iterdir()} == {*listed, "manifest.json"}
    assert sum(path.stat().st_size for path in BUNDLE.iterdir()) < 1_000_000


@pytest.mark.parametrize("name", ["images", "logits"])
def test_it_computes_what_it_did(name):
    today, before = np.load(BUNDLE / "golden.npz"), np.load(EARLIER / "golden.npz")
    np.testing.assert_array_equal(today[name], before[name])


@pytest.mark.parametrize("bundle", [BUNDLE, EARLIER], ids=["today's, calibrated", "an earlier one, plain"])
def test_its_probabilities_are_those_of_its_temperature(bundle):
    stored = np.load(bundle / "golden.npz")
    calibration = json.loads((bundle / "config.json").read_text()).get("calibration", {"temperature": 1.0})
    assert (calibration["temperature"] != 1) == (bundle == BUNDLE)
    expected = softmax(stored["logits"].astype(np.float64) / calibration["temperature"], axis=1)
    np.testing.assert_allclose(stored["probabilities"], expected, rtol=1e-4, atol=1e-6)


def test_its_file_states_no_more_than_it_needs():
    graph = onnx.load(BUNDLE / "model.onnx")
    assert (graph.ir_version, [(one.domain, one.version) for one in graph.opset_import]) == (8, [("", 18)])


@pytest.mark.parametrize("bundle", [BUNDLE, EARLIER], ids=["today's", "an earlier one"])
def test_it_predicts(poolzoo, scans, bundle):
    rows = poolzoo("predict", bundle, *scans, "--json").json
    assert sum(Path(row["file"]).stem.endswith(row["label"]) for row in rows) >= 19
    assert poolzoo("evaluate", bundle, "--onnx", "--json").json["accuracy"] > 0.97


@pytest.mark.parametrize("bundle", [BUNDLE, EARLIER], ids=["today's", "an earlier one"])
def test_its_own_script_says_the_same(poolzoo, scans, bundle):
    rows = poolzoo("predict", bundle, *scans, "--json").json
    script = [sys.executable, str(bundle / "predict.py")]
    said = subprocess.run([*script, *map(str, scans)], capture_output=True, text=True, check=True).stdout
    assert [line.split("\t")[0] for line in said.splitlines()] == [row["label"] for row in rows]
    subprocess.run([*script, "--verify"], capture_output=True, check=True)
