"""The main job on real CIFAR-10 photographs; skipped where `POOLZOO_TEST_IMAGES` names none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.usefixtures("_no_pictures")


@pytest.fixture(scope="module")
def run(cifar_images, tmp_path_factory) -> Path:
    """A short training on 2,000 photographs."""
    from poolzoo import cli

    path = tmp_path_factory.mktemp("real") / "run"
    arguments = ["--data", f"folder:{cifar_images}", "--pool", "gem", "--limit", "2000", "--epochs", "3", "-q"]
    arguments += ["--backbone", "nano/plain", "--no-check-export", "--out", str(path)]
    assert cli.run(["finetune", *arguments]) == 0
    return path


def test_it_learns_far_above_chance(run):
    report = json.loads((run / "metrics.json").read_text())
    assert report["test"]["n"] == 2000
    assert report["test"]["accuracy"] > 0.30  # chance is 0.10


def test_it_exports_verifies_and_predicts_photographs(poolzoo, run, cifar_images, tmp_path):
    report = poolzoo("export", run, "--json", "--out", tmp_path / "b").json
    assert report["parity"]["passed"]
    assert report["parity"]["n"] == 1024
    assert report["parity"]["top1_agreement"] == 1.0
    photographs = sorted((cifar_images / "test" / "ship").glob("*.jpg"))[:50]
    rows = poolzoo("predict", tmp_path / "b", *photographs, "--json").json
    import poolzoo as package

    network = package.load(run)
    import torch

    pixels = np.stack([np.asarray(Image.open(path)) for path in photographs])
    with torch.inference_mode():
        expected = network(network.preprocess(torch.from_numpy(pixels))).argmax(1)
    classes = network.config["label_names"]
    assert [row["label"] for row in rows] == [classes[index] for index in expected]


@pytest.mark.slow
def test_evaluate_on_the_whole_test_set_agrees_with_the_report(poolzoo, run, cifar_images):
    reported = json.loads((run / "metrics.json").read_text())["test"]["accuracy"]
    found = poolzoo("evaluate", run, "--data", f"folder:{cifar_images}", "--json").json
    assert found["n"] == 5000
    assert found["accuracy"] == pytest.approx(reported, abs=0.02)
