"""Training with several labels an image: a set with known answers, the loss, odd labels, and what a run says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn import metrics as sk
from support import patches, processes
from support.interruptions import stopped_in

from poolzoo import cli
from poolzoo.data.resize import PLAIN
from poolzoo.metrics import decisions
from poolzoo.plugin import loader
from poolzoo.train.evaluate import load_test_images
from poolzoo.train.heads import finetune_heads
from poolzoo.train.loaders import MicroBatch
from poolzoo.train.losses import BinaryCrossEntropy
from poolzoo.train.settings import Settings

pytestmark = pytest.mark.usefixtures("_no_pictures")

BASE = ("--data", "patches", "--task", "multilabel", "--backbone", "nano/plain", "--threads", 1, "-q")


@pytest.fixture(scope="module")
def plugin(tmp_path_factory) -> Path:
    return patches.write(tmp_path_factory.mktemp("plugin"))


@pytest.fixture(scope="module")
def run(plugin, tmp_path_factory) -> Path:
    """A run that learnt the patches."""
    path = tmp_path_factory.mktemp("trained") / "run"
    words = ("finetune", "--plugin", plugin, *BASE, "--epochs", 4, "--lr", 0.01, "--no-check-export", "--out", path)
    assert cli.run([*map(str, words)]) == 0
    loader.forget()
    return path


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def test_a_network_learns_independent_patches(run):
    test = read(run / "metrics.json")["test"]
    assert test["task"] == "multilabel"
    assert test["map"] > 0.99
    assert test["micro_f1"] > 0.95
    assert test["interval"][0] <= test["map"] <= test["interval"][1]


def test_a_run_names_its_scores(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {"train_f1", "val_map"} <= set(lines[-1])
    best = max(lines, key=lambda line: line["val_map"])
    assert read(run / "metrics.json")["val"]["map"] == pytest.approx(best["val_map"])
    assert list(read(run / "metrics.json")["test_flip_tta"]) == ["map"]
    for name in ("metrics.json", "metrics.jsonl", "README.md"):
        assert "accuracy" not in (run / name).read_text().lower()


def test_decisions_are_those_of_the_thresholds(run):
    """Kept predictions are scikit-learn's scores in metrics.json, at the thresholds in config.json."""
    config, test = read(run / "config.json"), read(run / "metrics.json")["test"]
    with np.load(run / "predictions.npz") as kept:
        predicted, labels = kept["predicted"], kept["labels"]
    assert config["task"] == "multilabel"
    assert [row["threshold"] for row in test["per_class"]] == config["thresholds"]
    assert all(0 < threshold < 1 for threshold in config["thresholds"])
    assert predicted.shape == labels.shape == (80, 4)
    assert test["micro_f1"] == pytest.approx(sk.f1_score(labels, predicted, average="micro"))
    assert test["f1"] == pytest.approx(sk.f1_score(labels, predicted, average="macro"))


def test_evaluate_gives_the_metrics_of_the_run(poolzoo, run, plugin):
    again = poolzoo("evaluate", run, "--plugin", plugin, "--json").json
    assert again == read(run / "metrics.json")["test"]
    printed = poolzoo("evaluate", run, "--plugin", plugin).out
    assert "mAP" in printed
    assert "accuracy" not in printed


def test_an_interrupted_run_resumes_to_the_same_weights(poolzoo, plugin, tmp_path):
    more = ("--epochs", 2, "--limit", 100, "--mixup", 0.3, "--cutmix", 0.5, "--ema", 0.9, "--grad-accum", 2)
    arguments = ("finetune", "--plugin", plugin, *BASE, *more, "--no-check-export")
    assert poolzoo(*arguments, "--out", tmp_path / "whole").code == 0
    with stopped_in(2):
        assert poolzoo(*arguments, "--out", tmp_path / "part").code == 130
    assert poolzoo("finetune", "--resume", tmp_path / "part").code == 0
    for name in ("model.safetensors", "config.json", "predictions.npz"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "part" / name).read_bytes()


