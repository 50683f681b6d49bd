"""Which data a run saw: a resume, an evaluation and a comparison say what changed, and that alone."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.interruptions import stopped_in

from poolzoo.data.identity import FILE, DataIdentity
from poolzoo.data.image_facts import Facts

QUICK = ("--backbone", "nano/plain", "--threads", 1, "--epochs", 2, "-q")


def remove(root: Path) -> None:
    (root / "test/red/1.png").unlink()


def add(root: Path) -> None:
    shutil.copy(root / "train/red/3.png", root / "test/blue/99.png")


def change(root: Path) -> None:
    Image.new("RGB", (16, 16), "green").save(root / "train/blue/7.png")


def swap(root: Path) -> None:
    """Two images exchange their classes, with equal names, sizes and times."""
    one, other = root / "train/blue/3.png", root / "train/red/3.png"
    one.rename(root / "train/aside")
    other.rename(one)
    (root / "train/aside").rename(other)


def rename_class(root: Path) -> None:
    for split in ("train", "test"):
        (root / split / "red").rename(root / split / "scarlet")


def reorder(root: Path) -> None:
    (root / "train/red/0.png").rename(root / "train/red/z.png")


def touch(root: Path) -> None:
    for file in root.rglob("*.png"):
        os.utime(file, ns=(0, 10**18))


def encode_again(root: Path) -> None:
    for file in root.rglob("*.png"):
        Image.open(file).save(file, compress_level=1)


CHANGES = [
    (remove, "test, 1 file fewer (red/1.png)"),
    (add, "test, 1 file more (blue/99.png)"),
    (change, "train, 1 file changed (blue/7.png)"),
    (swap, "train, 2 files changed (blue/3.png, red/3.png)"),
    (rename_class, "1 class renamed (red → scarlet)"),
    (reorder, "train, 1 file renamed (red/0.png → red/z.png)"),
    (touch, None),
    (encode_again, None),
]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Two classes of images with equal sizes on disk or not, all different."""
    root, generator = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 4)):
        for name in ("blue", "red"):
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 256, (16, 16, 3), np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def begun(pictures, tmp_path_factory) -> Path:
    """A run that was stopped after its first epoch."""
    from poolzoo import cli

    path = tmp_path_factory.mktemp("begun") / "run"
    with stopped_in(2):
        arguments = ("finetune", "--data", f"folder:{pictures}", *QUICK, "--no-check-export", "--out", path)
        assert cli.run([str(word) for word in arguments]) == 130
    return path


@pytest.fixture
def copies(pictures, begun, tmp_path) -> tuple[Path, Path]:
    """The images and the run, copied to where nothing else changes them; files get new times."""
    data, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(pictures, data, copy_function=shutil.copyfile)
    shutil.copytree(begun, run)
    toml, state = run / "run.toml", run / "checkpoint/state.pt"
    toml.write_text(toml.read_text().replace(str(pictures), str(data)))
    import torch

    saved = torch.load(state, weights_only=True)
    saved["settings"]["data"] = f"folder:{data}"
    torch.save(saved, state)
    return data, run


@pytest.mark.parametrize(("alter", "says"), CHANGES, ids=[alter.__name__ for alter, _ in CHANGES])
def test_a_resume_says_what_changed(poolzoo, copies, alter, says):
    data, run = copies
    alter(data)
    outcome = poolzoo("finetune", "--resume", run, "-q")
    if says is None:
        assert outcome.code == 0, outcome.err
        return
    assert outcome.code == 1
    assert outcome.err.splitlines()[0] == f"error: the data changed: {says}"
    assert "restore it" in outcome.err.splitlines()[1]


def test_a_resume_names_what_cannot_be_read_any_more(poolzoo, copies):
    data, run = copies
    (data / "test/red/1.png").write_text("no image")
    outcome = poolzoo("finetune", "--resume", run, "-q")
    assert outcome.code == 1
    error, hint = outcome.err.splitlines()
    assert error.startswith("error: 1 of 8 images cannot be read, first ")
    assert "restore them" in hint  # a resumed run takes no --skip-broken
    assert "--skip-broken" not in hint


def test_a_run_without_a_checkpoint_begins_with_the_current_data(poolzoo, copies):
    data, run = copies
    shutil.rmtree(run / "checkpoint")
    remove(data)
    outcome = poolzoo("finetune", "--resume", run)
    assert outcome.code == 0, outcome.err
    assert "warning: the data changed: test, 1 file fewer (red/1.png)" in outcome.err
    assert len(DataIdentity.load(run / FILE).splits["test"].labels) == 7


