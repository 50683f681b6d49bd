"""A run whose calibration takes label smoothing back, exported: bundle, stand-alone script, card, lower precisions."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import scipy.special
from PIL import Image

from poolzoo.artifacts import manifest
from poolzoo.common import files

pytestmark = pytest.mark.slow

CALIBRATION = {"method": "unsmoothing", "temperature": 0.4, "smoothing": 0.2}


@pytest.fixture
def unsmoothed(run_copy):
    """A run with smoothing in its calibration."""
    config = files.read_json(run_copy / "config.json")
    files.write_json(run_copy / "config.json", {**config, "calibration": CALIBRATION})
    manifest.write_manifest(run_copy, "run")
    return run_copy


def without_smoothing(logits, temperature, smoothing):
    """Probabilities without what smoothing gives each class, where a hyperbola keeps them positive, by scipy."""
    level = smoothing / logits.shape[1]
    less = scipy.special.softmax(logits.astype(float) / temperature, axis=1) - level
    heights = less + np.hypot(less, level / 5)
    return heights / heights.sum(1, keepdims=True)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_smoothing_reaches_every_part_of_a_bundle(poolzoo, unsmoothed, tmp_path, precision):
    bundle = tmp_path / "made"
    rules = ("--abstain-at", "accuracy=0.9", "--prediction-sets", "0.9")
    assert poolzoo("export", unsmoothed, "--out", bundle, "--no-bench", "--precision", precision, *rules).code == 0

    assert files.read_json(bundle / "config.json")["calibration"] == CALIBRATION
    session = onnxruntime.InferenceSession(bundle / "model.onnx", providers=["CPUExecutionProvider"])
    assert json.loads(session.get_modelmeta().custom_metadata_map["calibration"]) == CALIBRATION
    with np.load(bundle / "golden.npz") as golden:
        logits, probabilities = session.run(["logits", "probabilities"], {"images": golden["images"]})
    expected = without_smoothing(logits, 0.4, 0.2)
    assert np.abs(scipy.special.softmax(logits / 0.4, axis=1) - expected).max() > 0.05
    np.testing.assert_allclose(probabilities, expected, atol=1e-2 if precision == "fp16" else 1e-4)
    said = "divided by a temperature of 0.4, from which label smoothing of 0.2 is taken back"
    assert said in (bundle / "README.md").read_text()
    assert poolzoo("verify", bundle, "--no-bench").code == 0
    shutil.copytree(bundle, tmp_path / "alone")
    script = [sys.executable, tmp_path / "alone" / "predict.py", "--verify"]
    assert subprocess.run(script, capture_output=True, check=False).returncode == 0


def test_smoothing_is_taken_back_from_a_finished_run(poolzoo, run_copy):
    config = files.read_json(run_copy / "config.json")
    del config["calibration"]
    files.write_json(run_copy / "config.json", config)
    with np.load(run_copy / "validation.npz") as kept:
        arrays = dict(kept)
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 4, (3000, arrays["logits"].shape[1])).astype(np.float32)
    chances = without_smoothing(logits, 1.0, 0.2).cumsum(1)
    labels = (generator.random((len(logits), 1)) > chances[:, :-1]).sum(1)
    np.savez(run_copy / "validation.npz", logits=logits, labels=labels.astype(arrays["labels"].dtype))
    manifest.write_manifest(run_copy, "run")

    outcome = poolzoo("evaluate", run_copy, "--calibrate")

    assert outcome.code == 0
    chosen = files.read_json(run_copy / "config.json")["calibration"]
    assert (chosen["method"], chosen["smoothing"]) == ("unsmoothing", pytest.approx(0.2, abs=0.06))
    assert "label smoothing of" in outcome.err
    assert poolzoo("evaluate", run_copy).code == 0


@pytest.fixture(scope="module")
def doubted(tmp_path_factory):
    """Photographs of three colors; half of them are pale, and 30 % of these have the label of another color."""
    folder, generator = tmp_path_factory.mktemp("doubted"), np.random.default_rng(0)
    for part, count in (("train", 1800), ("test", 90)):
        for index in range(count):
            color, pale = generator.integers(3), generator.random() < 0.5
            label = (color + (pale and generator.random() < 0.3)) % 3
            pixels = np.full((8, 8, 3), 40.0)
            pixels[..., color] = 130 if pale else 220
            place = folder / part / f"class{label}"
            place.mkdir(parents=True, exist_ok=True)
            noisy = (pixels + generator.normal(0, 6, pixels.shape)).clip(0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(place / f"{index}.png")
    return f"folder:{folder}"


SETTINGS = ("--backbone", "nano/plain", "--image-size", 8, "--label-smoothing", 0.3, "--batch-size", 32)


def test_finetune_takes_its_label_smoothing_back(poolzoo, doubted, tmp_path):
    assert poolzoo("finetune", "--data", doubted, *SETTINGS, "--epochs", 4, "--out", tmp_path / "run").code == 0
    chosen = files.read_json(tmp_path / "run" / "config.json")["calibration"]
    assert chosen["method"] == "unsmoothing"
    assert 0.1 < chosen["smoothing"] < 0.4  # 180 images leave it uncertain
    assert files.read_json(tmp_path / "run" / "metrics.json")["test"]["reliability"]["change"]["nll"]["value"] < 0


def test_trials_of_a_comparison_get_a_temperature_alone(poolzoo, doubted, tmp_path):
    pools = ("--pool", "avg,max", "--seeds", 1, "--epochs", 4)
    assert poolzoo("compare", "--data", doubted, *SETTINGS, *pools, "--out", tmp_path / "made").code == 0
    kept = [files.read_json(path)["calibration"] for path in tmp_path.glob("made/trials/*/config.json")]
    assert [one["method"] for one in kept] == ["temperature", "temperature"]
