"""Levels of augmentation: what --augment and its parts become, and how training sees the images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from poolzoo.artifacts import run as runs
from poolzoo.common.errors import UsageError
from poolzoo.data.augment.augmentation import Augmentation
from poolzoo.data.augment.options import Policy
from poolzoo.train import batch_picture
from poolzoo.train.prepare import prepare
from poolzoo.train.run import finetune
from poolzoo.train.settings import Settings
from poolzoo.train.settings_file import read_run_settings
from poolzoo.train.splits import read_data

SMALL = Settings(data="digits", backbone="nano/plain", limit=60, epochs=1, device="cpu")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A folder of images with odd sides, in two classes of one brightness each."""
    folder, generator = tmp_path_factory.mktemp("photographs"), np.random.default_rng(1)
    for split, count in (("train", 8), ("test", 4)):
        for name, level in (("ant", 60), ("bee", 180)):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                height, width = (int(side) | 1 for side in generator.integers((61, 75), (150, 190)))
                blocks = np.kron(generator.normal(size=(height // 8 + 1, width // 8 + 1, 3)), np.ones((8, 8, 1)))
                pixels = np.clip(level + 60 * blocks[:height, :width], 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{number}.png")
    return folder


def large(photographs: Path, **changes: object) -> Settings:
    return replace(SMALL, data=f"folder:{photographs}", limit=None, image_size="41x53", **changes)


def test_small_images_keep_shifts_and_flips():
    assert prepare(SMALL).augmentation == Augmentation(shift=1)  # a mirrored digit is another one
    assert prepare(replace(SMALL, augment="strong")).augmentation == Augmentation(
        shift=1, policy=Policy("trivial"), erasing=0.25
    )


def test_photographs_get_random_crops(photographs):
    prepared = prepare(large(photographs))
    standard = Augmentation(flip="alternating", crop_scale=(0.08, 1.0), color_jitter=0.4)
    assert prepared.augmentation == standard
    assert prepared.settings.augment == "standard"
    assert prepare(large(photographs, augment="light")).augmentation == Augmentation(flip="alternating", shift=2)


def test_every_part_overrules_the_level(photographs):
    given = large(photographs, augment="strong", policy="rand:3,5", erasing=0.0, color_jitter=0.1, crop_scale="0.5,0.9")
    assert prepare(replace(given, flip="off")).augmentation == Augmentation(
        crop_scale=(0.5, 0.9), policy=Policy("rand", 3, 5), color_jitter=0.1
    )
    shifted = prepare(large(photographs, shift=3)).augmentation
    assert (shifted.shift, shifted.crop_scale) == (3, None)
    uncropped = prepare(large(photographs, crop_scale="none")).augmentation
    assert (uncropped.shift, uncropped.crop_scale) == (2, None)


def test_no_augmentation_still_evaluates_mirror_images(photographs):
    prepared = prepare(large(photographs, augment="none"))
    assert prepared.augmentation == Augmentation()
    assert prepared.data.flip
    assert prepare(prepared.settings).data.flip  # also when it is resumed
    assert not prepare(large(photographs, augment="none", flip="off")).data.flip


def test_complete_settings_mean_the_same_again(photographs):
    for settings in (SMALL, large(photographs), large(photographs, augment="strong", policy="none")):
        once = prepare(settings)
        again = prepare(once.settings)
        assert (again.settings, again.augmentation) == (once.settings, once.augmentation)


def test_a_run_of_an_earlier_version_keeps_its_augmentation(photographs, tmp_path):
    lines = large(photographs, shift=2, flip="random").to_toml().splitlines()
    new = ("#", "augment", "crop_scale", "policy", "color_jitter", "erasing", "data_cache")
    (tmp_path / "run.toml").write_text("\n".join(line for line in lines if not line.startswith(new)))
    assert prepare(read_run_settings(tmp_path)).augmentation == Augmentation(shift=2, flip="random")


@pytest.mark.parametrize(
    ("name", "value"), [("crop_scale", "0.5"), ("policy", "rand:0,9"), ("erasing", 1.5), ("augment", "heavy")]
)
def test_values_that_mean_nothing_are_refused(name, value):
    with pytest.raises(UsageError, match=name.replace("_", "-")):
        replace(SMALL, **{name: value})


def test_a_picture_shows_the_first_batch(poolzoo, tmp_path):
    """Its tiles are the images of the set where nothing is changed."""
    path = tmp_path / "batch.png"
    arguments = ["finetune", "--data", "digits", "--image-size", "8", "--backbone", "nano/plain", "--limit", "90"]
    arguments += ["--augment", "none"]
    assert poolzoo(*arguments, "--device", "cpu", "--show-batch", path).code == 0
    sheet = np.asarray(Image.open(path))
    data = prepare(replace(SMALL, limit=90, augment="none")).data
    height, width = data.size
    gap = batch_picture.GAP
    assert sheet.shape == (8 * (height + gap) - gap, 8 * (width + gap) - gap, 3)
    known = {image.tobytes() for image in data.images[data.train_indices]}
    tiles = [
        sheet[y : y + height, x : x + width].tobytes()
        for y in range(0, sheet.shape[0], height + gap)
        for x in range(0, sheet.shape[1], width + gap)
    ]
    assert len(tiles) == len(set(tiles)) == batch_picture.SHOWN
    assert set(tiles) <= known
    assert poolzoo(*arguments, "--show-batch", path).code == 2  # it exists


def center(path: Path, part: float) -> np.ndarray:
    """A part of the shorter side, at 41×53, by Pillow alone."""
    image = Image.open(path)
    scale = part * min(image.height / 41, image.width / 53)
    left, top = (image.width - 53 * scale) / 2, (image.height - 41 * scale) / 2
    box = (left, top, left + 53 * scale, top + 41 * scale)
    return np.asarray(image.resize((53, 41), Image.Resampling.BILINEAR, box))


@pytest.mark.parametrize("cache", ["decoded", "reduced", "none"])
def test_training_evaluates_the_center_of_odd_images(photographs, cache):
    settings = large(photographs, crop_pct=0.8, data_cache=cache)
    found = read_data(settings).test.images
    files = sorted((photographs / "test").glob("*/*.png"))
    for image, path in zip(found[np.arange(len(files))], files, strict=True):
        assert np.abs(image.astype(int) - center(path, 0.8)).max() <= 1
        assert np.abs(image.astype(int) - center(path, 1.0)).max() > 9


@pytest.mark.slow
def test_bundles_see_the_center_that_training_evaluates(poolzoo, photographs, tmp_path):
    """The probabilities of `predict` are those of the trained network for Pillow's pixels, with either input."""
    import torch

    path = tmp_path / "run"
    finetune(large(photographs, crop_pct=0.8), path)
    trained = runs.load_run(path)
    files = sorted((photographs / "test").glob("*/*.png"))
    pixels = torch.from_numpy(np.stack([center(file, 0.8) for file in files]))
    with torch.inference_mode():
        logits = trained.network.eval()(trained.preprocess(pixels))
        temperature = trained.config.get("calibration", {"temperature": 1.0})["temperature"]
        expected = (logits / temperature).softmax(1).numpy()
    for kind in ("uint8", "photo"):
        bundle = tmp_path / kind
        assert poolzoo("export", path, "--input", kind, "--no-bench", "--out", bundle).code == 0
        rows = poolzoo("predict", bundle, photographs / "test", "--json").json
        for row, file, one in zip(rows, files, expected, strict=True):
            assert Path(row["file"]).name == file.name
            found = {each["label"]: each["score"] for each in row["top"]}
            assert [found["ant"], found["bee"]] == pytest.approx(one.tolist(), abs=2e-3)
