"""`poolzoo report`: the rows of `poolzoo compare` from runs that were done one at a time, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.refusals import refused

from poolzoo import cli
from poolzoo.artifacts import manifest

pytestmark = pytest.mark.usefixtures("_no_pictures")

BUNDLE = Path(__file__).parents[2] / "exports/digits"
QUICK = ("--data", "digits", "--backbone", "nano/plain", "--epochs", "1", "--limit", "300", "--threads", "1", "-q")


def train(path, *more):
    words = ["finetune", *QUICK, "--split-seed", "0", "--no-check-export", *more, "--out", path]
    assert cli.run([str(word) for word in words]) == 0
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Path]:
    """Two poolings from two seeds, each trained by itself. Read them, do not change them."""
    folder = tmp_path_factory.mktemp("runs")
    return [
        train(folder / f"{pool}{seed}", "--pool", pool, "--seed", seed) for seed in (0, 1) for pool in ("avg", "max")
    ]


# --- The rows -----------------------------------------------------------------------------------------------------


def test_the_rows_are_those_of_a_comparison(poolzoo, tmp_path, runs):
    more = ("--pool", "avg,max", "--seeds", 2, "--robustness-samples", 0, "--export-top", 1, "--out", tmp_path / "c")
    compared = poolzoo("compare", *QUICK, *more, "--json").json
    reported = poolzoo("report", *runs, "--json", "--out", tmp_path / "r").json
    assert reported["conclusions"] == compared["conclusions"]
    assert [reported[key] for key in ("baseline", "seeds", "alpha")] == ["avg", [0, 1], 0.05]
    keys = (
        "backbone",
        "pool",
        "local_pool",
        "status",
        "rank",
        "accuracy",
        "delta",
        "f1",
        "params",
        "macs",
        "per_class",
    )
    rows = [[{key: row[key] for key in keys} for row in found["results"]] for found in (reported, compared)]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 2


def test_accuracies_and_their_difference_are_those_of_the_predictions(poolzoo, tmp_path, runs):
    rows = poolzoo("report", *runs, "--baseline", "max", "--json", "--out", tmp_path / "r").json["results"]
    mean = {
        pool: np.mean([(stored["predicted"] == stored["labels"]).mean() for stored in stores])
        for pool, stores in (
            (pool, [np.load(run / "predictions.npz") for run in runs if run.name.startswith(pool)])
            for pool in ("avg", "max")
        )
    }
    by_pool = {row["pool"]: row for row in rows}
    assert {pool: row["accuracy"]["mean"] for pool, row in by_pool.items()} == pytest.approx(mean)
    assert by_pool["avg"]["delta"]["mean"] == pytest.approx(mean["avg"] - mean["max"])
    assert by_pool["max"]["delta"] is None
    for per in (per for row in rows for per in row["per_seed"]):
        stored = np.load(Path(per["run"]) / "predictions.npz")
        assert per["accuracy"] == pytest.approx((stored["predicted"] == stored["labels"]).mean())
    assert mean["avg"] != mean["max"]


def test_it_leaves_the_page_and_its_tables_behind(poolzoo, tmp_path, runs):
    outcome = poolzoo("report", *runs, "--out", tmp_path / "r")
    assert outcome.code == 0
    assert outcome.err == ""
    assert outcome.out.splitlines()[-1] == str(tmp_path / "r" / "report.html")
    assert sorted(path.name for path in (tmp_path / "r").iterdir()) == ["compare.csv", "compare.json", "report.html"]
    kept = json.loads((tmp_path / "r" / "compare.json").read_text())
    assert kept["data"] == {"name": "digits", "n_test": 300, "classes": [str(digit) for digit in range(10)]}
    assert kept["notes"] == []


def test_without_out_it_is_a_new_directory_here(poolzoo, tmp_path, runs, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for count in (1, 2):
        page = Path(poolzoo("report", *runs, "--json").json["report"])
        assert (tmp_path / page).is_file()
        assert len(list((tmp_path / "comparisons").iterdir())) == count
    assert [path.name for path in tmp_path.iterdir()] == ["comparisons"]


def test_what_else_differs_is_noted(poolzoo, tmp_path, runs):
    longer = train(tmp_path / "longer", "--pool", "gem", "--epochs", 2, "--head", "mlp:16", "--seed", 3)
    outcome = poolzoo("report", *runs, longer, "--out", tmp_path / "r")
    assert outcome.code == 0
    notes = json.loads((tmp_path / "r" / "compare.json").read_text())["notes"]
    assert [note.partition(" too: ") for note in notes] == [
        ("the runs differ in epochs", " too: ", "1, 2"),
        ("the runs differ in head", " too: ", "'linear', 'mlp:16'"),
    ]
    assert outcome.err.splitlines() == [f"warning: {note}" for note in notes]


# --- What is refused ----------------------------------------------------------------------------------------------


def test_without_a_run_there_is_nothing_to_report(poolzoo, tmp_path):
    refused(poolzoo("report"), 2, "RUN")
    refused(poolzoo("report", tmp_path / "none"), 2, tmp_path / "none", "does not exist")
    refused(poolzoo("report", tmp_path), 2, tmp_path, "is no run")


def test_a_bundle_is_no_run(poolzoo, tmp_path, runs):
    refused(poolzoo("report", runs[0], BUNDLE, "--out", tmp_path / "r"), 2, BUNDLE, "is a bundle, not a run")


def test_an_altered_run_is_refused(poolzoo, tmp_path, runs):
    copy = shutil.copytree(runs[1], tmp_path / "copy")
    with np.load(copy / "predictions.npz") as stored:
        np.savez(copy / "predictions.npz", predicted=stored["labels"], labels=stored["labels"])
    refused(poolzoo("report", runs[0], copy, "--out", tmp_path / "r"), 1, copy, "predictions.npz was altered")
    assert not (tmp_path / "r").exists()


def test_a_run_counts_once_whatever_it_is_called(poolzoo, tmp_path, runs):
    copy = shutil.copytree(runs[0], tmp_path / "copy")
    for twin in (runs[0], copy):
        refused(poolzoo("report", runs[0], twin, "--out", tmp_path / "r"), 2, twin, "the same variant", "same seed")


def test_a_run_from_before_predictions_were_kept_is_refused(poolzoo, tmp_path, runs):
    copy = shutil.copytree(runs[1], tmp_path / "copy")
    (copy / "predictions.npz").unlink()
    (copy / "manifest.json").unlink()
    manifest.write_manifest(copy, "run")
    refused(poolzoo("report", runs[0], copy, "--out", tmp_path / "r"), 2, copy, "does not say what it predicted")


def test_runs_tested_on_different_images_are_refused(poolzoo, tmp_path, runs):
    other = train(tmp_path / "split", "--split-seed", 1, "--seed", 2)
    fewer = train(tmp_path / "fewer", "--limit", 200, "--seed", 2)
    for run in (other, fewer):
        refused(poolzoo("report", runs[0], run, "--out", tmp_path / "r"), 2, run, runs[0], "not tested on the same")


def test_equal_labels_do_not_make_data_the_same(poolzoo, tmp_path, photos):
    """Two folders that differ in their names alone, and one whose test images have changed between two runs."""
    shutil.copytree(photos, tmp_path / "twin")
    first = train(tmp_path / "first", "--data", f"folder:{photos}", "--seed", 0)
    twin = train(tmp_path / "on-twin", "--data", f"folder:{tmp_path / 'twin'}", "--seed", 1)
    for file in (photos / "test").rglob("*.png"):
        Image.fromarray(255 - np.asarray(Image.open(file))).save(file)
    changed = train(tmp_path / "changed", "--data", f"folder:{photos}", "--seed", 1)
    labels = [np.load(run / "predictions.npz")["labels"].tolist() for run in (first, twin, changed)]
    assert labels[0] == labels[1] == labels[2]
    refused(poolzoo("report", first, twin, "--out", tmp_path / "r"), 2, twin, tmp_path / "twin", first, photos)
    refused(poolzoo("report", first, changed, "--out", tmp_path / "r"), 2, changed, first, "not tested on the same")
    assert not (tmp_path / "r").exists()


def test_a_place_that_is_taken_is_left_alone(poolzoo, tmp_path, runs):
    (tmp_path / "r").mkdir()
    refused(poolzoo("report", *runs, "--out", tmp_path / "r"), 2, tmp_path / "r", "exists already")
    assert list((tmp_path / "r").iterdir()) == []


def test_a_baseline_that_no_run_has_is_refused(poolzoo, tmp_path, runs):
    refused(poolzoo("report", *runs, "--baseline", "gem", "--out", tmp_path / "r"), 2, "'gem'")
    assert not (tmp_path / "r").exists()
