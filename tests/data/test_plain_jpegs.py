"""Plain JPEGs, which simplejpeg decodes, have the pixels that Pillow gives them, and Pillow reads all others."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
from PIL import Image, ImageOps

from poolzoo.data import images
from poolzoo.data.jpeg import plain_jpeg

simplejpeg = pytest.importorskip("simplejpeg")


def photo(height: int, width: int, mode: str = "RGB") -> Image.Image:
    """Noise that is smooth at the scale of a few pixels."""
    noise = np.random.default_rng(height).integers(0, 256, (height // 4 + 2, width // 4 + 2, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def encoded(image: Image.Image, **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, "JPEG", **options)
    return content.getvalue()


def is_plain(content: bytes) -> bool:
    return plain_jpeg(io.BytesIO(content)) is not None


ENCODINGS = [
    {"quality": quality, "subsampling": subsampling, "progressive": progressive}
    for quality, subsampling, progressive in itertools.product((30, 95), (0, 1, 2), (False, True))
]


@pytest.mark.parametrize("options", ENCODINGS, ids=str)
def test_pixels_are_those_of_pillow(options):
    for height, width in ((1, 1), (8, 1), (33, 47), (375, 251)):
        content = encoded(photo(height, width), **options)
        assert is_plain(content)
        np.testing.assert_array_equal(images.read(io.BytesIO(content)), np.asarray(Image.open(io.BytesIO(content))))


@pytest.mark.parametrize("part", [2, 4, 8])
def test_scaled_pixels_are_those_of_pillow(part):
    for height, width in ((64, 64), (65, 71), (375, 251), (601, 333)):
        content = encoded(photo(height, width))
        with Image.open(io.BytesIO(content)) as image:
            image.draft(None, (width // part, height // part))
            expected = np.asarray(image)
        found = plain_jpeg(io.BytesIO(content)).decode(part)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_four_color_files_become_rgb_as_in_pillow(mode):
    content = encoded(photo(40, 60, mode))
    assert is_plain(content) == (mode == "L")
    expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    np.testing.assert_array_equal(images.read(io.BytesIO(content)), expected)


@pytest.mark.parametrize("keep_rgb", [False, True])
def test_files_that_store_rgb_keep_their_colors(keep_rgb):
    content = encoded(photo(40, 60), keep_rgb=keep_rgb)
    np.testing.assert_array_equal(images.read(io.BytesIO(content)), np.asarray(Image.open(io.BytesIO(content))))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_orientation_in_the_metadata_turns_the_image(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(photo(40, 60), exif=exif)
    assert is_plain(content) == (orientation == 1)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))))
    found, size = images.read_with_size(io.BytesIO(content))
    np.testing.assert_array_equal(found, expected)
    assert size == expected.shape[:2]


def test_an_orientation_in_xmp_turns_the_image():
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    content = encoded(photo(40, 60), xmp=xmp)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))))
    found = images.read(io.BytesIO(content))
    assert found.shape == (60, 40, 3)
    np.testing.assert_array_equal(found, expected)


def test_a_truncated_file_is_refused_as_by_pillow():
    content = encoded(photo(200, 200))
    with pytest.raises(OSError, match="truncated"):
        images.read(io.BytesIO(content[: len(content) // 2]))
    with pytest.raises(OSError, match="truncated"):
        images.read(io.BytesIO(content[: len(content) // 2]), (20, 20))


def test_stray_bytes_that_pillow_overlooks_are_overlooked():
    """simplejpeg refuses them; what Pillow reads in spite of a warning stays readable."""
    content = encoded(photo(40, 60))
    start = content.index(b"\xff\xdb")  # the quantization tables
    stray = content[:start] + b"\x00\x00" + content[start:]
    with pytest.raises(ValueError, match="extraneous"):
        simplejpeg.decode_jpeg(stray)
    np.testing.assert_array_equal(images.read(io.BytesIO(stray)), np.asarray(Image.open(io.BytesIO(stray))))


def test_too_many_pixels_are_refused_as_by_pillow(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(Image.DecompressionBombError):
        images.read(io.BytesIO(encoded(photo(60, 60))))


def test_orientation_behind_another_segment_turns_the_image():
    """The segment holds the bytes of the marker that pixels follow."""
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(photo(40, 60), exif=exif)
    content = content[:2] + b"\xff\xed\x00\x06\xff\xda\xff\xda" + content[2:]
    assert not is_plain(content)
    assert images.read(io.BytesIO(content)).shape == (60, 40, 3)


def test_metadata_behind_the_pixels_means_nothing():
    content = encoded(photo(40, 60))
    assert is_plain(content + b"\xff\xe1\x00\x08Exif\x00\x00")
