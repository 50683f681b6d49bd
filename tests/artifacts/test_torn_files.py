"""Files of runs that are cut off, or that something else has taken the place of: nothing of them counts as absent."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from poolzoo.artifacts import manifest
from poolzoo.common import files
from poolzoo.common.errors import CheckFailed, UsageError
from poolzoo.compare import comparison
from poolzoo.compare.journal import Journal
from poolzoo.data.identity import DataIdentity
from poolzoo.runtime import verify
from poolzoo.runtime.prediction import plan
from poolzoo.train import run as runs
from poolzoo.train.settings import Settings
from poolzoo.train.settings_file import read_run_settings

EARLIER = Path(__file__).parents[1] / "data/earlier"
BUNDLE = Path(__file__).parents[1] / "data/digits_bundle"
ODD: dict[str, Callable[[Path], object]] = {
    "directory": Path.mkdir,
    "loop": lambda path: path.symlink_to(path.name),
    "link": lambda path: path.symlink_to("nowhere"),
}
if hasattr(os, "mkfifo"):
    ODD["pipe"] = os.mkfifo


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return shutil.copytree(EARLIER / "run", tmp_path / "run")


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    text = Settings(data="digits", epochs=12, seed=34, image_size=(16, 8)).to_toml()
    (tmp_path / "run.toml").write_text(text, encoding="utf-8")
    return tmp_path / "run.toml"


@pytest.mark.parametrize("odd", ODD)
def test_what_is_no_file_never_counts_as_absent(run, tmp_path, odd):
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "run.toml").write_text('data = "digits"\n')
    calls: dict[Path, Callable[[], object]] = {
        run / "manifest.json": lambda: manifest.check(run, "run"),
        run / "data.npz": lambda: DataIdentity.load(run / "data.npz"),
        run / "replacing.json": lambda: manifest.check(run, "run"),
        unfinished / "manifest.json": lambda: runs.resume(unfinished),
        unfinished / "checkpoint" / "state.pt": lambda: runs.resume(unfinished),
        unfinished / "run.toml": lambda: runs.resume(unfinished),
        tmp_path / "plan.json": lambda: comparison.resume(tmp_path),
        tmp_path / "journal.jsonl": lambda: Journal(tmp_path / "journal.jsonl"),
        tmp_path / "predict.json": lambda: plan.Plan.load(tmp_path),
        tmp_path / "copy" / "manifest.json": lambda: verify.verify(tmp_path / "copy", measure_speed=False),
    }
    for path, call in calls.items():
        path.parent.mkdir(exist_ok=True)
        before = path.read_bytes() if path.is_file() else None
        path.unlink(missing_ok=True)
        ODD[odd](path)
        with pytest.raises(CheckFailed, match=f"{path.name} is no file") as caught:
            call()
        assert caught.value.hint == "remove it, or restore the file"
        path.rmdir() if path.is_dir() else path.unlink()
        if before is not None:
            path.write_bytes(before)
    assert not list(tmp_path.glob("**/.*.poolzoo"))


def test_a_list_of_images_that_is_gone_is_named(tmp_path):
    (tmp_path / plan.LIST).touch()
    made: Any = SimpleNamespace(list_sha256="0")
    with pytest.raises(CheckFailed, match=r"images\.index is missing"):
        plan.require_list(tmp_path, made)


@pytest.mark.parametrize("odd", sorted(set(ODD) - {"loop"}))
def test_what_a_manifest_lists_must_be_a_file(run, odd):
    (run / "metrics.json").unlink()
    ODD[odd](run / "metrics.json")
    (found,) = manifest.differences(run)
    assert found == "metrics.json is no file"


def test_a_file_that_is_not_there_is_absent(tmp_path):
    assert not files.has_file(tmp_path / "nowhere" / "file")
    (tmp_path / "file").write_text("")
    assert files.has_file(tmp_path / "file")
    assert not files.has_file(tmp_path / "file" / "below")
    (tmp_path / "link").symlink_to("file")
    assert files.has_file(tmp_path / "link")


def test_settings_that_are_cut_off_are_refused(settings):
    whole = settings.read_text(encoding="utf-8")
    assert read_run_settings(settings.parent).epochs == 12
    ends = [at for at, character in enumerate(whole) if character == "\n"]
    for size in {0, 1, len(whole) // 2, *ends, *(end + 1 for end in ends[:-1]), *(end - 1 for end in ends)}:
        settings.write_text(whole[:size], encoding="utf-8")
        with pytest.raises((CheckFailed, UsageError)):
            read_run_settings(settings.parent)


def test_settings_may_be_changed_and_added(settings):
    text = settings.read_text(encoding="utf-8").replace("seed = 34", "seed = 35") + "clip_grad = 1.0\n"
    settings.write_text(text, encoding="utf-8")
    found = read_run_settings(settings.parent)
    assert (found.seed, found.clip_grad) == (35, 1.0)


def test_settings_without_a_count_are_those_of_an_earlier_version(settings):
    settings.write_text('data = "digits"\nepochs = 3', encoding="utf-8")
    assert read_run_settings(settings.parent).epochs == 3
    settings.write_text("# nothing\n", encoding="utf-8")
    with pytest.raises(CheckFailed, match="has lost settings"):
        read_run_settings(settings.parent)
