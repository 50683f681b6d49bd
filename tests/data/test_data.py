"""Image files, folders and the data sets of plugins to arrays; damaged ones of each are refused in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from poolzoo.common.errors import PluginFailed, UsageError
from poolzoo.data import images, source
from poolzoo.plugin.spec import Dataset

# --- Image files ---------------------------------------------------------------------------------------------------


def stored(tmp_path: Path, image: Image.Image, name: str = "x.png", **rest) -> np.ndarray:
    image.save(tmp_path / name, **rest)
    return images.read(tmp_path / name)


def test_gray_is_repeated_and_alpha_lies_on_white(tmp_path):
    gray = stored(tmp_path, Image.fromarray(np.array([[0, 100], [200, 255]], np.uint8)))
    np.testing.assert_array_equal(gray, np.repeat(np.array([[0, 100], [200, 255]])[..., None], 3, -1))
    clear = stored(tmp_path, Image.new("RGBA", (2, 2), (255, 0, 0, 0)))
    assert (clear == 255).all()
    half = stored(tmp_path, Image.new("RGBA", (2, 2), (0, 0, 0, 128)))
    assert abs(int(half[0, 0, 0]) - 127) <= 1


def test_sixteen_bits_are_scaled_not_cut(tmp_path):
    wide = np.array([[0, 257], [257 * 128, 65535]], np.uint16)
    found = stored(tmp_path, Image.fromarray(wide))
    np.testing.assert_array_equal(found[..., 0], [[0, 1], [128, 255]])


def test_exif_orientation_is_applied(tmp_path):
    pixels = np.zeros((2, 4, 3), np.uint8)
    pixels[:, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 270° to see it upright
    found = stored(tmp_path, Image.fromarray(pixels), "x.png", exif=exif)
    assert found.shape == (4, 2, 3)
    assert (found[0] == 255).all()


@pytest.mark.parametrize("mode", ["P", "CMYK", "LA", "1", "L"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    suffix = "x.tif" if mode == "CMYK" else "x.png"
    found = stored(tmp_path, Image.new("RGB", (3, 2), (255, 255, 255)).convert(mode), suffix)
    assert found.shape == (2, 3, 3)
    assert found.min() >= 250


def test_fitting_crops_the_centre_and_leaves_the_right_size_alone():
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 200
    np.testing.assert_array_equal(np.asarray(images.fit(Image.fromarray(wide), (10, 10))), wide[:, 10:20])
    same = Image.fromarray(wide)
    assert images.fit(same, (10, 30)) is same


# --- Folders -------------------------------------------------------------------------------------------------------


def test_a_folder_becomes_arrays_with_its_classes_in_order(photos):
    dataset = source.open_dataset(f"folder:{photos}")
    pixels, labels = source.load_split(dataset, "train")
    assert dataset.classes == ("blue", "red")
    assert pixels.shape == (24, 16, 16, 3)
    np.testing.assert_array_equal(labels, [0] * 12 + [1] * 12)
    np.testing.assert_array_equal(pixels[0], np.asarray(Image.open(photos / "train/blue/0.png")))
    assert pixels[labels == 0, :, :, 2].mean() > pixels[labels == 1, :, :, 2].mean()


def test_val_replaces_test_and_hidden_or_loose_files_are_ignored(photos):
    (photos / "test").rename(photos / "val")
    (photos / "train" / "notes.txt").write_text("x")
    (photos / "train" / ".hidden").mkdir()
    (photos / "train" / "red" / ".DS_Store").write_text("x")
    (photos / "train" / "red" / "notes.txt").write_text("x")
    dataset = source.open_dataset(f"folder:{photos}")
    assert len(source.load_split(dataset, "train")[0]) == 24
    assert len(source.load_split(dataset, "test")[0]) == 8


def test_images_of_mixed_sizes_are_brought_to_one(photos):
    Image.new("RGB", (40, 20), (0, 0, 255)).save(photos / "train/blue/wide.png")
    assert source.load_split(source.open_dataset(f"folder:{photos}"), "train")[0].shape == (25, 128, 128, 3)
    dataset = source.open_dataset(f"folder:{photos}", (24, 24))
    assert source.load_split(dataset, "train")[0].shape == (25, 24, 24, 3)
    assert source.load_split(dataset, "test")[0].shape == (8, 24, 24, 3)


def spoil_missing(photos):
    return photos / "nowhere"


def spoil_no_train(photos):
    (photos / "train").rename(photos / "other")


def spoil_empty_train(photos):
    (photos / "train").rename(photos / "other")
    (photos / "train").mkdir()


def spoil_empty_class(photos):
    (photos / "train" / "green").mkdir()
    (photos / "test" / "green").mkdir()


def spoil_other_classes(photos):
    (photos / "test" / "red").rename(photos / "test" / "crimson")


def spoil_truncated(photos):
    whole = (photos / "train/red/3.png").read_bytes()
    (photos / "train/red/3.png").write_bytes(whole[: len(whole) // 2])


def spoil_no_image(photos):
    (photos / "train/red/3.jpg").write_text("this is no image")


def spoil_no_test(photos):
    (photos / "test").rename(photos / "other")


@pytest.mark.parametrize(
    ("spoil", "code", "says"),
    [
        (spoil_missing, 2, "nowhere"),
        (spoil_no_train, 2, "train/"),
        (spoil_no_test, 2, "test/"),
        (spoil_empty_train, 2, "no class folder"),
        (spoil_empty_class, 2, "green"),
        (spoil_other_classes, 2, "crimson"),
        (spoil_truncated, 1, "3.png"),
        (spoil_no_image, 1, "3.jpg"),
    ],
)
def test_a_bad_folder_is_one_line_and_leaves_nothing_behind(photos, poolzoo, tmp_path, spoil, code, says):
    place = spoil(photos) or photos
    out = tmp_path / "run"
    outcome = poolzoo("finetune", "--data", f"folder:{place}", "--backbone", "nano/plain", "--out", out, "-q")
    assert outcome.code == code
    lines = outcome.err.splitlines()
    assert len(lines) == 2
    assert says in lines[0]
    assert not out.exists()


# --- Data sets of plugins -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pixels", "labels"),
    [
        (np.zeros((4, 8, 8, 3), np.float32), np.zeros(4, np.int64)),
        (np.zeros((4, 3, 8, 8), np.uint8), np.zeros(4, np.int64)),
        (np.zeros((4, 8, 8, 3), np.uint8), np.zeros(3, np.int64)),
        (np.zeros((4, 8, 8, 3), np.uint8), np.full(4, 7)),
        (np.zeros((0, 8, 8, 3), np.uint8), np.zeros(0, np.int64)),
    ],
)
def test_a_data_set_that_breaks_its_contract_is_named(pixels, labels):
    dataset = Dataset(name="odd", summary="", load=lambda split, cache_dir: (pixels, labels), classes=("a", "b"))
    with pytest.raises(PluginFailed, match="odd"):
        source.load_split(dataset, "train")


@pytest.mark.parametrize(
    ("names", "labels", "says"),
    [
        (("a", "a"), [0, 1], "two classes called 'a'"),
        (("a", 2), [0, 1], "a class called 2"),
        (("a", ""), [0, 1], "a class called ''"),
        (None, [0, 10**12], "labels count from 0"),
    ],
)
def test_classes_that_cannot_be_told_apart_are_refused(names, labels, says):
    images = np.zeros((2, 8, 8, 3), np.uint8)
    dataset = Dataset(name="odd", summary="", load=lambda *_: (images, np.array(labels)), classes=names)
    with pytest.raises(PluginFailed, match=says):
        source.load_split(dataset, "train")


@pytest.mark.parametrize("thrown", [SystemExit(0), GeneratorExit("odd"), RuntimeError("odd")])
def test_whatever_a_data_set_throws_is_its_plugins_failure(thrown):
    def load(split, cache_dir):
        raise thrown

    with pytest.raises(PluginFailed, match=f"data set odd failed: {type(thrown).__name__}"):
        source.load_split(Dataset(name="odd", summary="", load=load), "train")


def test_folder_needs_the_splits_that_are_asked_for_only(photos):
    (photos / "train").rename(photos / "other")
    assert source.open_dataset(f"folder:{photos}", splits=("test",)).classes == ("blue", "red")
    with pytest.raises(UsageError):
        source.open_dataset(f"folder:{photos}")
