"""Whole runs on photographs that are read while the network trains."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import photographs
from support.interruptions import stopped_in

from poolzoo.common import errors

USUAL = ("--image-size", 32, "--backbone", "nano/plain", "--epochs", 2, "--batch-size", 4, "--threads", 1, "-q")
MORE = ("--no-check-export", "--augment", "standard", "--color-jitter", 0)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.setenv("POOLZOO_CACHE", str(tmp_path / "cache"))
    return photographs.data_set(tmp_path / "photos")


def arguments(photos: Path, out: Path, *more: object) -> tuple[object, ...]:
    return ("finetune", "--data", f"folder:{photos}", *USUAL, *MORE, *more, "--out", out)


def weights(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


@pytest.mark.parametrize("kept", ["reduced", "none"])
def test_resumed_run_has_the_weights_of_a_whole_one(poolzoo, photos, tmp_path, kept):
    """The whole one reads with one thread, the other with three and anew after it was stopped."""
    whole = poolzoo(*arguments(photos, tmp_path / "whole", "--data-cache", kept, "--data-workers", 1))
    assert whole.code == 0, whole.err
    with stopped_in(2):
        cut = poolzoo(*arguments(photos, tmp_path / "cut", "--data-cache", kept, "--data-workers", 3))
    assert cut.code == 130
    assert poolzoo("finetune", "--resume", tmp_path / "cut", "--epochs", 3).code == 2
    assert poolzoo("finetune", "--resume", tmp_path / "cut", "--data-workers", 2, "-q").code == 0
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    tables = list((tmp_path / "cache" / "images").glob("*/*.table"))
    assert bool(tables) == (kept == "reduced")
    evaluated = poolzoo("evaluate", tmp_path / "cut", "--json", "-q")
    report = json.loads((tmp_path / "cut" / "metrics.json").read_text())
    assert evaluated.json["accuracy"] == report["test"]["accuracy"]


def test_a_full_disk_keeps_the_last_checkpoint(poolzoo, photos, tmp_path):
    """The kernel allows the process no large file, as a full disk would not."""
    resource = pytest.importorskip("resource")
    with stopped_in(2):
        poolzoo(*arguments(photos, tmp_path / "run"))
    before = (tmp_path / "run" / "checkpoint" / "state.pt").read_bytes()
    allowed = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, allowed[1]))
    try:
        full = poolzoo("finetune", "--resume", tmp_path / "run", "-q")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, allowed)
    assert full.code == errors.ENVIRONMENT
    assert f"poolzoo finetune --resume {tmp_path / 'run'} continues the run" in full.err
    assert [path.name for path in (tmp_path / "run" / "checkpoint").iterdir()] == ["state.pt"]
    assert (tmp_path / "run" / "checkpoint" / "state.pt").read_bytes() == before
    assert poolzoo("finetune", "--resume", tmp_path / "run", "-q").code == 0


def test_without_random_crops_streams_learn_what_decoded_images_do(poolzoo, photos, tmp_path):
    for kept in ("decoded", "none", "reduced"):
        given = ("--augment", "light", "--data-cache", kept, "--freeze", "backbone", "--views", 1)
        assert poolzoo(*arguments(photos, tmp_path / kept, *given)).code == 0
        for entry in (tmp_path / "cache" / "features").glob("*/rows.npy"):  # or the next would find those of the first
            entry.unlink()
    assert weights(tmp_path / "none") == weights(tmp_path / "decoded") == weights(tmp_path / "reduced")


def test_changed_photograph_is_named_when_a_run_resumes(poolzoo, photos, tmp_path):
    with stopped_in(2):
        poolzoo(*arguments(photos, tmp_path / "run", "--data-cache", "none"))
    photographs.write(photos / "train" / "ant", 1, seed=99)
    refused = poolzoo("finetune", "--resume", tmp_path / "run")
    assert refused.code == 1
    assert "the data changed: train, 1 file changed (ant/00.jpg)" in refused.err


def test_broken_photographs_are_left_out_where_allowed(poolzoo, photos, tmp_path):
    broken = [photos / "train" / "bee" / "04.jpg", photos / "test" / "ant" / "01.jpg"]
    for path in broken:
        path.write_bytes(path.read_bytes()[:200])
    refused = poolzoo(*arguments(photos, tmp_path / "run", "--data-cache", "none"))
    assert refused.code == 1
    assert "cannot be read" in refused.err
    assert "bee/04.jpg" in refused.err
    assert not (tmp_path / "run").exists()
    assert poolzoo(*arguments(photos, tmp_path / "run", "--data-cache", "none", "--skip-broken", 2)).code == 0
    report = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert sorted(row["file"] for row in report["skipped"]) == sorted(map(str, broken))
    assert sum(map(sum, report["test"]["confusion"])) == 3
    evaluated = poolzoo("evaluate", tmp_path / "run", "--json", "-q")  # leaves as many out as its run
    assert evaluated.json["skipped"] == [row for row in report["skipped"] if "/test/ant/" in row["file"]]


def test_choice_of_what_is_kept_is_said_and_recorded(poolzoo, photos, tmp_path, monkeypatch):
    given = [one for one in arguments(photos, tmp_path / "run", "--dry-run") if one != "-q"]
    outcome = poolzoo(*given)
    assert "read while the network trains: the first epoch reduces them to about 37×49 and keeps them" in outcome.err
    assert not list((tmp_path / "cache").glob("images/*"))
    monkeypatch.setenv("POOLZOO_CACHE_LIMIT", "0.00001")
    assert "decoded anew in every epoch" in poolzoo(*given).err
    assert "read while" not in poolzoo(*given, "--augment", "light", "--data-cache", "decoded").err


def test_features_of_another_crop_are_not_taken(poolzoo, photos, tmp_path):
    given = ("--augment", "none", "--data-cache", "none", "--freeze", "backbone")
    assert poolzoo(*arguments(photos, tmp_path / "first", *given)).code == 0
    assert poolzoo(*arguments(photos, tmp_path / "second", *given, "--crop-pct", 0.6)).code == 0
    for entry in (tmp_path / "cache" / "features").glob("*/rows.npy"):
        entry.unlink()
    assert poolzoo(*arguments(photos, tmp_path / "alone", *given, "--crop-pct", 0.6)).code == 0
    assert weights(tmp_path / "second") == weights(tmp_path / "alone") != weights(tmp_path / "first")
