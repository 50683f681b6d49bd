"""`poolzoo compare`: what is compared, that it goes on after a kill, and that known truths come out."""

from __future__ import annotations

import csv
import itertools
import json
import shutil
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from support import processes
from support.comparison_rows import stable_rows
from support.pixels import PIXELS

from poolzoo.common.errors import UsageError
from poolzoo.compare import grid
from poolzoo.compare.board.rerun import largest_difference
from poolzoo.compare.grid import Variant
from poolzoo.compare.journal import Journal
from poolzoo.model.network import Network
from poolzoo.train.training_module import TrainingModule

pytestmark = pytest.mark.usefixtures("_no_pictures")

QUICK = (
    "--data",
    "digits",
    "--backbone",
    "nano/plain",
    "--epochs",
    1,
    "--limit",
    300,
    "--robustness-samples",
    0,
    "--export-top",
    0,
)

# --- What is compared ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("avg", ["avg"]),
        ("avg,max", ["avg", "max"]),
        ("gem:p=4,learnable=false,avg", ["gem:p=4,learnable=false", "avg"]),
        ("avg,gem:p=2|3|4", ["avg", "gem:p=2", "gem:p=3", "gem:p=4"]),
        (
            "gem:p=2|3,learnable=true|false",
            [f"gem:p={p},learnable={flag}" for p in (2, 3) for flag in ("true", "false")],
        ),
        ("poolzoo:gem:p=2|3", ["poolzoo:gem:p=2", "poolzoo:gem:p=3"]),
        (" avg , max ", ["avg", "max"]),
    ],
)
def test_poolings_are_read_as_they_are_typed(text, expected):
    assert grid.specs(text, "global") == expected


def test_all_means_every_pooling_that_there_is():
    import poolzoo

    assert sorted(grid.specs("all", "global")) == sorted(poolzoo.list_poolings(kind="global"))


def test_a_sweep_may_be_over_a_local_poolings_window():
    assert grid.specs("none,max:window=2|3", "local") == ["none", "max:window=2", "max:window=3"]


@pytest.mark.parametrize("text", ["gemm", "avg,,max", "p=3", "gem:q=3", "gem:p=x|3", ""])
def test_what_cannot_be_compared_is_refused_at_once(text):
    with pytest.raises(UsageError):
        grid.specs(text, "global")


def test_every_combination_is_a_variant_with_its_own_key():
    found = grid.variants("avg,gem:p=3", "none,blur", "nano/plain,nano/resnet")
    assert len(found) == len({one.key for one in found}) == 8
    assert found[0] == Variant("nano/plain", "avg", None)
    assert {one.name for one in found} == {"avg", "gem:p=3", "avg + blur", "gem:p=3 + blur"}
    with pytest.raises(UsageError, match="twice"):
        grid.variants("avg,avg", None, "nano/plain")


def test_the_baseline_is_found_by_what_it_is_called():
    found = grid.variants("max,avg", "none,blur", "nano/plain")
    assert grid.find_baseline(None, found).name == "max"
    assert grid.find_baseline("avg", found).name == "avg"
    assert grid.find_baseline("avg + blur", found).name == "avg + blur"
    assert grid.find_baseline("blur", found).name == "max + blur"
    with pytest.raises(UsageError):
        grid.find_baseline("blurr", found)


def test_a_journal_that_was_cut_off_keeps_what_was_whole(tmp_path):
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.add({"trial": "a", "status": "done"})
    journal.add({"trial": "b", "status": "failed"})
    path.write_text(path.read_text() + '{"trial": "c", "sta')
    again = Journal(path)
    assert again.done("a")
    assert not again.done("b")
    assert not again.done("c")
    again.add({"trial": "c", "status": "done"})
    assert [json.loads(line)["trial"] for line in path.read_text().splitlines()] == ["a", "b", "c"]
    assert Journal(path).done("c")


# --- A comparison -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Three poolings from two seeds, with everything that is measured. Read it, do not change it."""
    from poolzoo import cli

    path = tmp_path_factory.mktemp("compared") / "c"
    arguments = [
        "compare",
        "--data",
        "digits",
        "--backbone",
        "nano/plain",
        "--epochs",
        "1",
        "--pool",
        "avg,max,gem:p=2",
    ]
    more = ["--seeds", "2", "--baseline", "max", "--robustness-samples", "8", "--export-top", "1", "--threads", "1"]
    more += ["--limit", "500"]
    assert cli.run([*arguments, *more, "--out", str(path), "-q"]) == 0
    return path


