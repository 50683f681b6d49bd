"""Degenerate classes: one class alone is refused, one without test images has no figures, --flip off is taken at its
word."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from poolzoo.metrics import classification
from poolzoo.metrics.results import ClassMetrics, untested_note

SETS = """
import numpy as np
from poolzoo import Dataset, hookimpl

def dataset(name, classes, train, test):
    def load(split, cache_dir):
        labels = np.array(train if split == "train" else test)
        noise = np.random.default_rng(0).integers(0, 40, (len(labels), 16, 16, 3))
        return (noise + 70 * labels[:, None, None, None]).astype(np.uint8), labels
    return Dataset(name=name, summary="for a test", load=load, classes=classes)

@hookimpl
def poolzoo_datasets():
    yield dataset("constant", ("a", "b", "c"), [1] * 20, [1] * 8)
    yield dataset("single", ("a",), [0] * 20, [0] * 8)
    yield dataset("rare", ("a", "b"), [0] * 40 + [1] * 2, [0, 1] * 6)
    yield dataset("untested", ("a", "b", "c"), [0, 1, 2] * 8, [0, 1] * 4)
    yield dataset("unlearnable", ("a", "b", "c"), [0, 1] * 8, [0, 1, 2] * 4)
"""
USUAL = ("--backbone", "nano/plain", "--epochs", 1, "--threads", 1)


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    (tmp_path / "sets.py").write_text(SETS)
    return tmp_path / "sets.py"


def folder(root: Path, names: tuple[str, ...]) -> str:
    for split, count in (("train", 8), ("test", 3)):
        for name in names:
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                Image.new("RGB", (16, 16), (index * 20, 0, 0)).save(root / split / name / f"{index}.png")
    return f"folder:{root}"


@pytest.mark.parametrize(("data", "name"), [("constant", "b"), ("single", "a"), ("folder", "ant"), ("rare", "a")])
@pytest.mark.parametrize("command", ["finetune", "dry run", "compare"])
def test_one_class_is_refused_with_what_a_classifier_needs(poolzoo, sets, tmp_path, command, data, name):
    given = folder(tmp_path / "images", ("ant",)) if data == "folder" else data
    out = () if command == "dry run" else ("--out", tmp_path / "out")
    more = ("--pool", "avg,max") if command == "compare" else ("--dry-run",) if command == "dry run" else ()
    limit = ("--limit", 4) if data == "rare" else ()
    verb = "compare" if command == "compare" else "finetune"
    outcome = poolzoo(verb, "--plugin", sets, "--data", given, *USUAL, *more, *limit, *out)
    assert outcome.code == 2
    assert f"images of one class only ({name}); a classifier needs at least two classes" in outcome.err
    assert ("--limit 4" in outcome.err) == (data == "rare")
    assert not (tmp_path / "out").exists()


def test_a_class_without_test_images_has_no_figures(poolzoo, sets, tmp_path):
    run, bundle = tmp_path / "run", tmp_path / "bundle"
    outcome = poolzoo("finetune", "--plugin", sets, "--data", "untested", *USUAL, "--out", run, "--no-check-export")
    assert outcome.code == 0, outcome.err
    assert "c\t0\t–\t–\t–" in outcome.out
    sentence = "No test image of c: precision, recall and F1 are undefined there and left out of the means."
    assert sentence in outcome.out
    test = json.loads((run / "metrics.json").read_text())["test"]
    assert test["per_class"][2] == {"class": "c", "precision": None, "recall": None, "f1": None, "n": 0}
    assert test["recall"] == pytest.approx(np.mean([row["recall"] for row in test["per_class"][:2]]))
    assert sentence in (run / "README.md").read_text()
    assert "| c | 0 | – | – | – |" in (run / "README.md").read_text()
    assert poolzoo("export", "--plugin", sets, run, "--out", bundle, "--no-bench").code == 0
    assert sentence in (bundle / "README.md").read_text()
    assert sentence in (bundle / "report.html").read_text()
    assert poolzoo("evaluate", "--plugin", sets, run, "--json").json["per_class"][2]["f1"] is None


def test_a_class_that_is_never_predicted_has_precision_zero():
    logits = np.array([[1.0, 0.0], [1.0, 0.0]], np.float32)
    found = classification.compute(logits, np.array([0, 1]), ("a", "b"))
    assert found.per_class[1] == ClassMetrics(name="b", precision=0.0, recall=0.0, f1=0.0, n=1)
    assert found.precision == 0.25


def test_a_class_that_cannot_be_learnt_is_named(poolzoo, sets, tmp_path):
    outcome = poolzoo("finetune", "--plugin", sets, "--data", "unlearnable", *USUAL, "--dry-run")
    assert outcome.code == 0
    assert "no training image of c (4)" in outcome.err


def test_many_untested_classes_are_counted():
    assert untested_note([f"c{index}" for index in range(8)]).startswith(
        "No test image of c0, c1, c2, c3, c4 and 3 more:"
    )


@pytest.mark.parametrize(("flip", "evaluated"), [("off", False), ("auto", True)])
def test_mirror_images_are_evaluated_where_they_keep_their_label(poolzoo, sets, tmp_path, flip, evaluated):
    run = tmp_path / "run"
    arguments = ("--plugin", sets, "--data", "untested", *USUAL, "--flip", flip, "--out", run, "--no-check-export")
    outcome = poolzoo("finetune", *arguments)
    assert (json.loads((run / "metrics.json").read_text())["test_flip_tta"] is not None) == evaluated
    said = outcome.out + outcome.err + (run / "README.md").read_text()
    assert ("mirror image" in said) == evaluated