def test_a_run_of_an_earlier_version_goes_by_its_fingerprint(poolzoo, copies):
    import torch

    from poolzoo.train.settings import Settings
    from poolzoo.train.settings_file import read_toml
    from poolzoo.train.splits import read_data

    data, run = copies
    state = run / "checkpoint/state.pt"
    saved = torch.load(state, weights_only=True)
    saved["data"] = read_data(Settings(**read_toml(run / "run.toml"))).legacy_digest()
    torch.save(saved, state)
    (run / FILE).unlink()
    shutil.copytree(run, run.parent / "other")
    assert poolzoo("finetune", "--resume", run, "-q").code == 0
    change(data)
    outcome = poolzoo("finetune", "--resume", run.parent / "other", "-q")
    assert outcome.code == 1
    assert "the data changed since the run began" in outcome.err


def test_an_evaluation_says_that_its_images_are_others(poolzoo, copies):
    data, run = copies
    assert poolzoo("finetune", "--resume", run, "-q").code == 0
    assert poolzoo("evaluate", run).code == 0
    remove(data)
    outcome = poolzoo("evaluate", run)
    assert outcome.code == 1
    assert "error: the data changed: test, 1 file fewer (red/1.png)" in outcome.err
    assert "--data" in outcome.err
    outcome = poolzoo("evaluate", run, "--data", f"folder:{data}", "--json")
    assert outcome.code == 0
    assert outcome.json["n"] == 7


def test_an_evaluation_of_a_limited_run_uses_its_subset(poolzoo, pictures, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(pictures, data)
    arguments = ("finetune", "--data", f"folder:{data}", *QUICK, "--limit", 6, "--out", tmp_path / "run")
    assert poolzoo(*arguments).code == 0
    assert poolzoo("evaluate", tmp_path / "run", "--json").json["n"] == 8
    kept = DataIdentity.load(tmp_path / "run" / FILE).splits["test"].names
    (data / "test" / kept[0]).unlink()
    assert f"test, 1 file fewer ({kept[0]})" in poolzoo("evaluate", tmp_path / "run").err


def test_a_comparison_does_not_go_on_with_other_data(poolzoo, pictures, tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(pictures, data)
    arguments = ("--data", f"folder:{data}", *QUICK, "--pool", "avg,max", "--seeds", 1, "--robustness-samples", 0)
    assert poolzoo("compare", *arguments, "--export-top", 0, "--out", out).code == 0
    journal = (out / "journal.jsonl").read_text().splitlines()
    remove(data)
    assert poolzoo("compare", "--resume", out, "-q").code == 0  # nothing is left to train
    (out / "journal.jsonl").write_text(journal[0] + "\n")
    shutil.rmtree(next(path for path in (out / "trials").iterdir() if "max" in path.name))
    outcome = poolzoo("compare", "--resume", out, "-q")
    assert outcome.code == 1
    assert "error: the data changed: test, 1 file fewer (red/1.png)" in outcome.err


# --- Without files --------------------------------------------------------------------------------------------------


def identity(images: np.ndarray, labels: np.ndarray) -> DataIdentity:
    return DataIdentity.of({"test": Facts.of(images)}, {"test": labels}, ("a", "b"))


def test_images_without_names_are_called_by_their_numbers():
    images = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3), np.uint8)
    labels = np.arange(20) % 2
    whole = identity(images, labels)
    assert whole.changes(identity(images.copy(), labels)) == []
    other = images.copy()
    other[[3, 5, 7, 9, 11], 0, 0, 0] ^= 1
    changed = "test, 5 images changed (number 3, number 5, number 7 and 2 more)"
    assert whole.changes(identity(other, labels)) == [changed]
    assert whole.changes(identity(images[:18], labels[:18])) == ["test, 2 images fewer"]
    assert whole.changes(identity(images, labels[::-1])) == [
        "test, 20 images with another label (number 0, number 1, number 2 and 17 more)"
    ]
    assert len({one.digest for one in (whole, identity(other, labels), identity(images, labels[::-1]))}) == 3


def test_what_is_kept_is_what_is_read_again(tmp_path):
    images, labels = np.zeros((3, 2, 2, 3), np.uint8), np.array([0, 1, 1])
    names = ("a/ä b.png", "b/\udcff.jpg", "b/2.png")  # a name that is no UTF-8 too
    facts = Facts(Facts.of(images).digests, None, names)
    kept = DataIdentity.of({"train": facts}, {"train": labels}, ("a", "b"))
    kept.save(tmp_path / FILE)
    found = DataIdentity.load(tmp_path / FILE)
    assert found.digest == kept.digest
    assert found.splits["train"].names == names
    assert found.classes == ("a", "b")
    assert DataIdentity.load(tmp_path / "none.npz") is None
