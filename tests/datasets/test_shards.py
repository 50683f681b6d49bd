"""WebDataset tar files as data: the samples that `webdataset` gives, in any order, and damaged files named."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from poolzoo.common.errors import CheckFailed, UsageError
from poolzoo.data import source
from poolzoo.datasets import shards as shards_module

wds = pytest.importorskip("webdataset")


def write(path: Path, members: Sequence[tuple[str, bytes]], format: int = tarfile.PAX_FORMAT) -> Path:
    """A tar file with these members, in their order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


CLASSES = {"blue": 0, "red": 1}


def members(photos: Path, split: str, form: str = "cls") -> list[tuple[str, bytes]]:
    """The images of a split with their labels in one of the forms that people have."""
    found: list[tuple[str, bytes]] = []
    for number, file in enumerate(sorted((photos / split).glob("*/*.png"))):
        key, name = f"some/{number:04d}", file.parent.name
        label = {
            "cls": ("cls", f"{CLASSES[name]}\n".encode()),
            "txt": ("txt", name.encode()),
            "json": ("json", json.dumps({"width": 16, "label": name}).encode()),
            "number": ("json", json.dumps(CLASSES[name]).encode()),
        }[form]
        found += [(f"{key}.PNG", file.read_bytes()), (f"{key}.{label[0]}", label[1])]
    return found


def shards(photos: Path, form: str = "cls") -> str:
    """Two training shards and one test shard."""
    train = members(photos, "train", form)
    write(photos / "shards/all-train-0000.tar", train[:20])
    write(photos / "shards/all-train-0001.tar", train[20:])
    write(photos / "shards/all-validation-0000.tar", members(photos, "test", form), tarfile.GNU_FORMAT)
    return f"shards:{photos}/shards"


@pytest.mark.parametrize(
    "pattern",
    [
        *(
            "a.tar",
            "{a,b}",
            "x-{00..17}",
            "{9..3}",
            "{0..10..3}",
            "{10..0..4}",
            "{train,test}-{0..4}",
            "{a}",
            "{a{1,2}}",
        ),
        *("{a{0..3}{0..3},b,c{1..2}}-{x,y}", "{0..2}::{a,b}", "{,a}", "{a,{b,{c,d}}}", "{-2..2}"),
    ],
)
def test_names_of_a_pattern_are_counted_as_they_are_made(pattern):
    from braceexpand import braceexpand

    made = sum(len(list(braceexpand(part))) for part in pattern.split("::"))
    assert shards_module.names_meant(pattern) == made


@pytest.mark.parametrize(
    "pattern", ["x-{2147483647..9}.tar", "{0..9999}{0..9999}", "{a{0..9999}{0..9999},b}", f"{{0..{'9' * 5000}}}"]
)
def test_a_pattern_of_endless_names_is_refused_before_they_are_made(pattern):
    with pytest.raises(UsageError, match="means more than 1,000,000 files"):
        shards_module.open_shards(pattern)


@pytest.mark.parametrize("form", ["cls", "txt", "json", "number"])
def test_shards_give_what_their_folder_gives(photos, form):
    dataset, folder = source.open_dataset(shards(photos, form)), source.open_dataset(f"folder:{photos}")
    assert dataset.classes == (("blue", "red") if form in ("txt", "json") else ("0", "1"))
    for split in ("train", "test"):
        found, expected = (source.load_split(one, split) for one in (dataset, folder))
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves files open
def test_images_are_those_of_webdataset_in_any_order(photos):
    pattern = shards(photos) + "/all-train-{0000..0001}.tar"
    index = source.indexed(source.open_dataset(pattern, splits=("train",)), "train")
    samples = list(wds.WebDataset(pattern.removeprefix("shards:"), shardshuffle=False))
    assert len(samples) == len(index) == 24
    again = pickle.loads(pickle.dumps(index))
    for position in np.random.default_rng(0).permutation(24):
        with again.open(position) as file:
            assert file.read() == samples[position]["png"]
        assert int(again.labels[position]) == int(samples[position]["cls"])
    assert index.where(23) == photos / "shards/all-train-0001.tar/some/0023.PNG"
    assert index.stamp(0)[0] == len(samples[0]["png"])


PATTERNS = {"all-{train-0000,train-0001,validation-0000}.tar": 24, "*.tar": 24, "all-t*-0001.tar::all-v*.tar": 14}


@pytest.mark.parametrize(("pattern", "count"), PATTERNS.items())
def test_a_pattern_names_files_by_braces_or_stars(photos, pattern, count):
    shards(photos)
    places = [f"{photos}/shards/{one}" for one in pattern.split("::")]
    dataset = source.open_dataset(f"shards:{'::'.join(places)}")
    assert [len(source.load_split(dataset, split)[1]) for split in ("train", "test")] == [count, 8]


def test_validation_shards_come_behind_the_training_images(photos):
    data = shards(photos)
    write(photos / "shards/test-0000.tar", members(photos, "test")[:4])
    dataset = source.open_dataset(data, validation=True)
    pixels, _ = source.load_split(dataset, "train")
    folder = source.open_dataset(f"folder:{photos}")
    expected = [source.load_split(folder, split)[0] for split in ("train", "test")]
    np.testing.assert_array_equal(pixels, np.concatenate(expected))
    assert source.reader(dataset).validation == 8
    index = pickle.loads(pickle.dumps(source.indexed(dataset, "train"))).take(np.array([25, 3]))
    for position, number in enumerate((1, 3)):
        file = sorted((photos / ("train" if position else "test")).glob("*/*.png"))[number]
        with index.open(position) as image:
            assert image.read() == file.read_bytes()


