"""Which files count as images: the same for training and prediction, with one line on what was left out."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from poolzoo.common.errors import CheckFailed, UsageError
from poolzoo.data import source, walk
from poolzoo.train import run as training
from poolzoo.train.prepare import prepare
from poolzoo.train.settings import Settings


@pytest.fixture
def messy(photos: Path) -> Path:
    """A data set with 24 and 8 images, and much that is none of it."""
    image = photos / "train/red/0.png"
    for place in ("train/red/more/a.png", "train/red/more/deep/b.png", "extra/red/c.png", "train/loose.png"):
        (photos / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, photos / place)
    for index in range(3):
        (photos / f"train/blue/{index}.heic").touch()
        (photos / f"test/red/gone{index}.png").symlink_to("nowhere")
    for name in ("a.txt", "b.txt", ".hidden.png", "noending"):
        (photos / "train/blue" / name).touch()
    (photos / "train/loop").symlink_to("loop")
    (photos / "train/red/up").symlink_to("../..")
    os.mkfifo(photos / "train/red/pipe.png")
    (photos / "README").touch()
    return photos


SAID = (
    "ignored: 2 in subfolders of a class, 3 loose beside the class folders, 1 in extra/, "
    "3 .heic (pip install pillow-heif), 2 .txt, 1 without an ending, 1 linked folder, 1 pipes or devices, "
    "3 dangling links, 1 hidden\n"
)


def test_everything_that_is_ignored_is_counted_in_one_line(messy, capsys):
    dataset = source.open_dataset(f"folder:{messy}")
    assert capsys.readouterr().err == SAID
    assert [len(source.load_split(dataset, split)[1]) for split in ("train", "test")] == [24, 8]


def test_prediction_counts_what_training_reads(messy):
    def count(place: str) -> int:
        return len(list(walk.images_under(messy / place, walk.Tally())))

    shutil.rmtree(messy / "extra")
    assert [count(place) for place in ("train", "test", "train/red", "test/blue", ".")] == [24, 8, 12, 4, 32]


def test_a_plain_folder_means_its_images_at_any_depth(messy):
    (messy / "train").rename(messy / "album")
    tally = walk.Tally()
    names = [os.path.relpath(name, messy) for name in walk.images_under(messy / "album", tally)]
    assert len(names) == 27
    assert names == sorted(names, key=lambda name: Path(name).parts)


def test_albums_in_a_folder_named_like_a_split_are_albums(photos):
    (photos / "test").rename(photos / "album")
    (photos / "test/holidays").mkdir(parents=True)
    (photos / "album").rename(photos / "test/holidays/2026")
    for place in ("test/holidays", "test"):
        assert len(list(walk.images_under(photos / place, walk.Tally()))) == 8


def test_evaluation_walks_the_same_way(photos, capsys):
    (photos / "test/red/notes.txt").touch()
    dataset = source.open_dataset(f"folder:{photos}", (16, 16), ("test",), exact=True)
    images, labels = source.load_split(dataset, "test", (16, 16))
    assert (len(images), labels.tolist()) == (8, [0] * 4 + [1] * 4)
    assert capsys.readouterr().err == "ignored: 1 .txt\n"


def test_heic_files_are_images_where_their_reader_is_installed(monkeypatch):
    import sys
    import types

    from poolzoo.data import images

    asked = []
    module = types.SimpleNamespace(register_heif_opener=lambda: asked.append(1))
    monkeypatch.setitem(sys.modules, "pillow_heif", module)
    images.with_heif.cache_clear()
    assert images.with_heif()
    assert asked
    images.with_heif.cache_clear()


def test_all_empty_class_folders_are_named(photos):
    for name in ("green", "gray"):
        (photos / "train" / name).mkdir()
        (photos / "test" / name).mkdir()
    (photos / "train/gray/x.heic").touch()
    with pytest.raises(UsageError, match=r"gray \(and 1 more: green\) holds no image; ignored: 1 \.heic"):
        source.open_dataset(f"folder:{photos}")


# --- val/ beside test/ ----------------------------------------------------------------------------------------------


@pytest.fixture
def with_val(photos: Path) -> Path:
    shutil.copytree(photos / "test", photos / "val")
    (photos / "val/blue/0.png").unlink()
    return photos


def settings(photos: Path, **rest: object) -> Settings:
    return Settings(data=f"folder:{photos}", backbone="nano/plain", epochs=1, threads=1, **rest)


def test_val_beside_test_chooses_the_best_epoch(with_val, capsys):
    prepared = prepare(settings(with_val))
    assert "the 7 images of val/ choose the best epoch" in capsys.readouterr().err
    data = prepared.data
    assert (len(data.train_indices), len(data.val_indices), len(data.test.labels)) == (24, 7, 8)
    np.testing.assert_array_equal(data.images[data.val_indices][3:], data.test.images[4:])
    assert data.labels[data.val_indices].tolist() == [0] * 3 + [1] * 4
    assert prepared.settings.validation == "val"
    assert 'validation = "val"' in prepared.settings.to_toml()


def test_a_run_of_before_goes_on_without_val(with_val, capsys):
    data = prepare(settings(with_val, validation=None, reader=None)).data
    assert (len(data.train_indices), len(data.val_indices)) == (22, 2)
    assert "7 in val/" in capsys.readouterr().err


def test_a_run_knows_that_its_val_has_changed(with_val, tmp_path, monkeypatch):
    def stop(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "evaluate_best_weights", stop)
        with pytest.raises(KeyboardInterrupt):
            training.finetune(settings(with_val), tmp_path / "run")
    hidden = with_val / "val/red/3.png"
    hidden.rename(tmp_path / "3.png")
    with pytest.raises(CheckFailed, match="changed"):
        training.resume(tmp_path / "run")
    (tmp_path / "3.png").rename(hidden)
    assert training.resume(tmp_path / "run").test.n == 8


def test_val_alone_stays_the_test_split(photos):
    (photos / "test").rename(photos / "val")
    data = prepare(settings(photos)).data
    assert (len(data.train_indices), len(data.val_indices), len(data.test.labels)) == (22, 2, 8)


def test_a_run_older_than_these_settings_keeps_its_data(tmp_path):
    from poolzoo.compare.config import ComparisonConfig
    from poolzoo.train.settings_file import read_run_settings

    (tmp_path / "run.toml").write_text('data = "digits"\nimage_size = 16\n')
    seen = [read_run_settings(tmp_path)]
    dumped = ComparisonConfig("avg", None, "nano/plain", 1, None, 0, 0, 0.05, Settings()).to_json()
    for name in ("validation", "reader", "skip_broken"):
        del dumped["settings"][name]
    seen.append(ComparisonConfig.from_json(dumped).settings)
    assert [(one.validation, one.reader, one.fit.reader) for one in seen] == [(None, None, 1)] * 2
    assert (Settings().validation, Settings().reader) == ("auto", 2)


def test_all_trials_of_a_comparison_share_their_validation_images(with_val, tmp_path, poolzoo):
    import json

    arguments = ("--backbone", "nano/plain", "--pool", "avg,max", "--seeds", 1, "--epochs", 1, "--threads", 1, "-q")
    out = ("--robustness-samples", 0, "--export-top", 0, "--out", tmp_path / "comparison")
    assert poolzoo("compare", "--data", f"folder:{with_val}", *arguments, *out).code == 0
    assert json.loads((tmp_path / "comparison/plan.json").read_text())["settings"]["validation"] == "val"
