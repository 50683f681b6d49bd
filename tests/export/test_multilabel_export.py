"""A bundle with several labels: its graph, its thresholds, what predicts with it, and what judges it."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from support import patches

from poolzoo import cli
from poolzoo.artifacts import manifest
from poolzoo.artifacts.run import load_run
from poolzoo.common import files
from poolzoo.common.errors import CheckFailed
from poolzoo.metrics import activations, decisions
from poolzoo.plugin import loader
from poolzoo.runtime import cases, gate, npm, ort_session
from poolzoo.runtime.builtin import chromium, page
from poolzoo.runtime.process import Answer

pytestmark = pytest.mark.usefixtures("_no_pictures")

NAMES = ("red", "green", "blue", "white")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    """A bundle beside its `run` and some `images` of its test set, with their numbers as names."""
    folder = tmp_path_factory.mktemp("patches")
    plugin = patches.write(folder)
    words = ("finetune", "--plugin", plugin, "--data", "patches", "--task", "multilabel", "--backbone", "nano/plain")
    more = ("--epochs", 2, "--lr", 0.01, "--threads", 1, "-q", "--no-check-export", "--no-calibration")
    assert cli.run([*map(str, (*words, *more, "--out", folder / "run"))]) == 0
    # A threshold that divides the images, whatever two epochs have learnt.
    config = files.read_json(folder / "run" / "config.json")
    files.write_json(folder / "run" / "config.json", {**config, "thresholds": [0.4, 0.3, 0.2, 0.9]})
    manifest.write_manifest(folder / "run", "run")
    assert cli.run(["export", str(folder / "run"), "--no-bench", "-q", "--out", str(folder / "bundle")]) == 0
    with np.load(folder / "run" / "samples.npz") as samples:
        (folder / "images").mkdir()
        for index, image in enumerate(samples["test_images"][:12]):
            Image.fromarray(image).save(folder / "images" / f"{index:02}.png")
    loader.forget()
    return folder / "bundle"


@pytest.fixture(scope="module")
def expected(bundle) -> list[set[str]]:
    """The labels that torch gives the images: a sigmoid of the logits, and the thresholds."""
    run = load_run(bundle.parent / "run")
    with np.load(bundle.parent / "run" / "samples.npz") as samples, torch.no_grad():
        logits = run.network(run.preprocess(torch.from_numpy(samples["test_images"][:12]))).double()
    above = (1 / (1 + torch.exp(-logits)) >= torch.tensor([0.4, 0.3, 0.2, 0.9])).numpy()
    named = [{NAMES[place] for place in np.flatnonzero(row)} for row in above]
    assert len({frozenset(one) for one in named}) > 2
    return named


def test_probabilities_of_the_graph_are_a_sigmoid(bundle):
    model = ort_session.open_model(bundle / "model.onnx", threads=1)
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    logits, probabilities = model.run(images)
    np.testing.assert_allclose(probabilities, 1 / (1 + np.exp(-logits.astype(float))), atol=1e-6)
    assert {node.op_type for node in onnx.load(bundle / "model.onnx").graph.node} >= {"Sigmoid"}
    assert model.decision == decisions.Decision((0.4, 0.3, 0.2, 0.9))
    assert files.read_json(bundle / "config.json")["thresholds"] == [0.4, 0.3, 0.2, 0.9]


def test_predict_gives_the_labels_above_their_thresholds(poolzoo, bundle, expected):
    rows = poolzoo("predict", bundle, bundle.parent / "images", "--json").json
    assert [{one["label"] for one in row["labels"]} for row in rows] == expected
    for row in rows:
        scores = [one["score"] for one in row["labels"]]
        assert scores == sorted(scores, reverse=True)
        assert "label" not in row
        assert len(row["top"]) == 4


def test_tables_separate_several_labels(poolzoo, bundle, expected):
    printed = poolzoo("predict", bundle, bundle.parent / "images", "--csv").out
    rows = list(csv.DictReader(io.StringIO(printed)))
    assert list(rows[0]) == ["file", "labels", "scores", "error"]
    assert [set(filter(None, row["labels"].split("|"))) for row in rows] == expected
    assert all(len(row["scores"].split("|")) == max(1, len(one)) for row, one in zip(rows, expected, strict=True))
    first = poolzoo("predict", bundle, bundle.parent / "images" / "00.png").out.splitlines()
    assert first[0].split("\t") == ["image", "labels", "scores", "then"]


def test_names_that_hold_a_separator_become_a_json_list(poolzoo, bundle, expected, tmp_path):
    odd = shutil.copytree(bundle, tmp_path / "odd")
    model = onnx.load(odd / "model.onnx")
    for entry in model.metadata_props:
        entry.value = entry.value.replace('"red"', '"red|pink"')
    onnx.save(model, odd / "model.onnx")
    manifest.write_manifest(odd, "bundle")
    printed = poolzoo("predict", odd, bundle.parent / "images", "--csv").out
    cells = [row["labels"] for row in csv.DictReader(io.StringIO(printed))]
    named = [{"red|pink" if name == "red" else name for name in one} for one in expected]
    assert [set(json.loads(cell)) if cell[:1] == "[" else set(filter(None, cell.split("|"))) for cell in cells] == named
    assert [cell[:1] == "[" for cell in cells] == ["red|pink" in one for one in named]


def test_parquet_files_hold_lists_of_labels(poolzoo, bundle, expected, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    outcome = poolzoo("predict", bundle, bundle.parent / "images", "--out", tmp_path / "rows", "--json")
    rows = parquet.read_table(tmp_path / "rows" / "parts").to_pylist()
    assert [set(row["labels"]) for row in rows] == expected
    assert [len(row["scores"]) for row in rows] == list(map(len, expected))
    assert outcome.json["labels"] == {name: count for name in NAMES if (count := sum(name in one for one in expected))}
    assert outcome.json.get("unlabeled", 0) == sum(not one for one in expected)


def test_the_bundles_script_prints_the_same_labels(bundle, expected):
    images = sorted((bundle.parent / "images").iterdir())
    command = [sys.executable, str(bundle / "predict.py"), *map(str, images)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert [set(filter(None, line.split("\t")[::2])) for line in done.stdout.splitlines()] == expected


def test_the_bundle_is_verified_and_described(poolzoo, bundle):
    outcome = poolzoo("verify", bundle, "--no-bench", "--json")
    assert (outcome.code, outcome.json["passed"]) == (0, True)
    parity = files.read_json(bundle / "parity.json")
    assert {"torch", "onnxruntime"} == set(parity["map"])
    assert "accuracy" not in parity
    readme, page = ((bundle / name).read_text() for name in ("README.md", "report.html"))
    for text in (readme, page):
        assert "mAP" in text
        assert "threshold" in text
        assert "ccuracy" not in text
    assert not (bundle / "confusion.png").exists()


@pytest.mark.slow
def test_lower_precision_is_judged_by_sets_of_labels(poolzoo, bundle, tmp_path):
    limits = ("--min-agreement", 0.5, "--max-accuracy-drop", 1)
    arguments = ("export", bundle.parent / "run", "--precision", "int8", *limits, "--no-bench", "-q")
    assert poolzoo(*arguments, "--out", tmp_path / "int8").code == 0
    report = files.read_json(tmp_path / "int8" / "parity.json")
    row = next(one for one in report["candidates"] if one["chosen"])
    assert row["precision"].startswith("int8")
    assert 0.5 <= row["agreement"] <= 1
    assert {"map", "map_drop"} <= set(row)
    assert "accuracy" not in row


def test_evaluate_measures_the_graph_at_its_thresholds(poolzoo, bundle):
    plugin, run = bundle.parent / "patches.py", bundle.parent / "run"
    arguments = ("--plugin", plugin, "--data", "patches", "--json")
    graph = poolzoo("evaluate", bundle, "--onnx", *arguments).json
    network = poolzoo("evaluate", run, *arguments).json
    assert [row["threshold"] for row in graph["per_class"]] == [0.4, 0.3, 0.2, 0.9]
    assert graph["map"] == pytest.approx(network["map"])
    assert graph["micro_f1"] == pytest.approx(network["micro_f1"])


def test_saliency_explains_the_label_that_is_named(poolzoo, bundle, tmp_path):
    image = bundle.parent / "images" / "00.png"
    pictures = []
    for name in ("red", "white"):
        outcome = poolzoo("predict", bundle, image, "--saliency-label", name, "--saliency-dir", tmp_path / name)
        assert outcome.code == 0
        pictures.append((tmp_path / name / "00-saliency.png").read_bytes())
    assert pictures[0] != pictures[1]
    wrong = poolzoo("predict", bundle, image, "--saliency-label", "whit", "--saliency-dir", tmp_path / "no")
    assert wrong.code == 2
    assert "white" in wrong.err
    assert not (tmp_path / "no").exists()


def answers(bundle, change):
    """A session of the bundle whose answers are changed."""
    model = ort_session.open_model(bundle / "model.onnx", threads=1)

    def run(images: np.ndarray) -> Answer:
        logits, probabilities = change(*model.run(images))
        return Answer(logits=logits, probabilities=probabilities, ms=1.0, changed=False)

    return run


def failures(bundle, change, **case) -> set[str]:
    found = gate.judge(answers(bundle, change), replace(cases.make_cases(bundle), **case))
    return {check.id for check in found.checks if not check.passed}


def test_runtimes_must_give_a_sigmoid(bundle):
    assert failures(bundle, lambda *both: both) == set()
    assert "sigmoid" in failures(bundle, lambda logits, _: (logits, activations.softmax(logits)))


def test_lower_arithmetic_must_give_the_same_sets(bundle):
    """Logits may be off by a little, but not where thresholds are that close: the sets of labels change."""
    golden = cases.make_cases(bundle).golden
    step = float(np.abs(golden.logits).max()) / 40  # of a sixteenth that is allowed

    def moved(logits, _):
        return logits - step, activations.sigmoid(logits - step)

    middles = np.median(golden.logits[golden.natural], axis=0) - 100
    far = decisions.Decision(tuple(activations.sigmoid(middles).tolist()))
    assert failures(bundle, moved, lower=True, decision=far) == set()
    close = decisions.Decision(tuple(activations.sigmoid(golden.logits[-1] - step / 2).tolist()))
    assert failures(bundle, moved, lower=True, decision=close, agreement=1.0) == {"agreement"}


def test_bundles_with_odd_thresholds_are_one_line(bundle, tmp_path):
    copy = Path(shutil.copytree(bundle.parent / "run", tmp_path / "run"))
    config = json.loads((copy / "config.json").read_text())
    files.write_json(copy / "config.json", {**config, "thresholds": [0.5, 2.0, 0.5, 0.5]})
    manifest.write_manifest(copy, "run")
    with pytest.raises(CheckFailed, match="thresholds"):
        load_run(copy)


@pytest.mark.slow
def test_the_page_marks_labels_above_their_thresholds(bundle, expected, tmp_path):
    if npm.look_up("onnxruntime-web") is None or not any(map(shutil.which, chromium.PROGRAMS)):
        pytest.skip("Chromium and onnxruntime-web are needed")
    page.convert(bundle, tmp_path)
    session = page.open_session(tmp_path, threads=1, device="cpu", precision="fp32")
    several = next(index for index, one in enumerate(expected) if len(one) > 1)
    none = next(index for index, one in enumerate(expected) if not one)
    try:
        for index in (several, none):
            session.page.evaluate(
                "shown = new Promise((done) => new MutationObserver((_, own) => { "
                "const text = document.getElementById('occluded').textContent; "
                "if (text) { own.disconnect(); done(text); } })"
                ".observe(document.getElementById('occluded'), { childList: true })), 0"
            )
            session.page.set_file("#file", bundle.parent / "images" / f"{index:02}.png")
            session.page.evaluate("shown")
            marked = session.page.evaluate(
                "[...document.querySelectorAll('#labels button')].map((one) => one.textContent).join()"
            )
            assert {name[2:] for name in marked.split(",") if name.startswith("✓ ")} == expected[index]
            status = session.page.evaluate("document.getElementById('status').textContent")
            named = {part.split(",")[0] for part in status.split("; ")}
            assert named == (expected[index] or {"No label"})
    finally:
        session.close()
