"""A run whose calibration has a power, exported: bundle, stand-alone script, card and lower precisions."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import scipy.special

from poolzoo.artifacts import manifest
from poolzoo.common import files

pytestmark = pytest.mark.slow

CALIBRATION = {"method": "power", "temperature": 0.4, "power": 1.4}


@pytest.fixture
def powered(run_copy):
    """A run with a power in its calibration."""
    config = files.read_json(run_copy / "config.json")
    files.write_json(run_copy / "config.json", {**config, "calibration": CALIBRATION})
    manifest.write_manifest(run_copy, "run")
    return run_copy


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_power_reaches_every_part_of_a_bundle(poolzoo, powered, tmp_path, precision):
    bundle = tmp_path / "made"
    rules = ("--abstain-at", "accuracy=0.9", "--prediction-sets", "0.9")
    assert poolzoo("export", powered, "--out", bundle, "--no-bench", "--precision", precision, *rules).code == 0

    assert files.read_json(bundle / "config.json")["calibration"] == CALIBRATION
    session = onnxruntime.InferenceSession(bundle / "model.onnx", providers=["CPUExecutionProvider"])
    assert json.loads(session.get_modelmeta().custom_metadata_map["calibration"]) == CALIBRATION
    with np.load(bundle / "golden.npz") as golden:
        logits, probabilities = session.run(["logits", "probabilities"], {"images": golden["images"]})
    distances = logits.max(1, keepdims=True).astype(float) - logits
    expected = scipy.special.softmax(-((distances / 0.4) ** 1.4), axis=1)
    np.testing.assert_allclose(probabilities, expected, atol=1e-2 if precision == "fp16" else 1e-4)
    assert "those of `-(d / 0.4) ** 1.4` of the distances" in (bundle / "README.md").read_text()
    assert poolzoo("verify", bundle, "--no-bench").code == 0
    shutil.copytree(bundle, tmp_path / "alone")
    script = [sys.executable, tmp_path / "alone" / "predict.py", "--verify"]
    assert subprocess.run(script, capture_output=True, check=False).returncode == 0


def test_a_run_without_calibration_gets_a_power_afterwards(poolzoo, run_copy):
    config = files.read_json(run_copy / "config.json")
    del config["calibration"]
    files.write_json(run_copy / "config.json", config)
    with np.load(run_copy / "validation.npz") as kept:
        arrays = dict(kept)
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 2, (3000, arrays["logits"].shape[1])).astype(np.float32)
    distances = logits.max(1, keepdims=True) - logits
    chances = scipy.special.softmax(-(distances**1.8), axis=1).cumsum(1)
    labels = (generator.random((len(logits), 1)) > chances[:, :-1]).sum(1)
    np.savez(run_copy / "validation.npz", logits=logits, labels=labels.astype(arrays["labels"].dtype))
    manifest.write_manifest(run_copy, "run")

    outcome = poolzoo("evaluate", run_copy, "--calibrate")

    assert outcome.code == 0
    chosen = files.read_json(run_copy / "config.json")["calibration"]
    assert (chosen["method"], chosen["power"]) == ("power", pytest.approx(1.8, abs=0.1))
    assert "and power" in outcome.err
    assert poolzoo("evaluate", run_copy).code == 0
