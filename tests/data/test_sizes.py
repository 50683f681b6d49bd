"""Sizes: height × width everywhere, `--image-size HxW`, and no image that is stretched or cut without a word."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import poolzoo as package
from poolzoo.common.errors import UsageError
from poolzoo.data import reader, sizes, source
from poolzoo.train.prepare import prepare
from poolzoo.train.settings import Settings
from poolzoo.train.settings_file import read_toml


@pytest.fixture
def bars(tmp_path: Path) -> Path:
    """Images of 32×104 whose class is where a white bar of 4 columns stands."""
    for split, count in (("train", 4), ("test", 2)):
        for name, column in (("left", 4), ("middle", 50), ("right", 96)):
            for index in range(count):
                pixels = np.full((32, 104, 3), 20 + index, np.uint8)
                pixels[:, column : column + 4] = 255
                place = tmp_path / "bars" / split / name
                place.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(place / f"{index}.png")
    return tmp_path / "bars"


def read(bars: Path, size: tuple[int, int] | None, **rest: object) -> np.ndarray:
    return source.load_split(source.open_dataset(f"folder:{bars}", size, **rest), "train")[0]


@pytest.mark.parametrize("given", ["64x208", "64X208", " 64 × 208 ", (64, 208), [64, 208]])
def test_a_size_is_read_in_every_form(given):
    assert sizes.parse(given) == (64, 208)
    assert Settings(image_size=given).image_size == "64x208"
    assert sizes.show((64, 208)) == "64×208"


def test_a_square_stays_the_number_that_older_settings_hold():
    assert Settings(image_size="64").image_size == Settings(image_size="64x64").image_size == 64
    assert Settings(image_size=64).input_size == (64, 64)


@pytest.mark.parametrize("given", ["0", "64x0", "x", "64x", "1x2x3", "-5", "6.5", ""])
def test_what_is_no_size_is_a_usage_error(given):
    with pytest.raises(UsageError, match="--image-size"):
        Settings(image_size=given)


def test_settings_come_back_from_their_file(tmp_path):
    for size in (64, "64x208"):
        (tmp_path / "run.toml").write_text(Settings(image_size=size).to_toml())
        assert Settings(**read_toml(tmp_path / "run.toml")).image_size == size


@pytest.mark.parametrize(
    ("wanted", "kept"),
    [
        ((16, 16), (16, 16)),  # smaller: resized and cropped
        ((33, 33), (32, 32)),  # between the sides, above both: the center is kept, the network enlarges it
        ((100, 100), (32, 32)),
        ((120, 120), (32, 32)),
        ((16, 52), (16, 52)),
        ((64, 208), (32, 104)),
    ],
)
def test_one_rule_for_all_sizes(bars, wanted, kept):
    pixels = read(bars, wanted)
    assert pixels.shape[1:3] == kept
    whole = kept[1] / kept[0] > 2
    bright = (pixels[..., 0] > 128).any((1, 2))
    assert bright.tolist() == [whole] * 4 + [True] * 4 + [whole] * 4  # a bar at the side is cut off, or kept
    middle = pixels[4, kept[0] // 2, :, 0] > 128
    assert middle.sum() * 32 == pytest.approx(4 * kept[0], abs=48)  # as wide as it was: nothing is stretched


def test_what_is_cut_is_said_with_the_way_out(bars, capsys):
    read(bars, (16, 16))
    assert capsys.readouterr().err == (
        "images of 32×104 are resized and center-cropped to 16×16: 69 % of the width is cut off; "
        "--image-size 16x52 keeps all\n"
    )
    read(bars, (120, 120))
    assert "120×120: 69 % of the width is cut off; --image-size 120x390 keeps all" in capsys.readouterr().err
    for size in (None, (64, 208)):
        read(bars, size)
        assert capsys.readouterr().err == ""


def test_a_transposed_photograph_is_judged_as_it_is_seen(bars, capsys):
    exif = Image.Exif()
    exif[0x0112] = 6
    for file in bars.glob("*/*/*.png"):
        with Image.open(file) as image:
            image.rotate(90, expand=True).save(file, exif=exif)
    assert read(bars, (16, 16)).shape[1:3] == (16, 16)
    assert "images of 32×104 are" in capsys.readouterr().err


def test_images_of_mixed_sizes_tell_how_much_is_cut(bars, capsys):
    Image.new("RGB", (20, 40)).save(bars / "train/left/tall.png")
    assert read(bars, None).shape[1:3] == reader.DEFAULT_SIZE
    line = capsys.readouterr().err
    assert "mixed sizes (32×104, 40×20, …)" in line
    assert "up to 69 % of a side is cut off; --image-size HxW overrules" in line


def test_a_split_of_other_sizes_is_told_of(bars, capsys):
    for file in bars.glob("test/*/*.png"):
        Image.new("RGB", (50, 50)).save(file)
    dataset = source.open_dataset(f"folder:{bars}")
    shapes = [source.load_split(dataset, split)[0].shape[1:3] for split in ("train", "test")]
    assert shapes == [(32, 104), (32, 104)]
    assert capsys.readouterr().err == (
        "test images of 50×50 are resized and center-cropped to 32×104, as the others are\n"
    )


def test_arrays_are_not_stretched_either(capsys):
    """Data sets that are no folders come as arrays, which the network resizes."""
    wide = prepare(Settings(data="digits", backbone="nano/plain", image_size="8x16", threads=1))
    assert wide.data.size == (4, 8)
    assert "50 % of the height is cut off; --image-size 16 keeps all" in capsys.readouterr().err
    assert prepare(Settings(data="digits", backbone="nano/plain", image_size=16, threads=1)).data.size == (8, 8)


def test_a_rectangle_goes_from_training_to_what_is_exported(poolzoo, bars, tmp_path):
    from poolzoo.artifacts.run import load_run
    from poolzoo.export.source import from_run

    run = tmp_path / "run"
    options = ("--backbone", "nano/plain", "--epochs", 1, "--image-size", "16x52", "--threads", 1)
    assert poolzoo("finetune", "--data", f"folder:{bars}", *options, "--out", run).code == 0
    assert 'image_size = "16x52"' in (run / "run.toml").read_text()
    card = (run / "README.md").read_text()
    assert "Images of 16×52 pixels (height × width) enter the network at\n16×52" in card
    assert poolzoo("evaluate", run, "--json").json["n"] == 6
    source = from_run(load_run(run))
    assert source.size == (16, 52)
    assert source.fit.reader == 2


@pytest.mark.slow
def test_a_rectangle_is_predicted_as_it_was_evaluated(poolzoo, bars, tmp_path):
    run, bundle = tmp_path / "run", tmp_path / "bundle"
    options = ("--backbone", "nano/plain", "--epochs", 8, "--image-size", "16x52", "--shift", 0, "--flip", "off")
    assert poolzoo("finetune", "--data", f"folder:{bars}", *options, "--out", run).code == 0
    assert poolzoo("export", run, "--out", bundle, "--no-bench").code == 0
    rows = poolzoo("predict", bundle, bars / "test", "--json").json
    figures = poolzoo("evaluate", bundle, "--onnx", "--data", f"folder:{bars}", "--json").json
    right = np.mean([row["label"] == Path(row["file"]).parent.name for row in rows])
    assert figures["accuracy"] == pytest.approx(right)


def test_a_network_from_python_takes_a_rectangle():
    import torch

    for size in ("16x52", (16, 52)):
        network = package.create_model("nano/plain", image_size=size, num_classes=3)
        assert network(torch.zeros(2, 3, 16, 52)).shape == (2, 3)
    with pytest.raises(UsageError, match="image_size"):
        package.create_model("nano/plain", image_size="0x3")