@pytest.mark.slow
def test_heads_learn_as_if_each_were_alone(poolzoo, plugin, tmp_path):
    more = ("--freeze", "backbone", "--epochs", 2, "--limit", 100, "--pool", "gem")
    poolzoo("finetune", "--plugin", plugin, *BASE, *more, "--out", tmp_path / "alone")
    settings = Settings(
        data="patches",
        task="multilabel",
        backbone="nano/plain",
        freeze="backbone",
        epochs=2,
        limit=100,
        threads=1,
        plugins=(str(plugin),),
    )
    finetune_heads(settings, ["avg", "gem"], tmp_path / "heads")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "heads" / "gem" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


def test_loss_is_binary_cross_entropy_with_soft_targets():
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 2, (6, 3))
    first, second = generator.integers(0, 2, (2, 6, 3), dtype=np.uint8)
    part = MicroBatch(
        x=torch.zeros(6), labels=torch.from_numpy(first), mixed_labels=torch.from_numpy(second), label_weight=0.7
    )
    target = (0.7 * first + 0.3 * second) * 0.8 + 0.1
    chance = 1 / (1 + np.exp(-logits))
    expected = -(target * np.log(chance) + (1 - target) * np.log(1 - chance)).mean()
    loss = BinaryCrossEntropy(label_smoothing=0.2).loss(torch.from_numpy(logits), part)
    assert float(loss) == pytest.approx(expected)


def test_training_score_is_f1_of_each_image():
    logits = torch.tensor([[1.0, -1.0, 1.0], [-1.0, -1.0, -1.0], [-1.0, -1.0, 2.0]])
    labels = torch.tensor([[1, 1, 0], [0, 0, 0], [0, 0, 1]], dtype=torch.uint8)
    expected = sk.f1_score(labels.numpy(), logits.numpy() > 0, average="samples", zero_division=1) * 3
    assert float(BinaryCrossEntropy().train_score(logits, labels)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("labels[3, 1] = 2", "one of them 2"),
        ("labels = labels.astype(np.float32)", "float32[240, 4]"),
        ("labels = labels[:, :3]", "has 4 classes"),
        ("labels = labels[1:]", "for 240 images"),
        ("labels = np.zeros_like(labels)", "no training image of patches has a label"),
        ("labels = labels[..., None]", "contract"),
    ],
)
def test_odd_labels_are_one_line(poolzoo, tmp_path, change, says):
    plugin = patches.write(tmp_path, change)
    outcome = poolzoo("finetune", "--plugin", plugin, *BASE, "--epochs", 1, "--out", tmp_path / "run")
    assert outcome.code != 0
    assert says in outcome.err
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "run").exists()


def test_labels_and_task_must_fit(poolzoo, plugin, tmp_path):
    one = poolzoo("finetune", "--data", "digits", "--task", "multilabel", "--out", tmp_path / "run")
    several = poolzoo("finetune", "--plugin", plugin, "--data", "patches", "--out", tmp_path / "run")
    assert (one.code, several.code) == (2, 2)
    assert "exactly one label" in one.err
    assert "add --task multilabel" in several.err


def test_labels_without_examples_are_named(poolzoo, tmp_path):
    plugin = patches.write(tmp_path, 'labels[5:, 3] = 0; labels[:5, 3] = (split == "test")')
    arguments = ("finetune", "--plugin", plugin, *BASE[:-1], "--epochs", 1, "--limit", 80, "--out", tmp_path / "run")
    outcome = poolzoo(*arguments)
    assert outcome.code == 0
    assert "no training image of white (5)" in outcome.err
    assert "no image to train on has the label white" in outcome.err
    assert "no validation image has the label white: its threshold is 0.5" in outcome.err
    assert read(tmp_path / "run" / "config.json")["thresholds"][3] == 0.5


