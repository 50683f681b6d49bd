"""Runs, comparisons and bundles that earlier versions wrote load, resume, export and predict as they did."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import poolzoo as package
from poolzoo.artifacts import manifest
from poolzoo.artifacts.run import load_run
from poolzoo.common import files
from poolzoo.train.settings import Settings
from poolzoo.train.settings_file import read_toml

DATA = Path(__file__).parents[1] / "data"
EARLIER = DATA / "earlier"  # written before options such as --clip-grad were renamed


@pytest.fixture
def earlier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy that may be written to, seen from the directory where it was made."""
    shutil.copytree(EARLIER, tmp_path / "earlier")
    monkeypatch.chdir(tmp_path / "earlier")
    return tmp_path / "earlier"


def test_an_earlier_run_gives_the_logits_it_gave():
    network = package.load(EARLIER / "run")
    with np.load(EARLIER / "run" / "samples.npz") as samples, np.load(EARLIER / "run" / "predictions.npz") as stored:
        images, predicted = samples["test_images"], stored["predicted"]
    import torch

    with torch.inference_mode():
        logits = network(network.preprocess(torch.from_numpy(images))).numpy()
    np.testing.assert_array_equal(logits.argmax(1), predicted)


def test_an_earlier_run_is_evaluated_as_it_was(poolzoo):
    outcome = poolzoo("evaluate", EARLIER / "run", "--json")
    assert outcome.json["n"] == 360
    assert outcome.json["accuracy"] == pytest.approx(37 / 360)  # what the version that trained it printed


def test_a_run_without_calibration_gets_the_one_it_would_have(poolzoo, trained, run_copy):
    """As a run of an earlier version, which keeps no logits; it gets one once."""
    config = json.loads((run_copy / "config.json").read_text())
    del config["calibration"]
    files.write_json(run_copy / "config.json", config)
    (run_copy / "validation.npz").unlink()
    manifest.write_manifest(run_copy, "run")
    plain = poolzoo("evaluate", run_copy, "--json").json
    assert plain["reliability"]["after"] is None
    calibrated = poolzoo("evaluate", run_copy, "--calibrate", "--json").json
    assert calibrated["reliability"]["before"] == plain["reliability"]["before"]
    assert manifest.differences(run_copy) == []
    for name in ("config.json", "validation.npz"):
        assert (run_copy / name).read_bytes() == (trained / name).read_bytes()
    assert poolzoo("evaluate", run_copy, "--calibrate").code == 2


def test_an_earlier_run_is_exported_and_predicts(poolzoo, tmp_path):
    outcome = poolzoo("export", EARLIER / "run", "--no-bench", "--out", tmp_path / "bundle")
    assert outcome.code == 0
    assert "not calibrated" in outcome.err
    assert f"poolzoo evaluate {EARLIER / 'run'} --calibrate" in outcome.err
    assert poolzoo("verify", tmp_path / "bundle", "--no-bench", "-q").code == 0


def test_settings_of_an_earlier_run_mean_what_they_meant():
    settings = Settings(**read_toml(EARLIER / "run" / "run.toml"))
    assert (settings.clip_grad, settings.grad_accum) == (1.0, 2)
    assert (settings.lr_schedule, settings.head_lr_mult) == ("cosine", 2.0)


def test_an_earlier_interrupted_run_ends_as_it_would_have(poolzoo, earlier):
    assert poolzoo("finetune", "--resume", earlier / "interrupted", "-q").code == 0
    found = json.loads((earlier / "interrupted" / "metrics.json").read_text())["test"]
    wanted = json.loads((EARLIER / "interrupted-ended.json").read_text())["test"]
    assert found["confusion"] == wanted["confusion"]
    assert load_run(earlier / "interrupted").config["num_classes"] == 10


def test_an_earlier_comparison_is_resumed_to_the_same_table(poolzoo, earlier):
    stored = json.loads((EARLIER / "comparison" / "compare.json").read_text())
    outcome = poolzoo("compare", "--resume", earlier / "comparison", "--json")
    assert outcome.code == 0
    rows = {row["pool"]: row["accuracy"] for row in outcome.json["results"]}
    assert rows == {row["pool"]: row["accuracy"] for row in stored["results"]}
    assert (earlier / "comparison" / "report.html").is_file()


def test_an_earlier_comparison_trains_what_is_left(poolzoo, earlier):
    journal = earlier / "comparison" / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(line for line in lines if '"max"' not in line))
    for trial in (earlier / "comparison" / "trials").glob("*max*"):
        shutil.rmtree(trial)
    outcome = poolzoo("compare", "--resume", earlier / "comparison", "--json")
    stored = json.loads((EARLIER / "comparison" / "compare.json").read_text())
    assert sorted(row["pool"] for row in outcome.json["results"]) == ["avg", "max"]
    assert len(outcome.json["results"]) == len(stored["results"])


@pytest.mark.parametrize("command", ["verify", "bench"])
def test_an_earlier_run_is_refused_as_a_bundle(poolzoo, command):
    outcome = poolzoo(command, EARLIER / "run")
    assert outcome.code == 2
    assert f"{EARLIER / 'run'} is a run, not a bundle" in outcome.err
