"""Bundles whose files disagree on how logits become decisions: `verify` and the script name what differs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from PIL import Image
from support.ruled_bundle import ruled_bundle

from poolzoo.artifacts import manifest
from poolzoo.common import files

WRONG = {"method": "temperature", "temperature": 2.0}


def change(bundle: Path, in_graph: dict[str, object], edit: Callable[[Any], object] | None = None) -> Path:
    """The bundle with other metadata and another `config.json`, and a manifest that fits them."""
    proto = onnx.load(bundle / "model.onnx")
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    onnx.helper.set_model_props(proto, metadata | {key: json.dumps(value) for key, value in in_graph.items()})
    onnx.save(proto, bundle / "model.onnx")
    config = files.read_json(bundle / "config.json")
    if edit is not None:
        edit(config)
    files.write_json(bundle / "config.json", config)
    manifest.write_manifest(bundle, "bundle")
    return bundle


@pytest.mark.parametrize(
    ("in_graph", "edit", "failed"),
    [
        ({"calibration": WRONG}, lambda config: config.update(calibration=WRONG), ["probabilities"]),
        ({"calibration": WRONG}, None, ["probabilities", "config"]),
        ({}, lambda config: config.update(calibration=WRONG), ["config"]),
        ({}, lambda config: config["export"]["abstention"].update(threshold=0.6), ["config"]),
        ({}, lambda config: config["export"]["prediction_sets"].update(quantile=0.7), ["config"]),
        ({}, lambda config: config.update(label_names=["a"]), ["config"]),
        ({}, lambda config: config.update(calibration="x"), ["golden"]),
        ({"calibration": {"temperature": float("nan")}}, None, ["session"]),
        ({"prediction_sets": {"quantile": 0.8, "penalty": 0.1, "unpenalized": 10**30}}, None, ["session"]),
        (
            {"prediction_sets": {"quantile": 1e300, "penalty": 1e-300, "unpenalized": 1}},
            None,
            ["session"],
        ),
    ],
)
def test_verify_names_what_does_not_agree(poolzoo, tmp_path, in_graph, edit, failed):
    bundle = change(ruled_bundle(tmp_path / "ruled"), in_graph, edit)

    outcome = poolzoo("verify", bundle, "--no-bench", "--json")

    assert outcome.code == 1
    assert [check["id"] for check in outcome.json["checks"] if not check["passed"]] == failed
    assert "hint:" in outcome.err


def test_the_script_names_probabilities_of_another_calibration(tmp_path):
    bundle = change(ruled_bundle(tmp_path / "ruled"), {"calibration": WRONG})

    command = [sys.executable, bundle / "predict.py", "--verify"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert [line for line in done.stdout.splitlines() if line.startswith("FAILED\tprobabilities")]


@pytest.mark.parametrize("calibration", [{"temperature": "x"}, [1], {"temperature": 1, "scale": [1]}])
def test_metadata_that_are_none_are_refused(poolzoo, tmp_path, calibration):
    bundle = change(ruled_bundle(tmp_path / "ruled"), {"calibration": calibration})
    picture = tmp_path / "image.png"
    Image.new("RGB", (8, 8)).save(picture)

    outcome = poolzoo("predict", bundle, picture)

    assert outcome.code == 1
    assert outcome.err.startswith("error: the graph's metadata hold no calibration")
    assert "hint: export the run again" in outcome.err