def test_headers_are_read_once_and_again_after_a_change(photos, monkeypatch):
    data = shards(photos)
    read = []
    opened = tarfile.open
    monkeypatch.setattr(tarfile, "open", lambda *rest, **more: read.append(1) or opened(*rest, **more))
    for _ in range(2):
        assert len(source.indexed(source.open_dataset(data), "train")) == 24
    assert len(read) == 3
    monkeypatch.undo()
    write(photos / "shards/all-train-0000.tar", members(photos, "train")[:22])
    assert len(source.indexed(source.open_dataset(data), "train")) == 25


def test_several_labels_of_a_sample_are_read(photos):
    image = (photos / "train/red/0.png").read_bytes()
    labels = [("json", b'{"labels": ["a", "b"]}'), ("cls", b"b;c"), ("txt", b""), ("json", b'{"labels": []}')]
    rows = [one for at, (kind, text) in enumerate(labels) for one in ((f"{at}.png", image), (f"{at}.{kind}", text))]
    data = f"shards:{write(photos / 'tags.tar', rows)}"
    index = source.indexed(source.open_dataset(data, splits=("train",), multilabel=True), "train")
    assert index.labels.tolist() == [[1, 1, 0], [0, 1, 1], [0, 0, 0], [0, 0, 0]]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9000])


def garble(path: Path) -> None:
    """A header in the middle, where tarfile and webdataset see the end of the file and lose the rest."""
    with tarfile.open(path) as tar:
        at = tar.getmembers()[10].offset
    raw = bytearray(path.read_bytes())
    raw[at : at + 512] = b"\xff" * 512
    path.write_bytes(raw)


def compress(path: Path) -> None:
    import gzip

    path.write_bytes(gzip.compress(path.read_bytes()))


def no_tar(path: Path) -> None:
    path.write_text("this is no tar file" * 100)


@pytest.mark.parametrize("damage", [cut, garble, compress, no_tar])
def test_a_damaged_shard_is_named(photos, damage):
    data = shards(photos)
    damage(photos / "shards/all-train-0000.tar")
    with pytest.raises(CheckFailed, match=r"all-train-0000\.tar is (no tar file, or )?damaged"):
        source.open_dataset(data)


def relabeled(photos: Path, changes: Mapping[str, tuple[str, bytes] | None]) -> str:
    """One shard in which some members are changed or left out."""
    rows = [changes.get(name, (name, content)) for name, content in members(photos, "train")]
    return f"shards:{write(photos / 'one.tar', [row for row in rows if row is not None])}"


BAD = {
    "no label": ({"some/0003.cls": None}, "some/0003.PNG has no label"),
    "no text": ({"some/0003.cls": ("some/0003.cls", b"\xff\xfe\x00")}, "some/0003.cls holds no label"),
    "no json": ({"some/0003.cls": ("some/0003.json", b"{")}, "some/0003.json holds no label"),
    "no name": ({"some/0003.cls": ("some/0003.json", b'{"label": {"a": 1}}')}, "0003.PNG: {'a': 1} is no label"),
    "two names": ({"some/0003.cls": ("some/0003.json", b'{"label": ["a", "b"]}')}, "0003.PNG has 2 labels"),
    "twice": ({"some/0003.cls": ("some/0003.png", b"x")}, "holds some/0003.png twice in a sample"),
    "two images": ({"some/0003.cls": ("some/0003.jpg", b"x")}, "in one sample, some/0003.PNG and some/0003.jpg"),
}


@pytest.mark.parametrize(("changes", "says"), BAD.values(), ids=BAD)
def test_a_bad_sample_is_named(photos, changes, says):
    with pytest.raises((UsageError, CheckFailed)) as caught:
        source.open_dataset(relabeled(photos, changes), splits=("train",))
    assert says in caught.value.message


def test_samples_without_an_image_are_counted(photos, capsys):
    source.open_dataset(relabeled(photos, {"some/0003.PNG": None, "some/0005.PNG": None}), splits=("train",))
    assert capsys.readouterr().err == "ignored: 2 samples without an image\n"


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("shards/all-train-{0000..0002}.tar", "all-train-0002.tar"),
        ("shards/none-*.tar", "no file is like"),
        ("train", "holds no .tar file"),
        ("https://example.com/a.tar", "are no files"),
        ("shards/all-train-0000.tar", "has no test images"),
    ],
)
def test_a_wrong_place_is_one_line_with_a_hint(poolzoo, photos, place, says):
    shards(photos)
    data = f"shards:{place}" if "://" in place else f"shards:{photos / place}"
    outcome = poolzoo("finetune", "--data", data, "--backbone", "nano/plain", "--out", photos / "run")
    assert outcome.code == 2
    assert len(outcome.err.splitlines()) == 2
    assert says in outcome.err


def test_a_network_trains_on_shards_and_evaluates(poolzoo, photos, tmp_path):
    options = ("--backbone", "nano/plain", "--epochs", 1, "--threads", 1, "--no-check-export")
    assert poolzoo("finetune", "--data", shards(photos), *options, "--out", tmp_path / "run").code == 0
    assert poolzoo("evaluate", tmp_path / "run", "--json").json["n"] == 8
