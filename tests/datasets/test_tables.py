"""Tables of image files as data: every usual form gives what the folder gives, and bad lines are named."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from poolzoo.common.errors import UsageError
from poolzoo.data import source


def listed(photos: Path) -> list[tuple[str, str, str]]:
    """The images of a folder: path, label and split, sorted."""
    files = sorted(photos.glob("*/*/*.png"))
    return [(file.relative_to(photos).as_posix(), file.parent.name, file.parent.parent.name) for file in files]


def write(photos: Path, text: str, name: str = "all.csv", encoding: str = "utf-8") -> str:
    (photos / name).write_bytes(text.encode(encoding))
    return f"csv:{photos / name}"


def table(photos: Path, header: str = "path,label,split", rows: list[tuple[str, ...]] | None = None) -> str:
    return "\n".join([header, *(",".join(row) for row in rows or listed(photos))]) + "\n"


def load(text: str, split: str = "train", **how: object) -> tuple[np.ndarray, np.ndarray]:
    return source.load_split(source.open_dataset(text, **how), split)


def comma(photos: Path) -> str:
    return write(photos, table(photos))


def excel(photos: Path) -> str:
    text = table(photos, "Filename,Class,Set").replace(",", ";").replace("\n", "\r\n")
    return write(photos, text, encoding="utf-8-sig")


def utf16(photos: Path) -> str:
    return write(photos, table(photos).replace(",", "\t"), encoding="utf-16")


def tabs(photos: Path) -> str:
    return write(
        photos,
        table(photos, "label,image,split", [(b, a, c) for a, b, c in listed(photos)]).replace(",", "\t"),
        "all.tsv",
    )


def quoted(photos: Path) -> str:
    rows = [
        (f'"{path}"', f' "{label}"', split.upper(), '"a ""wide"" one, too"') for path, label, split in listed(photos)
    ]
    return write(photos, table(photos, '"path", "label",split,width', rows).replace("\n", "\n\n,,,\n"))


def windows(photos: Path) -> str:
    rows = [(".\\" + path.replace("/", "\\"), label, split) for path, label, split in listed(photos)]
    return write(photos, table(photos, rows=rows))


def absolute(photos: Path) -> str:
    (photos / "tables").mkdir()
    return write(
        photos, table(photos, rows=[(str(photos / path), *rest) for path, *rest in listed(photos)]), "tables/all.csv"
    )


def lines(photos: Path) -> str:
    return write(
        photos, "\n".join(json.dumps({"file": a, "label": b, "split": c}) for a, b, c in listed(photos)), "all.jsonl"
    )


def one_list(photos: Path) -> str:
    return write(photos, json.dumps([{"label": b, "split": c, "path": a} for a, b, c in listed(photos)]), "all.json")


def repeated(photos: Path) -> str:
    return write(photos, table(photos, rows=[row for row in listed(photos) for _ in range(2)]))


FORMS = [comma, excel, utf16, tabs, quoted, windows, absolute, lines, one_list, repeated]


@pytest.mark.parametrize("form", FORMS)
def test_a_table_gives_what_its_folder_gives(photos, form):
    dataset, folder = source.open_dataset(form(photos)), source.open_dataset(f"folder:{photos}")
    assert dataset.classes == folder.classes == ("blue", "red")
    for split in ("train", "test"):
        found, expected = (source.load_split(one, split) for one in (dataset, folder))
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])


def test_validation_rows_come_behind_the_training_images(photos):
    text = table(photos).replace("1.png,blue,train", "1.png,blue,val").replace("1.png,red,train", "1.png,red,dev")
    dataset = source.open_dataset(write(photos, text), validation=True)
    pixels, labels = source.load_split(dataset, "train")
    whole = dict(
        zip([path for path, _, split in listed(photos) if split == "train"], load(comma(photos))[0], strict=True)
    )
    index = source.indexed(dataset, "train")
    np.testing.assert_array_equal(pixels, np.stack([whole[name] for name in index.names]))
    assert source.reader(dataset).validation == 4  # 1.png and 11.png of each class
    assert list(index.names[-4:]) == [f"train/{kind}/{number}.png" for kind in ("blue", "red") for number in (1, 11)]
    assert labels.tolist() == [0] * 10 + [1] * 10 + [0, 0, 1, 1]


def swap(old: str, new: str):
    return lambda text: text.replace(old, new, 1)


BAD = {
    "no column": (swap("path", "name of it"), ["line 1: no column path among 'name of it', 'label', 'split'"]),
    "misspelled column": (swap("label", "lable"), ["line 1: no column label", "did you mean label"]),
    "no header": (lambda text: text.partition("\n")[2], ["line 1: no column path among 'test/blue/0.png'"]),
    "column twice": (swap("split", "label"), ["line 1: column 'label' is there twice"]),
    "split": (swap("\ntest/blue/1.png,blue,test", "\ntest/blue/1.png,blue,tset"), ["line 3: split 'tset'", "test"]),
    "no split": (swap("\ntest/blue/1.png,blue,test", "\ntest/blue/1.png,blue,"), ["line 3: split '' is none of"]),
    "no label": (swap("0.png,blue", "0.png,"), ["line 2: test/blue/0.png has no label"]),
    "no path": (swap("test/blue/0.png,", ","), ["line 2: the path is empty"]),
    "cells": (swap(",blue,", ",sky,blue,"), ["line 2: 4 cells, and the first line has 3", "quotes"]),
    "quote": (swap("\ntest", '\n"test'), ["unexpected end of data", "a quote that is not closed"]),
    "missing": (
        lambda text: text.replace("blue/1.png", "blue/x.png"),
        ["line 3: there is no file 'test/blue/x.png', and 1 more of 32"],
    ),
    "folder": (swap("test/blue/0.png", "test/blue"), ["line 2: there is no file 'test/blue'"]),
    "two splits": (
        lambda text: text + "test/blue/0.png,blue,train\n",
        ["line 34: test/blue/0.png is in split train, and in test in line 2"],
    ),
    "two labels": (
        lambda text: text + "test/blue/0.png,red,test\n",
        ["line 34: test/blue/0.png has label 'red', and 'blue' in line 2"],
    ),
    "class": (
        lambda text: text.replace("red,test", "crimson,test"),
        ["labels in test that no training image has: only test has 'crimson'"],
    ),
    "alike": (
        lambda text: text.replace("red,test", "Red,test"),
        ["train has 'red', test has 'Red' (they differ in upper and lower case)"],
    ),
    "nothing": (lambda text: text.partition("\n")[0], ["names no image"]),
    "empty": (lambda text: "", ["is empty"]),
    "no training image": (lambda text: text.replace(",train", ",val"), ["has no training images"]),
}


@pytest.mark.parametrize(("change", "says"), BAD.values(), ids=BAD)
def test_a_bad_line_is_named(photos, change, says):
    with pytest.raises(UsageError) as caught:
        source.open_dataset(write(photos, change(table(photos))))
    for text in says:
        assert text in f"{caught.value.message} {caught.value.hint}"
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"path,label\na.png,b\xe9b\xe9\n", "line 2: not utf-8"),
        (b"path,label\n" + b"a.png,b\n" * 5000 + b"b.png,\xff\n", "line 5,002: not utf-8"),
        (b"path,label\na.png\x00,b\n", "line 2"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "line 1"),
        (b"path,label\n" + b"x" * (1 << 21) + b",b\n", "line 2: field larger than"),
    ],
)
def test_what_is_no_text_is_refused_with_its_line(photos, content, says):
    (photos / "a.png").touch()
    (photos / "odd.csv").write_bytes(content)
    with pytest.raises(UsageError, match=says):
        source.open_dataset(f"csv:{photos / 'odd.csv'}")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[1]", "record 1: no object but 1"),
        ("{", "line 1: not usable as JSON"),
        ('{"path": "a.png", "label": "a", "label": "b"}', "line 1: not usable as JSON: 'label' is there twice"),
        ('[{"path": "a.png", "path": "a.png", "label": "a"}]', "'path' is there twice"),
        ('{"path": "a.png", "label": 1.5}', "line 1: 1.5 is no label"),
        ('{"path": "a.png", "label": true}', "line 1: True is no label"),
        ('{"path": "\\ud800.png", "label": "a"}', "line 1: .* is no text that a file can have"),
        ('{"path": "a.png", "label": "\\udfff"}', "line 1: .* is no text that a file can have"),
        ('{"path": 7, "label": 1}', "line 1: 7 is no text"),
        ('{"path": "a.png", "label": ["a", "b"]}', "line 1: a.png has 2 labels"),
        ('\n{"path": "a.png"}', "line 2: no column label"),
    ],
)
def test_bad_json_is_refused_with_its_line(photos, text, says):
    name = "odd.json" if text.startswith("[") else "odd.jsonl"
    with pytest.raises(UsageError, match=says):
        source.open_dataset(write(photos, text, name))


def test_of_many_columns_only_the_first_are_compared(photos):
    """Comparing each of a million names takes minutes."""
    for many, is_near in ((100, True), (100_000, False)):
        text = ",".join([*map(str, range(many)), "path", "lable"])
        with pytest.raises(UsageError, match="no column label among") as caught:
            source.open_dataset(write(photos, text))
        assert ("did you mean label" in caught.value.hint) == is_near


@pytest.mark.parametrize(
    ("place", "says"), [("al.csv", "did you mean all.csv"), ("train", "is a folder"), ("x.xls", "ends in none of")]
)
def test_a_wrong_place_is_one_line_with_a_hint(poolzoo, photos, place, says):
    comma(photos)
    (photos / "x.xls").touch()
    outcome = poolzoo(
        "finetune", "--data", f"csv:{photos / place}", "--backbone", "nano/plain", "--out", photos / "run"
    )
    assert outcome.code == 2
    assert len(outcome.err.splitlines()) == 2
    assert says in outcome.err


def test_whole_numbers_are_classes_in_their_order(photos):
    rows = [(path, str(index % 12 * 10), split) for index, (path, _, split) in enumerate(listed(photos))]
    dataset = source.open_dataset(write(photos, table(photos, rows=rows)))
    assert dataset.classes == tuple(str(10 * value) for value in range(12))
    labels = source.load_split(dataset, "train")[1]
    assert labels.tolist() == [int(label) // 10 for _, label, split in rows if split == "train"]


def test_ten_thousand_classes_of_one_image_are_read(photos):
    for index in range(10_000):
        (photos / f"{index}.png").hardlink_to(photos / "train/red/0.png")
    rows = [(f"{index}.png", f"kind {index:05d}", "train") for index in range(10_000)]
    random.Random(0).shuffle(rows)
    dataset = source.open_dataset(write(photos, table(photos, rows=rows)), splits=("train",))
    index = source.indexed(dataset, "train")
    assert len(dataset.classes) == 10_000
    assert [dataset.classes[label] for label in index.labels] == [label for _, label, _ in rows]
    assert index.nbytes < 200 * 10_000


# --- Several labels --------------------------------------------------------------------------------------------------

TAGS = {"red/0.png": ["round", "old"], "red/1.png": ["new"], "red/2.png": [], "blue/0.png": ["old"]}
EXPECTED = {"red/0.png": [0, 1, 1], "red/1.png": [1, 0, 0], "red/2.png": [0, 0, 0], "blue/0.png": [0, 1, 0]}


@pytest.mark.parametrize("form", ["bars", "semicolons", "json", "pandas", "lines", "rows"])
def test_several_labels_become_a_table_of_zeros_and_ones(photos, form):
    if form == "lines":
        text = "\n".join(json.dumps({"path": f"train/{name}", "labels": tags}) for name, tags in TAGS.items())
        data = write(photos, text, "tags.jsonl")
    elif form == "rows":  # a row for each label of an image
        rows = [f"train/{name},{tag}" for name, tags in TAGS.items() for tag in tags or [""]]
        data = write(photos, "\n".join(["path,label", *rows]))
    else:
        cell = {"bars": "|".join, "semicolons": "; ".join, "json": json.dumps, "pandas": str}[form]
        quote = '"'
        rows = [f"train/{name},{quote}{cell(tags).replace(quote, quote * 2)}{quote}" for name, tags in TAGS.items()]
        data = write(photos, "\n".join(["file,labels", *rows]))
    dataset = source.open_dataset(data, splits=("train",), multilabel=True)
    index = source.indexed(dataset, "train")
    assert dataset.classes == ("new", "old", "round")
    assert index.labels.dtype == np.uint8
    assert index.labels.tolist() == [EXPECTED[name.removeprefix("train/")] for name in index.names]
    pixels, labels = source.load_split(dataset, "train")
    np.testing.assert_array_equal(labels, index.labels)
    assert len(pixels) == 4


def test_several_labels_need_the_task_that_takes_them(photos):
    data = write(photos, "path,labels\ntrain/red/0.png,a|b\n")
    with pytest.raises(UsageError, match=r"line 2: train/red/0.png has 2 labels \(a, b\)"):
        source.open_dataset(data, splits=("train",))
    with pytest.raises(UsageError, match="each image has one label"):
        source.open_dataset(f"folder:{photos}", multilabel=True)
