"""`poolzoo data check` on folders in which copies, leaks and odd files were planted."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import planted

from benchmarks.data.changes import CHANGES

CLASSES = ("ant", "bee")
NOTHING = "there are no leaks, no copies and no unreadable files"


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    """Two classes, 6 images of each to train on and 5 to test on; no two show the same."""
    images = {
        f"{split}/{name}/{number}.jpg": planted.photograph(1000 * place + 100 * CLASSES.index(name) + number)
        for place, (split, count) in enumerate((("train", 6), ("test", 5)))
        for name in CLASSES
        for number in range(count)
    }
    return planted.folder(tmp_path / "data", images)


def check(poolzoo, folder, *options):
    outcome = poolzoo("data", "check", f"folder:{folder}", "--json", *options)
    return outcome.code, outcome.json


def pairs(found, kind=None):
    return {(pair["first"]["name"], pair["second"]["name"]) for pair in found if kind is None or pair["kind"] == kind}


def test_a_clean_folder_passes(poolzoo, clean):
    code, found = check(poolzoo, clean)
    assert code == 0
    assert found["passed"]
    assert not found["leaks"] + found["copies"] + found["labels"] + found["unreadable"]
    assert found["splits"]["train"]["images"] == 12
    assert found["splits"]["train"]["classes"] == {"ant": 6, "bee": 6}
    assert found["splits"]["test"]["sizes"]["smallest"] == [100, 150]
    assert not found["splits"]["train"]["odd"]


def test_a_test_image_among_the_training_images_fails(poolzoo, clean):
    shutil.copy(clean / "train/ant/2.jpg", clean / "test/ant/copy.jpg")
    code, found = check(poolzoo, clean, "--no-near")
    assert code == 1
    assert pairs(found["leaks"], "exact") == {("train/ant/2.jpg", "test/ant/copy.jpg")}
    assert not found["labels"]


def test_a_validation_image_among_the_training_images_fails(poolzoo, clean):
    shutil.copytree(clean / "test", clean / "val")
    code, found = check(poolzoo, clean, "--no-near")
    assert code == 0  # val and test are the same, which spoils the test alone
    assert len(found["leaks"]) == 10
    shutil.copy(clean / "train/ant/2.jpg", clean / "val/ant/copy.jpg")
    code, found = check(poolzoo, clean, "--no-near")
    assert code == 1


def test_copies_within_a_split_are_counted_once(poolzoo, clean):
    for number in range(3):
        shutil.copy(clean / "train/ant/2.jpg", clean / f"train/ant/copy{number}.jpg")
    code, found = check(poolzoo, clean, "--no-near")
    assert code == 0
    assert found["splits"]["train"]["copies"] == 3
    assert pairs(found["copies"]) == {("train/ant/2.jpg", f"train/ant/copy{number}.jpg") for number in range(3)}


def test_the_same_image_with_two_labels_is_named(poolzoo, clean):
    shutil.copy(clean / "train/ant/2.jpg", clean / "train/bee/copy.jpg")
    _, found = check(poolzoo, clean, "--no-near")
    (pair,) = found["labels"]
    assert [pair["first"]["label"], pair["second"]["label"]] == ["ant", "bee"]
    outcome = poolzoo("data", "check", f"folder:{clean}", "--no-near")
    assert "different labels; first train/bee/copy.jpg = train/ant/2.jpg, 'ant' and 'bee'" in outcome.out
    assert NOTHING not in outcome.err


def test_the_worst_finding_is_the_first_line(poolzoo, clean):
    shutil.copy(clean / "train/ant/2.jpg", clean / "test/bee/copy.jpg")
    shutil.copy(clean / "train/ant/3.jpg", clean / "train/ant/copy.jpg")
    (clean / "train/ant/4.jpg").write_bytes(b"")
    planted.photograph(7).convert("CMYK").save(clean / "train/ant/odd.jpg")
    outcome = poolzoo("data", "check", f"folder:{clean}", "--no-near")
    first_words = list(dict.fromkeys(line.split()[0] for line in outcome.out.splitlines()))
    expected = ["leakage", "labels", "unreadable", "copies", "classes", "odd", "sizes", "channels"]
    assert first_words == expected


def test_every_way_of_copying_is_found(poolzoo, clean):
    pytest.importorskip("imagehash")
    expected = set()
    for number, change in enumerate(CHANGES.values()):
        source, copy = f"train/ant/p{number:02}.jpg", f"test/ant/p{number:02}.png"
        original = planted.photograph(5000 + number)
        planted.folder(clean, {source: original, copy: change(original)})
        expected.add((source, copy))
    code, found = check(poolzoo, clean)
    assert code == 1
    assert pairs(found["leaks"]) == expected
    assert pairs(found["leaks"], "mirrored") == {("train/ant/p11.jpg", "test/ant/p11.png")}


def test_flat_images_are_no_copies_of_each_other(poolzoo, clean):
    pytest.importorskip("imagehash")
    shade = np.arange(100) // 20 + np.arange(80)[:, None] // 40  # hardly seen, and the same in all
    for level in (0, 90, 240):
        Image.fromarray((level + shade).astype(np.uint8)).save(clean / f"train/ant/flat{level}.png")
    _, found = check(poolzoo, clean)
    assert not found["copies"]


def test_scans_of_digits_are_not_all_the_same(poolzoo, tmp_path):
    """Any two handwritten ones correlate at 0.95."""
    pytest.importorskip("imagehash")
    from sklearn.datasets import load_digits

    scans = load_digits().images[:200]
    for number, scan in enumerate(scans):
        drawn = Image.fromarray((scan * 15.9).astype(np.uint8)).resize((40, 40), Image.Resampling.BICUBIC)
        planted.folder(tmp_path, {f"train/digit/{number}.png": drawn.point(lambda value: max(0, (value - 90) * 2))})
    _, found = check(poolzoo, tmp_path)
    assert found["splits"]["train"]["copies"] <= 2


def test_decoded_data_sets_are_checked_too(poolzoo):
    outcome = poolzoo("data", "check", "digits", "--json", "--limit", 100)
    assert outcome.code == 0
    assert outcome.json["splits"]["test"]["images"] == 100
    assert outcome.json["splits"]["train"]["sizes"]["largest"] == [8, 8]


def test_several_labels_an_image_are_counted_and_compared(poolzoo, clean):
    shutil.copy(clean / "train/ant/0.jpg", clean / "copy.jpg")
    rows = ["path,labels,split", "train/ant/0.jpg,ant|small,train", "train/ant/1.jpg,ant,train", "copy.jpg,ant,test"]
    (clean / "table.csv").write_text("\n".join([*rows, "train/bee/0.jpg,small|bee,train"]))
    arguments = ("--task", "multilabel", "--no-near", "--json")
    outcome = poolzoo("data", "check", f"csv:{clean / 'table.csv'}", *arguments)
    assert outcome.code == 1
    assert outcome.json["splits"]["train"]["classes"] == {"ant": 2, "bee": 1, "small": 2}
    (pair,) = outcome.json["labels"]
    assert {pair["first"]["label"], pair["second"]["label"]} == {"ant", "ant, small"}


def test_classes_of_few_images_are_named(poolzoo, clean):
    for name in ("cat", "dog"):
        planted.folder(
            clean, {f"{split}/{name}/0.jpg": planted.photograph(hash_of(split, name)) for split in ("train", "test")}
        )
    _, found = check(poolzoo, clean)
    assert found["splits"]["train"]["few"] == ["cat", "dog"]
    assert found["splits"]["train"]["imbalance"] == 6
    outcome = poolzoo("data", "check", f"folder:{clean}")
    assert "train: 14 images in 4 classes of 1 to 6; 2 classes have fewer than 5 images (cat, dog)" in outcome.out
    assert NOTHING in outcome.err


def hash_of(*words: str) -> int:
    return sum(map(ord, "".join(words))) + 9000


def test_odd_files_are_counted_by_kind(poolzoo, clean):
    image = planted.photograph(77)
    place = clean / "train/ant"
    image.convert("CMYK").save(place / "cmyk.jpg")
    rgba = image.convert("RGBA")
    rgba.putalpha(120)
    rgba.save(place / "alpha.png")
    image.rotate(1).save(place / "first.gif", save_all=True, append_images=[image.rotate(2)])
    exif = Image.Exif()
    exif[0x0112] = 6
    planted.photograph(78, (170, 120)).save(place / "turned.jpg", exif=exif)
    image.rotate(20).convert("1").save(place / "bits.png")
    Image.fromarray(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16).save(place / "deep.png")
    image.rotate(30).save(place / "png.png")
    (place / "png.png").rename(place / "liar.jpg")
    image.rotate(40).save(place / "profile.jpg", icc_profile=other_profile())
    broken = (place / "0.jpg").read_bytes()
    (place / "truncated.jpg").write_bytes(broken[: len(broken) // 2])
    _, found = check(poolzoo, clean, "--no-near")
    named = {
        re.sub(r"\W.*", "", image["name"].rpartition("/")[2]): odd["what"]
        for odd in found["splits"]["train"]["odd"]
        for image in odd["first"]
    }
    expected = {
        "cmyk": "CMYK", "alpha": "transparent", "first": "several frames", "turned": "EXIF", "bits": "one bit",
        "deep": "eight bits", "liar": "another format", "profile": "not sRGB",
    }  # fmt: skip
    assert set(named) == set(expected)
    for name, words in expected.items():
        assert words in named[name], name
    (bad,) = found["unreadable"]
    assert bad["image"]["name"] == "train/ant/truncated.jpg"
    assert "truncated" in bad["reason"]
    assert found["splits"]["train"]["sizes"]["largest"] == [170, 120]  # height first, turned


def other_profile() -> bytes:
    from PIL import ImageCms

    return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


def test_a_second_check_opens_what_is_new_alone(poolzoo, clean):
    assert check(poolzoo, clean)[1]["looked"] == 22
    shutil.copy(clean / "train/ant/2.jpg", clean / "test/ant/copy.jpg")
    planted.photograph(123).save(clean / "train/bee/0.jpg")
    code, found = check(poolzoo, clean, "--no-near")
    assert found["looked"] == 2
    assert code == 1
    again = check(poolzoo, clean, "--no-near")[1]
    assert again["looked"] == 0
    assert again | {"looked": 2} == found


def test_what_a_killed_check_left_is_cut_off(poolzoo, clean, monkeypatch, tmp_path):
    monkeypatch.setenv("POOLZOO_CACHE", str(tmp_path / "cache"))
    _, first = check(poolzoo, clean)
    (rows,) = (tmp_path / "cache/checks").iterdir()
    with rows.open("r+b") as file:
        file.truncate(rows.stat().st_size - 5)
    _, found = check(poolzoo, clean)
    assert found["looked"] == 1
    assert found | {"looked": 22} == first


def test_a_cache_that_cannot_be_written_costs_time_alone(poolzoo, clean, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("POOLZOO_CACHE", str(tmp_path / "file"))
    for _ in range(2):
        code, found = check(poolzoo, clean)
        assert (code, found["looked"]) == (0, 22)


def test_a_limit_takes_all_classes_alike(poolzoo, clean):
    _, found = check(poolzoo, clean, "--limit", 4)
    assert found["splits"]["train"]["classes"] == {"ant": 2, "bee": 2}
    assert found["splits"]["test"]["images"] == 4


def test_channel_statistics_are_those_of_the_pixels(poolzoo, clean):
    _, found = check(poolzoo, clean)
    pixels = [np.asarray(Image.open(file), np.float64) / 255 for file in clean.glob("train/*/*.jpg")]
    np.testing.assert_allclose(found["splits"]["train"]["mean"], np.mean(pixels, (0, 1, 2)), atol=2e-3)
    np.testing.assert_allclose(found["splits"]["train"]["std"], np.std(pixels, (0, 1, 2)), atol=1e-2)


@pytest.mark.parametrize("source", ["folder:nowhere", "no-such-data", "folder:"])
def test_a_source_that_is_not_there_is_a_usage_error(poolzoo, source):
    outcome = poolzoo("data", "check", source)
    assert outcome.code == 2
    assert outcome.out == ""
    assert len(outcome.err.splitlines()) == 2


def test_the_page_shows_pictures_and_escapes_names(poolzoo, clean, tmp_path):
    name = "<script>alert(1)</script> & \x1b[31m.jpg"
    shutil.copy(clean / "train/ant/2.jpg", clean / "test/ant" / name.replace("/", "_"))
    (clean / "train/bee/<b>.jpg").write_bytes(b"no image")
    outcome = poolzoo("data", "check", f"folder:{clean}", "--no-near", "--page", tmp_path / "page.html")
    assert outcome.code == 1
    assert "\x1b" not in outcome.out + outcome.err
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert f"<h1>folder:{clean.name}</h1>" in page
    assert page.count('<img src="data:image/jpeg;base64,') == 2
    assert "<script" not in page
    assert "&lt;b&gt;.jpg" in page
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    assert "default-src 'none'" in page


@pytest.mark.parametrize("exists", [True, False])  # it is found out before any data is looked at
def test_a_page_that_cannot_be_written_is_one_line(poolzoo, clean, tmp_path, exists):
    data = clean if exists else tmp_path / "no-data"
    outcome = poolzoo("data", "check", f"folder:{data}", "--page", tmp_path / "nowhere/page.html")
    assert outcome.code == 4
    assert outcome.out == ""
    assert "error: the page" in outcome.err


def test_thousands_of_classes_are_summarized(poolzoo, tmp_path):
    image = Image.new("RGB", (8, 8))
    file = io.BytesIO()
    image.save(file, "BMP")
    for number in range(1500):
        folder = tmp_path / f"train/{number:05}"
        folder.mkdir(parents=True)
        content = bytearray(file.getvalue())
        content[-8:] = number.to_bytes(8, "little")
        (folder / "0.bmp").write_bytes(content)
    outcome = poolzoo("data", "check", f"folder:{tmp_path}", "--page", tmp_path / "page.html")
    assert outcome.code == 0
    assert "1,500 classes of 1; 1,500 classes have fewer than 5 images (00000, 00001" in outcome.out
    assert max(map(len, outcome.out.splitlines())) < 300
    assert (tmp_path / "page.html").stat().st_size < 100_000
    assert json.loads(poolzoo("data", "check", f"folder:{tmp_path}", "--json").out)["looked"] == 0