def test_a_comparison_tells_all_that_it_promises(compared):
    found = json.loads((compared / "compare.json").read_text())
    assert found["baseline"] == "max"
    assert {row["pool"] for row in found["results"]} == {"avg", "max", "gem:p=2"}
    means = [row["accuracy"]["mean"] for row in found["results"]]
    assert means == sorted(means, reverse=True)
    for row in found["results"]:
        own = [json.loads((Path(one["run"]) / "metrics.json").read_text())["test"] for one in row["per_seed"]]
        assert [one["accuracy"] for one in row["per_seed"]] == [one["accuracy"] for one in own]
        assert row["accuracy"]["mean"] == pytest.approx(np.mean([one["accuracy"] for one in own]))
        assert row["accuracy"]["sd"] == pytest.approx(np.std([one["accuracy"] for one in own], ddof=1))
        assert row["f1"]["mean"] == pytest.approx(np.mean([one["f1"] for one in own]))
        assert (row["delta"] is None) == (row["pool"] == "max")
        corruption = row["corruption_accuracy"]
        assert len(corruption["by_kind"]) == 15
        assert corruption["mean"] == pytest.approx(np.mean(list(corruption["by_kind"].values())))
        assert 0 < row["crop_consistency"]["mean"] <= 1
        assert row["params"] > 10_000
        assert len(row["curves"]) == 2
        assert [one["class"] for one in row["per_class"]] == [str(digit) for digit in range(10)]
    exported = {row["pool"] for row in found["results"] if row["parity"] is not None}
    assert exported == {found["results"][0]["pool"], "max"}
    assert all(row["latency_ms"] > 0 for row in found["results"] if row["parity"])
    table = list(csv.DictReader((compared / "compare.csv").read_text().splitlines()))
    assert [row["pool"] for row in table] == [row["pool"] for row in found["results"]]
    page = (compared / "report.html").read_text()
    assert "gem:p=2" in page


def test_the_runs_of_a_comparison_share_their_splits(compared):
    runs = sorted((compared / "trials").iterdir())
    assert len(runs) == 6
    labels = [np.load(run / "predictions.npz")["labels"] for run in runs]
    assert all((one == labels[0]).all() for one in labels)
    kept = {np.load(run / "samples.npz")["train_images"].tobytes() for run in runs}
    assert len(kept) == 1


@pytest.mark.slow
def test_the_same_seeds_give_the_same_table(poolzoo, tmp_path):
    found = [
        poolzoo("compare", *QUICK, "--pool", "avg,max", "--seeds", 2, "--json", "--out", tmp_path / name).json
        for name in ("a", "b")
    ]
    assert stable_rows(found[0]) == stable_rows(found[1])
    assert Path(found[0]["report"]) == tmp_path / "a" / "report.html"
    assert {"results", "baseline", "report", "csv"} <= found[0].keys()


def test_heads_on_a_frozen_backbone_train_as_if_alone(poolzoo, tmp_path):
    quick = ["nano/resnet" if one == "nano/plain" else one for one in QUICK]
    frozen = (*quick, "--freeze", "backbone", "--pretrained", "--threads", 1)
    together = poolzoo("compare", *frozen, "--pool", "avg,max", "--seeds", 2, "--json", "--out", tmp_path / "c").json
    by_pool = {row["pool"]: row for row in together["results"]}
    alone = poolzoo("compare", *frozen, "--pool", "max", "--seeds", 2, "--json", "--out", tmp_path / "d").json[
        "results"
    ][0]
    assert [one["accuracy"] for one in by_pool["max"]["per_seed"]] == [one["accuracy"] for one in alone["per_seed"]]


def test_heads_on_one_backbone_are_measured_as_they_are_alone(poolzoo, tmp_path, monkeypatch):
    frozen = ("--data", "digits", "--backbone", "nano/resnet", "--pretrained", "--freeze", "backbone", "--epochs", 1)
    more = ("--limit", 300, "--robustness-samples", 10, "--export-top", 0, "--seeds", 1, "--json")
    monkeypatch.setenv("POOLZOO_CACHE", str(tmp_path / "shared"))
    together = poolzoo("compare", *frozen, *more, "--pool", "avg,max", "--threads", 2, "--out", tmp_path / "c").json
    real, seen = Network.forward_map, []
    monkeypatch.setattr(Network, "forward_map", lambda self, x: (seen.append(len(x)), real(self, x))[1])
    for cache, images in (("shared", range(1, 30)), ("own", range(79 * 10, 100 * 10))):
        monkeypatch.setenv("POOLZOO_CACHE", str(tmp_path / cache))
        seen.clear()
        alone = poolzoo(
            "compare", *frozen, *more, "--pool", "max", "--threads", 1, "--out", tmp_path / f"of-{cache}"
        ).json
        assert sum(seen) - (0 if cache == "shared" else 600) in images  # some single ones are for measuring memory
        row = next(row for row in together["results"] if row["pool"] == "max")
        for key in ("accuracy", "corruption_accuracy", "crop_consistency", "shift_consistency"):
            assert row[key] == alone["results"][0][key]


