"""Large JPEGs are decoded at a part of their size: nearly the same pixels, the same everywhere, in less time."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from poolzoo.data import images, source
from poolzoo.data.resize import Fit, recorded

OLD = Fit(reader=1)


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    """Smooth noise, which has detail at every size and no symmetry."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (15, 20, 3), dtype=np.uint8))
    return noise.resize((803, 601), Image.Resampling.BICUBIC)


def jpeg(image: Image.Image, orientation: int = 1, **rest: object) -> bytes:
    exif, content = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    image.save(content, "JPEG", quality=92, exif=exif, **rest)
    return content.getvalue()


KINDS = list(itertools.product(("RGB", "L", "CMYK"), (1, 3, 6, 7, 8), (False, True)))


@pytest.mark.parametrize(("mode", "orientation", "progressive"), KINDS)
def test_it_differs_little_from_the_whole_image_resized(photo, mode, orientation, progressive):
    raw = jpeg(photo.convert(mode), orientation, progressive=progressive)
    for size, how in (((48, 48), ("bilinear", 1.0)), ((40, 64), ("bicubic", 0.875))):
        with Image.open(io.BytesIO(raw)) as image:  # the oracle: everything decoded, turned, fitted by Pillow
            whole = ImageOps.exif_transpose(image).convert("RGB")
        method = Image.Resampling[how[0].upper()]
        expected = np.asarray(ImageOps.fit(whole, size[::-1], method, bleed=(1 - how[1]) / 2)).astype(int)
        found = images.read(io.BytesIO(raw), size, Fit(*how)).astype(int)
        assert found.shape == expected.shape
        assert np.abs(found - expected).mean() < 0.4
        assert np.abs(found - expected).max() <= 4
        assert (found != expected).any(), "it was decoded whole"


def test_decoding_keeps_at_least_twice_the_wanted_size(photo, monkeypatch):
    seen = []
    draft = Image.Image.draft
    from PIL.JpegImagePlugin import JpegImageFile

    real = JpegImageFile.draft

    def noted(self, mode, size):
        found = real(self, mode, size)
        seen.append(self.size)
        return found

    monkeypatch.setattr(JpegImageFile, "draft", noted)
    raw = jpeg(photo, orientation=6)  # Pillow turns it, and shows at which size it is decoded
    for side in (30, 75, 150, 151, 400):
        images.read(io.BytesIO(raw), (side, side))
    assert draft is Image.Image.draft
    assert seen == [(101, 76), (201, 151), (402, 301)]


def test_no_size_leads_outside_of_the_image():
    """The corners of the box are fractions, which may be rounded up."""
    random = np.random.default_rng(0)
    for height, width in random.integers(200, 700, (40, 2)):
        raw = jpeg(Image.new("L", (int(width), int(height)), 77), int(random.integers(1, 9)))
        size = tuple(int(side) for side in random.integers(7, 50, 2))
        assert (images.read(io.BytesIO(raw), size) == 77).all()


def test_small_images_and_other_formats_are_bitwise_unchanged(photo):
    png = io.BytesIO()
    photo.save(png, "PNG")
    small = jpeg(photo.resize((32, 32)))
    for raw, size in ((png.getvalue(), (48, 48)), (small, (32, 32)), (small, (20, 20)), (jpeg(photo), (301, 301))):
        np.testing.assert_array_equal(images.read(io.BytesIO(raw), size), images.read(io.BytesIO(raw), size, OLD))


def test_what_was_trained_on_whole_images_is_read_whole(photo):
    assert recorded({}).reader == 1
    assert recorded({"interpolation": "bicubic", "crop_pct": 0.9, "reader": 2}) == Fit("bicubic", 0.9, 2)
    raw = jpeg(photo)
    expected = ImageOps.fit(Image.open(io.BytesIO(raw)), (48, 48), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(images.read(io.BytesIO(raw), (48, 48), OLD), np.asarray(expected))


@pytest.fixture
def large(tmp_path: Path, photo: Image.Image) -> Path:
    for index, (split, name) in enumerate(itertools.product(("train", "test"), ("one", "two"))):
        for number in range(3):
            place = tmp_path / "large" / split / name / f"{number}.jpg"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(jpeg(photo.rotate(30 * index + 7 * number)))
    return tmp_path / "large"


def test_training_evaluation_and_both_predictions_see_the_same_pixels(large, tmp_path, monkeypatch):
    """The stand-alone script is run with a network that only notes what it is given."""
    import runpy
    import sys
    import types

    from poolzoo.export import script

    size = (48, 64)
    files = sorted((large / "test").glob("*/*"))
    trained = source.load_split(source.open_dataset(f"folder:{large}", size), "test")[0]
    evaluated = source.load_split(source.open_dataset(f"folder:{large}", size, ("test",), exact=True), "test", size)[0]
    predicted = np.stack([images.read(file, size, recorded({"reader": 2})) for file in files])
    (tmp_path / "predict.py").write_text(script.render())
    monkeypatch.setitem(sys.modules, "onnxruntime", types.SimpleNamespace())
    alone = runpy.run_path(str(tmp_path / "predict.py"))
    by_script = np.stack([alone["read"](file, size, alone["recorded"]({"reader": 2})) for file in files])
    for found in (evaluated, predicted, by_script):
        np.testing.assert_array_equal(found, trained)
    old = np.stack([images.read(file, size, OLD) for file in files])
    np.testing.assert_array_equal(np.stack([alone["read"](file, size, alone["recorded"]({})) for file in files]), old)
    assert (old != trained).any()


def test_the_cache_separates_images_by_decoding_rules(large):
    from poolzoo.data import store

    index = source.indexed(source.open_dataset(f"folder:{large}"), "train")
    keys = {store.Images(index, "train", (48, 48), how).key for how in (OLD, images.PLAIN)}
    assert len(keys) == 2
