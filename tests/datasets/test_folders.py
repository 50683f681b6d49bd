"""Folders of class folders: nested ones, one folder without parts, many classes, and what memory an index takes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from poolzoo.common.errors import UsageError
from poolzoo.data import source, walk
from poolzoo.data.held_out import HeldOut


@pytest.fixture
def nested(photos: Path) -> Path:
    """`blue` stays a class; `red` becomes a group of two classes, one of them deeper."""
    for split in ("train", "test"):
        files = sorted((photos / split / "red").iterdir())
        for name, part in (("dark", files[::2]), ("light/very", files[1::2])):
            (photos / split / "red" / name).mkdir(parents=True)
            for file in part:
                file.rename(photos / split / "red" / name / file.name)
    return photos


def test_folders_of_class_folders_are_classes_named_by_paths(nested, capsys):
    dataset = source.open_dataset(f"folder:{nested}")
    assert dataset.classes == ("blue", "red/dark", "red/light/very")
    assert [np.bincount(source.load_split(dataset, split)[1]).tolist() for split in ("train", "test")] == [
        [12, 6, 6],
        [4, 2, 2],
    ]
    assert capsys.readouterr().err == "2 classes are folders of folders, named by their paths, such as red/dark\n"
    names = list(source.indexed(dataset, "train").names)
    assert names[12] == "red/dark/0.png"
    assert [os.path.join(nested, "train", name) for name in names] == list(
        walk.images_under(nested / "train", walk.Tally())
    )


def test_a_class_folder_with_images_keeps_its_subfolders_out(nested, capsys):
    for split in ("train", "test"):
        shutil.copy(nested / split / "blue/0.png", nested / split / "red/own.png")
    dataset = source.open_dataset(f"folder:{nested}")
    assert dataset.classes == ("blue", "red")
    assert len(source.indexed(dataset, "train")) == 13
    assert capsys.readouterr().err == "ignored: 16 in subfolders of a class\n"


def test_an_empty_folder_of_a_group_is_an_empty_class(nested):
    (nested / "train/red/empty").mkdir()
    (nested / "test/red/empty").mkdir()
    with pytest.raises(UsageError, match="train/red/empty holds no image"):
        source.open_dataset(f"folder:{nested}")


def test_links_within_a_group_are_not_followed(nested, capsys):
    (nested / "train/red/up").symlink_to("../..")
    assert source.open_dataset(f"folder:{nested}").classes == ("blue", "red/dark", "red/light/very")
    assert "1 linked folder" in capsys.readouterr().err


def test_a_network_trains_on_nested_classes(poolzoo, nested, tmp_path):
    options = ("--backbone", "nano/plain", "--epochs", 1, "--threads", 1, "--no-check-export")
    assert poolzoo("finetune", "--data", f"folder:{nested}", *options, "--out", tmp_path / "run").code == 0
    rows = poolzoo("evaluate", tmp_path / "run", "--json").json["per_class"]
    assert [row["class"] for row in rows] == ["blue", "red/dark", "red/light/very"]


def test_class_folders_without_parts_are_training_images(photos, tmp_path):
    dataset = source.open_dataset(f"folder:{photos}/train", test_part=HeldOut(0.25))
    index, test = (source.indexed(dataset, split) for split in ("train", "test"))
    assert (len(index), len(test)) == (18, 6)
    assert sorted([*index.names, *test.names]) == [
        file.relative_to(photos / "train").as_posix() for file in sorted((photos / "train").glob("*/*"))
    ]
    with pytest.raises(UsageError, match="neither test/ nor val/"):
        source.open_dataset(f"folder:{photos}/train")


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("phots", "did you mean photos?"),
        ("photos/trian/red", "did you mean train?"),
        ("photos/train/red/0.png", "is a file and no folder"),
        ("photos/train/red", "holds no class folder"),
        ("nothing/at/all", "does not exist"),
    ],
)
def test_a_wrong_folder_is_one_line_with_a_hint(poolzoo, photos, place, says):
    data = ("--data", f"folder:{photos.parent / place}", "--backbone", "nano/plain")
    outcome = poolzoo("finetune", *data, "--out", photos / "run")
    assert outcome.code == 2
    assert len(outcome.err.splitlines()) == 2
    assert says in outcome.err


def test_an_index_takes_little_room(tmp_path, photos):
    for number in range(2000):
        folder = tmp_path / f"many/train/class {number:04d}"
        folder.mkdir(parents=True)
        (folder / f"photograph {number}.png").hardlink_to(photos / "train/red/0.png")
    dataset = source.open_dataset(f"folder:{tmp_path / 'many'}", splits=("train",))
    index = source.indexed(dataset, "train")
    assert len(dataset.classes) == len(index) == 2000
    assert index.nbytes / len(index) < 60
    part = index.take(np.array([1999, 3, 3, 0]))
    assert [index.where(position) for position in (1999, 3, 3, 0)] == [part.where(position) for position in range(4)]