# --- Failures and interruptions -----------------------------------------------------------------------------------

PLUGIN = """
from poolzoo import Pooling, hookimpl


def build(channels: int):
    from torch import nn
    class Tired(nn.Module):
        def forward(self, x):
            if self.training:
                raise RuntimeError("no more")
            return x.mean((2, 3))
    return Tired()


@hookimpl
def poolzoo_poolings():
    yield Pooling(name="tired", summary="", kind="global", build=build)
"""


@pytest.mark.parametrize("freeze", [(), ("--freeze", "backbone", "--no-feature-cache")])
def test_a_trial_that_fails_is_a_row(poolzoo, tmp_path, freeze):
    (tmp_path / "tired.py").write_text(PLUGIN)
    arguments = (*QUICK, *freeze, "--pool", "avg,tired", "--seeds", 1, "--plugin", tmp_path / "tired.py", "--json")
    outcome = poolzoo("compare", *arguments, "--out", tmp_path / "c")
    assert outcome.code == 0
    rows = {row["pool"]: row for row in outcome.json["results"]}
    assert rows["avg"]["status"] == "done"
    assert rows["tired"]["status"] == "failed"
    assert "no more" in rows["tired"]["error"]
    outcome = poolzoo("compare", "--resume", tmp_path / "c", "--json")  # which knows the plugin by itself
    assert outcome.code == 0
    assert {row["pool"]: row["status"] for row in outcome.json["results"]} == {"avg": "done", "tired": "failed"}


def test_a_trial_without_robustness_leaves_the_others_their_figures(poolzoo, tmp_path, monkeypatch):
    from poolzoo.compare import robustness

    measured, asked = robustness.measure, []

    def touchy(paths, *rest, **options):
        asked.append(sorted(paths))
        if any("-max-" in key for key in paths):
            raise ValueError("not this image")
        return measured(paths, *rest, **options)

    monkeypatch.setattr(robustness, "measure", touchy)
    words = [word for word in QUICK if word not in ("--robustness-samples", "--export-top")][:8]
    more = ("--pool", "avg,max", "--seeds", 1, "--robustness-samples", 20, "--export-top", 0)
    found = poolzoo("compare", *words, *more, "--out", tmp_path / "c", "--json")
    rows = {row["pool"]: row for row in found.json["results"]}
    assert [len(keys) for keys in asked] == [2, 1, 1]  # together, then each by itself
    assert rows["avg"]["corruption_accuracy"]["mean"] > 0
    assert rows["max"]["corruption_accuracy"] is None
    assert "not this image" in found.err


def test_a_one_by_one_map_is_refused_before_writing(poolzoo, tmp_path):
    arguments = ("--data", "digits", "--backbone", "timm/test_resnet", "--image-size", 32, "--pool", "avg,max")
    outcome = poolzoo("compare", *arguments, "--out", tmp_path / "c")
    assert outcome.code == 2
    assert "1×1" in outcome.err
    assert not (tmp_path / "c").exists()


def test_bad_arguments_are_one_line_and_a_hint(poolzoo, tmp_path):
    for arguments in (
        ("--pool", "avgg"),
        ("--pool", "avg", "--baseline", "max"),
        ("--pool", "avg", "--ray-address", "x"),
        ("--resume", tmp_path / "none"),
        ("--resume", tmp_path, "--pool", "avg"),
    ):
        outcome = poolzoo("compare", *arguments)
        assert outcome.code == 2
        assert len(outcome.err.splitlines()) == 2, outcome.err


def dies_in_the_third_trial(events: Connection) -> None:
    noted, added = Journal.add, itertools.count(1)

    def add(self, record):
        noted(self, record)
        if record["status"] == "done" and next(added) == 2:
            processes.signal_at(signal.SIGKILL, TrainingModule, "step", 20)

    Journal.add = add


def test_a_killed_comparison_resumes_to_the_same_table(poolzoo, tmp_path):
    arguments = ("compare", *QUICK, "--epochs", 1, "--pool", "avg,max", "--seeds", 2, "--threads", 1, "--json")
    whole = poolzoo(*arguments, "--out", tmp_path / "whole").json
    process = processes.start(tmp_path, *arguments, "--out", tmp_path / "killed", before=dies_in_the_third_trial)
    assert process.wait().code == -signal.SIGKILL
    journal = (tmp_path / "killed" / "journal.jsonl").read_text().splitlines()
    assert [line["status"] for line in map(json.loads, journal)].count("done") == 2
    outcome = poolzoo("compare", "--resume", tmp_path / "killed", "--json")
    assert outcome.code == 0
    assert "2 of 4 trials are done already" in outcome.err
    assert stable_rows(outcome.json) == stable_rows(whole)