def test_comparisons_refuse_several_labels(poolzoo, run, plugin):
    started = poolzoo("compare", "--plugin", plugin, "--data", "patches", "--task", "multilabel", "--pool", "avg,gem")
    reported = poolzoo("report", run, "--plugin", plugin)
    for outcome in (started, reported):
        assert outcome.code == 2
        assert "do not support --task multilabel" in outcome.err


def test_a_table_of_files_gives_several_labels(poolzoo, tmp_path):
    lines = ["path,labels,split"]
    for index in range(12):
        color = (200, 30, 30) if index % 2 else (30, 30, 200)
        Image.new("RGB", (16, 16), color).save(tmp_path / f"{index}.png")
        names = "warm|odd" if index % 2 else ("" if index % 4 else "even")
        lines.append(f"{index}.png,{names},{'test' if index > 8 else 'train'}")
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
    arguments = ("finetune", *BASE[2:], "--data", f"csv:{tmp_path / 'table.csv'}", "--epochs", 1)
    outcome = poolzoo(*arguments, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    found = read(tmp_path / "run" / "metrics.json")["test"]
    assert [row["class"] for row in found["per_class"]] == ["even", "odd", "warm"]
    assert [row["n"] for row in found["per_class"]] == [0, 2, 2]


@pytest.mark.slow
def test_checkpoints_of_earlier_versions_resume(poolzoo, tmp_path):
    """They know no task, and keep the best score as an accuracy."""
    arguments = ("finetune", *BASE[4:], "--data", "digits", "--epochs", 2, "--limit", 100)
    poolzoo(*arguments, "--out", tmp_path / "whole")
    with stopped_in(2):
        poolzoo(*arguments, "--out", tmp_path / "part")
    state = torch.load(tmp_path / "part" / "checkpoint" / "state.pt", weights_only=True)
    del state["settings"]["task"]
    for module in state["learners"].values():
        module["best"]["accuracy"] = module["best"].pop("score")
    torch.save(state, tmp_path / "part" / "checkpoint" / "state.pt")
    lines = (tmp_path / "part" / "run.toml").read_text().splitlines()
    kept = "\n".join(line for line in lines if not line.startswith(("task", "#")))  # earlier versions count no settings
    (tmp_path / "part" / "run.toml").write_text(kept)
    assert poolzoo("finetune", "--resume", tmp_path / "part").code == 0
    for name in ("model.safetensors", "predictions.npz"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "part" / name).read_bytes()


@pytest.mark.slow
def test_two_processes_learn_and_gather_labels(plugin, run, tmp_path):
    words = ("finetune", "--plugin", plugin, *BASE, "--epochs", 4, "--lr", 0.01, "--no-check-export")
    group = processes.start_group(tmp_path, 2, *words, "--out", tmp_path / "run")
    ended = [process.wait() for process in group]
    assert [one.code for one in ended] == [0, 0], ended
    report = read(tmp_path / "run" / "metrics.json")
    assert report["processes"] == 2
    assert report["test"]["map"] > 0.98
    with np.load(run / "predictions.npz") as one, np.load(tmp_path / "run" / "predictions.npz") as two:
        assert np.array_equal(one["labels"], two["labels"])
        assert report["test"]["micro_f1"] == pytest.approx(
            sk.f1_score(two["labels"], two["predicted"], average="micro")
        )


def test_labels_of_other_data_follow_the_classes_of_the_run(tmp_path):
    for name in ("one", "two"):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    (tmp_path / "t.csv").write_text("path,labels,split\none.png,ant|bee,test\ntwo.png,bee,test\n")
    found = load_test_images(
        f"csv:{tmp_path / 't.csv'}",
        size=(8, 8),
        fit=PLAIN,
        skip=None,
        classes=("cat", "bee", "ant"),
        decision=decisions.recorded("multilabel", [0.5] * 3, 3),
        tested_run=None,
    )
    assert found.labels.tolist() == [[0, 1, 1], [0, 1, 0]]
