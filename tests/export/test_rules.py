"""`export --abstain-at` and `--prediction-sets`: what is chosen, measured, written and refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from poolzoo import cli
from poolzoo.artifacts import manifest
from poolzoo.artifacts.run import load_run
from poolzoo.common import files
from poolzoo.metrics.activations import softmax


@pytest.fixture(scope="module")
def ruled(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of `trained` with both outputs."""
    path = tmp_path_factory.mktemp("ruled") / "bundle"
    rules = ["--abstain-at", "accuracy=0.9", "--confidence", "0.9", "--prediction-sets", "0.975"]
    assert cli.run(["export", str(trained), *rules, "--no-bench", "-q", "--out", str(path)]) == 0
    return path


def refused(outcome, code: int, *words: str) -> None:
    assert (outcome.code, outcome.out) == (code, ""), outcome.err
    error, hint = (line for line in outcome.err.splitlines() if line.startswith(("error: ", "hint: ")))
    assert all(word in error + hint for word in words), outcome.err


def test_outputs_are_those_of_their_rules_on_test_images(ruled, trained):
    session = onnxruntime.InferenceSession(ruled / "model.onnx", providers=["CPUExecutionProvider"])
    with np.load(trained / "samples.npz") as samples:
        images, labels = samples["test_images"], samples["test_labels"]

    names = [one.name for one in session.get_outputs()]
    _, probabilities, accepted, members = session.run(None, {"images": images})

    assert names == ["logits", "probabilities", "accepted", "prediction_set"]
    rules = files.read_json(ruled / "config.json")["export"]
    abstention, sets = rules["abstention"], rules["prediction_sets"]
    np.testing.assert_array_equal(accepted, probabilities.max(1) >= np.float32(abstention["threshold"]))
    right = probabilities.argmax(1) == labels
    tested = abstention["test"]
    assert (tested["images"], tested["accepted"]) == (len(labels), accepted.sum())
    assert tested["accuracy"] == pytest.approx(right[accepted].mean())
    assert sets["test"]["covered"] == members[np.arange(len(labels)), labels].sum()
    assert sets["test"]["mean_size"] == pytest.approx(members.sum(1).mean())
    assert members[np.arange(len(labels)), probabilities.argmax(1)].all()


def test_a_threshold_comes_from_the_validation_images_alone(ruled, trained):
    with np.load(trained / "validation.npz") as kept:
        logits, labels = kept["logits"], kept["labels"]
    found = files.read_json(ruled / "config.json")["export"]["abstention"]

    probabilities = softmax(load_run(trained).decision.calibrated(logits))
    accepted = probabilities.max(1).astype(np.float32) >= np.float32(found["threshold"])
    counts = {"images": len(labels), "accepted": int(accepted.sum())}
    assert found["validation"] == {**counts, "errors": int((probabilities.argmax(1) != labels)[accepted].sum())}
    assert (found["target"], found["confidence"]) == ({"accuracy": 0.9}, 0.9)


def test_metadata_card_and_page_say_it(ruled):
    session = onnxruntime.InferenceSession(ruled / "model.onnx", providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    rules = files.read_json(ruled / "config.json")["export"]
    assert json.loads(metadata["abstention"]) == rules["abstention"]
    assert json.loads(metadata["prediction_sets"]) == rules["prediction_sets"]

    card, page = (ruled / "README.md").read_text(), (ruled / "report.html").read_text()
    for text in (card, page):
        assert "accuracy=0.9 with confidence 0.9" in text
        assert "A set holds the true class with probability 0.975" in text
    assert "](risk_coverage.svg)" in card
    assert 'src="data:image/svg+xml;base64,' in page
    assert "accepted images" in (ruled / "risk_coverage.svg").read_text()


def test_code_of_the_card_runs(ruled, tmp_path, monkeypatch, capsys):
    from PIL import Image

    with np.load(ruled / "golden.npz") as golden:
        Image.fromarray(golden["images"][-1]).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    code = (ruled / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    exec(code.replace('"model.onnx"', repr(str(ruled / "model.onnx"))), {})

    label, accepted, members = capsys.readouterr().out.splitlines()[:3]
    assert label.isdecimal()
    assert accepted in ("accepted", "not accepted")
    assert f"'{label}'" in members


def test_verify_passes(poolzoo, ruled):
    report = poolzoo("verify", ruled, "--no-bench", "--json").json

    assert report["passed"]
    assert {"accepted", "prediction_set"} <= {check["id"] for check in report["checks"]}


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [["--precision", "int8"], ["--precision", "fp16"], ["--input", "photo"], ["--input", "float"]]
)
def test_other_forms_of_the_graph_have_them_too(poolzoo, trained, tmp_path, words):
    rules = ["--abstain-at", "coverage=0.8", "--prediction-sets", "0.9", "--min-agreement", 0.5]

    outcome = poolzoo("export", trained, *rules, *words, "--no-bench", "--json", "--out", tmp_path / "bundle")

    assert outcome.json["abstention"]["target"] == {"coverage": 0.8}
    assert poolzoo("verify", tmp_path / "bundle", "--no-bench").code == 0


def test_an_accuracy_out_of_reach_leaves_nothing(poolzoo, trained, tmp_path):
    outcome = poolzoo("export", trained, "--abstain-at", "accuracy=0.999", "--out", tmp_path / "bundle")

    refused(outcome, 1, "no threshold reaches accuracy=0.999", "the best that is reached is accuracy=0.9", "at least")
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_validation_logits_is_refused(poolzoo, run_copy, tmp_path):
    (run_copy / "validation.npz").unlink()
    manifest.write_manifest(run_copy, "run")

    outcome = poolzoo("export", run_copy, "--prediction-sets", "0.9", "--out", tmp_path / "bundle")

    refused(outcome, 2, "--prediction-sets needs the logits of validation images", "evaluate RUN --calibrate")


def test_several_labels_are_refused(poolzoo, run_copy, tmp_path):
    config = files.read_json(run_copy / "config.json")
    config |= {"task": "multilabel", "thresholds": [0.5] * 10}
    files.write_json(run_copy / "config.json", config)
    manifest.write_manifest(run_copy, "run")

    outcome = poolzoo("export", run_copy, "--abstain-at", "coverage=0.9", "--out", tmp_path / "bundle")

    refused(outcome, 2, "--abstain-at is for one label per image")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--abstain-at", "0.99"], "accuracy=0.99 or coverage=0.8"),
        (["--confidence", "0.9"], "--confidence is for --abstain-at accuracy=VALUE"),
        (["--abstain-at", "coverage=0.5", "--confidence", "0.9"], "--confidence is for"),
    ],
)
def test_options_that_do_not_fit_are_refused(poolzoo, trained, tmp_path, words, said):
    refused(poolzoo("export", trained, *words, "--out", tmp_path / "bundle"), 2, said)


def test_a_published_network_is_refused_at_once(poolzoo, tmp_path):
    outcome = poolzoo("export", "timm/resnet18", "--pretrained", "--prediction-sets", "0.9", "--out", tmp_path / "b")

    refused(outcome, 2, "--prediction-sets needs validation images", "fine-tune it")