def test_an_interrupted_comparison_of_an_earlier_version_resumes(poolzoo, tmp_path):
    """Heads of a frozen backbone, stopped after the first of two epochs, before features of test images were kept.

    The first epoch saw features of the backbone before its batch norms were folded: results differ by rounding.
    """
    place = tmp_path / "resumed"
    shutil.copytree(Path(__file__).parents[1] / "data" / "earlier" / "interrupted-comparison", place)
    (checkpoint,) = place.glob("trials/*/checkpoint/state.pt")
    history = torch.load(checkpoint, weights_only=True)["progress"]["lines"]
    resumed = poolzoo("compare", "--resume", place, "--json").json
    arguments = (*QUICK, "--limit", 200, "--epochs", 2, "--freeze", "backbone", "--pool", "avg,gem", "--threads", 1)
    whole = poolzoo("compare", *arguments, "--seeds", 1, "--out", tmp_path / "whole", "--json").json
    accuracies = [{row["pool"]: row["accuracy"]["mean"] for row in found["results"]} for found in (resumed, whole)]
    assert accuracies[0] == pytest.approx(accuracies[1], abs=0.01)  # two of 200 images
    for pool, epochs in history.items():
        runs = [one / "trials" / checkpoint.parts[-3] / pool for one in (place, tmp_path / "whole")]
        assert largest_difference(*(load_file(run / "model.safetensors") for run in runs)) < 1e-3
        first, _ = (runs[0] / "metrics.jsonl").read_text().splitlines()
        assert json.loads(first)["seconds"] == epochs[0]["seconds"]


def test_a_dry_run_writes_nothing_and_tells_the_cost(poolzoo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = poolzoo(
        "compare", *QUICK, "--pool", "avg,gem:p=2|3", "--local-pool", "none,blur", "--seeds", 4, "--dry-run", "--json"
    ).json
    assert found["trials"] == 24
    assert len(found["rows"]) == 6
    assert all(row["parameters"] > 0 and row["macs"] > 0 for row in found["rows"])
    assert found["seconds"] >= 0
    assert list(tmp_path.iterdir()) == []


# --- Known truths -------------------------------------------------------------------------------------------------


def planted(folder: Path, kind: str) -> Path:
    """Two classes of 16 × 16 images that only the maximum, or only the mean, tells apart.

    "max": as many gray specks as make the mean equal, and one bright one in the second class. "mean": the same
    brightest pixels in both, and more of them in the second.
    """
    random = np.random.default_rng(0)
    for split, count in (("train", 80), ("test", 80)):
        for label in (0, 1):
            place = folder / split / f"class{label}"
            place.mkdir(parents=True)
            for index in range(count):
                pixels = np.full(256, 60.0)
                chosen = random.permutation(256)
                if kind == "max":
                    few = random.integers(4, 12)
                    pixels[chosen[: 8 * few if label == 0 else few]] += 20 if label == 0 else 160
                else:
                    pixels[chosen[: 20 if label == 0 else 60]] += 120
                noisy = pixels.reshape(16, 16, 1) + random.normal(0, 3, (16, 16, 1))
                Image.fromarray(np.repeat(noisy, 3, 2).clip(0, 255).astype(np.uint8)).save(place / f"{index}.png")
    return folder


@pytest.mark.parametrize(("kind", "winner"), [("max", "max"), pytest.param("mean", "avg", marks=pytest.mark.slow)])
def test_the_pooling_that_sees_what_matters_wins(poolzoo, tmp_path, kind, winner):
    """The map is the image itself, so that the pooling alone must see it."""
    (tmp_path / "pixels.py").write_text(PIXELS)
    data = planted(tmp_path / kind, kind)
    loser = {"max": "avg", "avg": "max"}[winner]
    arguments = ("--plugin", tmp_path / "pixels.py", "--data", f"folder:{data}", "--backbone", "pixels", "--epochs", 5)
    more = (
        "--pool",
        "avg,max",
        "--baseline",
        loser,
        "--seeds",
        3,
        "--robustness-samples",
        0,
        "--export-top",
        0,
        "--lr",
        0.2,
    )
    found = poolzoo("compare", *arguments, *more, "--shift", 0, "--json", "--out", tmp_path / "c").json
    first, second = found["results"]
    assert first["pool"] == winner
    assert first["accuracy"]["mean"] > 0.95
    assert second["accuracy"]["mean"] < 0.7
    assert first["delta"]["better"]
    assert any(sentence.startswith(f"{winner} beats {loser}") for sentence in found["conclusions"])
