"""The kit for data sets of encoded images: an honest one passes, and each broken promise is found by its check."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from poolzoo import Dataset, FileStorage, ImageIndex, Names, testing
from poolzoo.data import source


def index_of(photos: Path, split: str) -> ImageIndex:
    folder = photos / split
    files = sorted(folder.glob("*/*.png"))
    names = Names.of(file.relative_to(folder).as_posix() for file in files)
    labels = np.array([("blue", "red").index(file.parent.name) for file in files], np.int32)
    return ImageIndex(FileStorage(str(folder)), names, labels)


@pytest.fixture
def honest(photos) -> Dataset:
    return Dataset(
        name="honest", summary="", index=lambda split, cache_dir: index_of(photos, split), classes=("blue", "red")
    )


def changed(dataset: Dataset, change) -> Dataset:
    """The data set with indices to which something is done."""
    assert dataset.index is not None
    make = dataset.index
    return replace(dataset, index=lambda split, cache_dir: change(make(split, cache_dir)))


@dataclass(frozen=True)
class Lying:
    """A storage that gives what it was made with."""

    content: bytes
    size: int = 0
    place: str = "nowhere"

    def open(self, row: int, name: str) -> io.BytesIO:
        return io.BytesIO(self.content)

    def stamp(self, row: int, name: str) -> tuple[int, int]:
        return self.size, 0


class Drifting(Lying):
    """A storage that cannot go to another process."""

    def __reduce__(self):
        raise TypeError("it holds an open file")


def with_labels(index: ImageIndex, labels: np.ndarray) -> ImageIndex:
    return ImageIndex(index.storage, index.names, labels)


def other_names(index: ImageIndex) -> ImageIndex:
    return ImageIndex(index.storage, Names.of(["blue/0.png"] * len(index)), index.labels)


def shuffled(index: ImageIndex) -> ImageIndex:
    return index.take(np.random.default_rng().permutation(len(index)))


LIES = {
    "an array": (lambda index: np.zeros(3), "splits_are_indices"),
    "empty": (lambda index: index.take(np.zeros(0, np.int64)), "splits_are_indices"),
    "wide labels": (lambda index: with_labels(index, index.labels.astype(np.int64)), "labels_are_classes"),
    "label too large": (lambda index: with_labels(index, index.labels + 1), "labels_are_classes"),
    "class without images": (lambda index: with_labels(index, index.labels * 0), "labels_are_classes"),
    "same names": (other_names, "names_are_unique"),
    "no image": (lambda index: replace(index, storage=Lying(b"this is no image", 16)), "images_can_be_read"),
    "wrong stamp": (lambda index: replace(index, storage=Lying(b"", 7)), "images_can_be_read"),
    "not picklable": (lambda index: replace(index, storage=Drifting(b"")), "indices_can_be_pickled"),
    "shuffled": (shuffled, "indexing_is_repeatable"),
}


def test_an_honest_data_set_passes(honest):
    assert testing.check_dataset(honest) == []
    for check in testing.INDEX_CHECKS:
        getattr(type("TestMine", (testing.IndexedDatasetTests,), {"dataset": honest})(), f"test_{check}")()


@pytest.mark.parametrize(("lie", "check"), LIES.values(), ids=LIES)
def test_each_broken_promise_is_found(honest, lie, check):
    assert check in [failure.check for failure in testing.check_dataset(changed(honest, lie))]


def test_classes_of_one_name_are_found(honest):
    failures = testing.check_dataset(replace(honest, classes=("red", "red")))
    assert [failure.check for failure in failures] == ["labels_are_classes"]


PLUGIN = """
from pathlib import Path
import numpy as np
from poolzoo import Dataset, DatasetSource, FileStorage, ImageIndex, Names, UsageError, hookimpl

PLACE = {place!r}

def index(split, cache_dir):
    files = sorted(Path(PLACE, split).glob("*/*.png"))
    names = Names.of(str(file.relative_to(PLACE)) for file in files)
    labels = np.array([["blue", "red"].index(file.parent.name) for file in files], np.int32)
    return ImageIndex(FileStorage(PLACE), names, labels)

def open_list(place, *, splits, multilabel):
    if not Path(place).exists():
        raise UsageError(f"there is no list {{place}}", "write one")
    return Dataset(name="list", summary=place, index=index, classes=("blue", "red"))

@hookimpl
def poolzoo_datasets():
    yield Dataset(name="mine", summary="mine", index=index, classes=("blue", "red"))
    yield DatasetSource(prefix="list", summary="lists", open=open_list, example="list:all.txt")
"""


@pytest.fixture
def plugin(photos, tmp_path) -> Path:
    (tmp_path / "mine.py").write_text(PLUGIN.format(place=str(photos)))
    (tmp_path / "all.txt").touch()
    return tmp_path / "mine.py"


def test_a_plugin_with_an_index_and_a_source_trains(poolzoo, plugin, photos, tmp_path):
    assert poolzoo("plugin", "check", plugin).code == 0
    listed = poolzoo("--plugin", plugin, "list", "datasets", "--json").json["datasets"]
    assert {"mine", "list:"} <= {row["name"] for row in listed}
    expected = source.load_split(source.open_dataset(f"folder:{photos}"), "train")
    options = ("--backbone", "nano/plain", "--epochs", 1, "--threads", 1, "--no-check-export")
    for data in ("mine", f"list:{tmp_path / 'all.txt'}"):
        loaded = source.load_split(source.open_dataset(data), "train")
        np.testing.assert_array_equal(loaded[0], expected[0])
        run = tmp_path / data[:4]
        assert poolzoo("--plugin", plugin, "finetune", "--data", data, *options, "--out", run).code == 0
        assert poolzoo("--plugin", plugin, "evaluate", run, "--json").json["n"] == 8
    outcome = poolzoo("--plugin", plugin, "finetune", "--data", "list:nothing", *options, "--out", tmp_path / "no")
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: there is no list {Path('nothing').absolute()}\n")


@pytest.mark.parametrize("thrown", [RuntimeError("odd"), SystemExit(0), KeyError("odd")])
def test_whatever_a_source_throws_is_its_plugins_failure(poolzoo, photos, tmp_path, thrown):
    text = PLUGIN.format(place=str(photos)).replace("return Dataset(", f"raise {thrown!r}; return Dataset(")
    (tmp_path / "bad.py").write_text(text)
    data = ("--data", f"list:{tmp_path}", "--backbone", "nano/plain")
    outcome = poolzoo("--plugin", tmp_path / "bad.py", "finetune", *data, "--out", tmp_path / "run")
    assert outcome.code == 1
    assert f"source list: failed: {type(thrown).__name__}" in outcome.err


def test_an_index_that_breaks_its_contract_is_named(photos, monkeypatch, poolzoo, tmp_path):
    for text, says in (
        ("return ImageIndex(", "return list("),
        ("labels = np.array(", "labels = 5 + np.array("),
    ):
        (tmp_path / "bad.py").write_text(PLUGIN.format(place=str(photos)).replace(text, says))
        data = ("--data", "mine", "--backbone", "nano/plain")
        outcome = poolzoo("--plugin", tmp_path / "bad.py", "finetune", *data, "--out", tmp_path / "run")
        assert outcome.code == 1
        assert "mine" in outcome.err.splitlines()[0]
