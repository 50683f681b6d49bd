"""Images of more than eight bits: the scale of every type, worked out by hand, and a word where values do not fit."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.odd_images import png

from poolzoo.common import output
from poolzoo.data import images, modes, source
from poolzoo.data.resize import Fit

BLACK, WHITE = 0, 255


def tiff(path: Path, pixels: np.ndarray, *, bits: int, kind: int, photometric: int = 1, order: str = "<") -> Path:
    """A TIFF file with one uncompressed strip, by its specification: `kind` is its SampleFormat."""
    raw = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    samples = 1 if pixels.ndim == 2 else pixels.shape[2]
    tags = [
        *((256, 3, pixels.shape[1]), (257, 3, pixels.shape[0]), (258, 3, bits), (259, 3, 1), (262, 3, photometric)),
        *((273, 4, 8), (277, 3, samples), (278, 3, pixels.shape[0]), (279, 4, len(raw)), (339, 3, kind)),
    ]
    entries = b"".join(
        struct.pack(f"{order}HHI", tag, form, 1) + struct.pack(f"{order}H2x" if form == 3 else f"{order}I", value)
        for tag, form, value in tags
    )
    mark = b"II" if order == "<" else b"MM"
    head = mark + struct.pack(f"{order}HI", 42, 8 + len(raw))
    path.write_bytes(head + raw + struct.pack(f"{order}H", len(tags)) + entries + bytes(4))
    return path


def gray(path: Path, how: Fit = images.PLAIN) -> list[int]:
    found = images.read(path, None, how)
    assert (found[..., 0] == found[..., 1]).all()
    return found[0, :, 0].tolist()


def row(*values: float, dtype: type) -> np.ndarray:
    return np.array([values], dtype)


INTEGERS = {
    "uint16": (row(0, 257, 32896, 65535, dtype=np.uint16), 16, 1, [0, 1, 128, 255]),
    "int16": (row(-32768, -1, 0, 16384, 32767, dtype=np.int16), 16, 2, [0, 0, 0, 128, 255]),
    "uint32": (row(0, 2**31, 2**32 - 1, dtype=np.uint32), 32, 1, [0, 128, 255]),
    "int32": (row(-(2**31), 0, 2**30, 2**31 - 1, dtype=np.int32), 32, 2, [0, 0, 128, 255]),
    "int8": (row(-128, -1, 0, 64, 127, dtype=np.int8), 8, 2, [0, 0, 0, 129, 255]),
}


@pytest.mark.parametrize(("pixels", "bits", "kind", "expected"), INTEGERS.values(), ids=INTEGERS)
def test_integers_are_scaled_by_their_type(tmp_path, pixels, bits, kind, expected):
    assert gray(tiff(tmp_path / "x.tif", pixels, bits=bits, kind=kind)) == expected
    if (bits, kind) in ((16, 1), (16, 2), (32, 2)):  # of the others Pillow reads no big-endian files
        assert gray(tiff(tmp_path / "big.tif", pixels, bits=bits, kind=kind, order=">")) == expected


def test_twelve_bits_that_the_file_states_are_twelve_bits(tmp_path):
    packed = bytes([0x00, 0x08, 0x00, 0xFF, 0xF0, 0x00])  # 0, 2048, 4095, 0 in twelve bits each
    path = tiff(tmp_path / "x.tif", np.frombuffer(packed, np.uint8)[None], bits=12, kind=1)
    raw = path.read_bytes()
    path.write_bytes(raw.replace(struct.pack("<HHIH", 256, 3, 1, 6), struct.pack("<HHIH", 256, 3, 1, 4)))
    assert gray(path) == [0, 128, 255, 0]


def test_white_may_be_zero(tmp_path):
    pixels = row(0, 32896, 65535, dtype=np.uint16)
    assert gray(tiff(tmp_path / "x.tif", pixels, bits=16, kind=1, photometric=0)) == [255, 127, 0]
    pixels = row(0, 0.2, 1, dtype=np.float32)
    assert gray(tiff(tmp_path / "y.tif", pixels, bits=32, kind=3, photometric=0)) == [255, 204, 0]


def test_floats_go_to_one_or_to_255(tmp_path):
    for values, expected in (
        ((0, 0.2, 1), [0, 51, 255]),
        ((-1, 0, 1), [0, 0, 255]),
        ((0, 51, 255), [0, 51, 255]),
        ((0, np.nan, 1), [0, 0, 255]),
        ((0, np.inf, 0.2, -np.inf), [0, 255, 51, 0]),
    ):
        assert gray(tiff(tmp_path / "x.tif", row(*values, dtype=np.float32), bits=32, kind=3)) == expected


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_without_a_finite_pixel_an_image_cannot_be_read(tmp_path, value):
    path = tiff(tmp_path / "x.tif", np.full((2, 3), value, np.float32), bits=32, kind=3)
    with pytest.raises(images.Unreadable, match="no pixel is a finite number"):
        images.read(path)


def test_what_was_trained_before_reads_as_it_did(tmp_path):
    old = Fit(reader=1)
    pixels = row(-5, 0, 257, 65535, 10**6, dtype=np.int32)
    assert gray(tiff(tmp_path / "x.tif", pixels, bits=32, kind=2), old) == [0, 0, 1, 255, 255]
    pixels = row(0, 0.2, 1, dtype=np.float32)
    assert gray(tiff(tmp_path / "y.tif", pixels, bits=32, kind=3), old) == [0, 51, 255]


def test_lab_is_a_color_and_its_a_is_no_alpha(tmp_path):
    lab = Image.merge("LAB", [Image.new("L", (2, 2), value) for value in (137, 0, 0)])  # L 53.7, and a = b = 0 …
    lab.putdata([(137, 208, 195)] * 4)  # … and pure red: a = 80, b = 67
    lab.save(tmp_path / "x.tif")
    with Image.open(tmp_path / "x.tif") as stored:
        assert stored.mode == "LAB"
    red = images.read(tmp_path / "x.tif")[0, 0]
    assert red[0] > 245
    assert red[1:].max() < 30


# --- What does not fit -----------------------------------------------------------------------------------------------


def notes(path: Path, size: tuple[int, int] | None = None) -> list[str]:
    found: list[str] = []
    images.read(path, size, images.PLAIN, lambda kind, values: found.append(kind))
    return found


def test_values_that_do_not_fit_the_scale_are_noted(tmp_path):
    wide = np.arange(64).reshape(8, 8)
    cases = {
        "float to 64764": (tiff, (wide * 1028).astype(np.float32), 32, 3, [modes.OUTSIDE]),
        "-1 to 1": (tiff, (wide / 32 - 1).astype(np.float32), 32, 3, [modes.OUTSIDE]),
        "float to 20": (tiff, (wide / 3).astype(np.float32), 32, 3, [modes.NARROW]),
        "12 bits in 16": (tiff, (wide * 65).astype(np.uint16), 16, 1, [modes.NARROW]),
        "16 bits in 32": (tiff, (wide * 1000).astype(np.int32), 32, 2, [modes.NARROW]),
        "negative": (tiff, (wide - 100).astype(np.int16), 16, 2, [modes.OUTSIDE]),
        "all of 16 bits": (tiff, (wide * 1040).astype(np.uint16), 16, 1, []),
        "0 to 1": (tiff, (wide / 63).astype(np.float32), 32, 3, []),
        "0 to 255": (tiff, (wide * 4).astype(np.float32), 32, 3, []),
    }
    for name, (write, pixels, bits, kind, expected) in cases.items():
        assert notes(write(tmp_path / "x.tif", pixels, bits=bits, kind=kind)) == expected, name


def test_twelve_bits_in_a_color_png_of_16_are_noted(tmp_path):
    for factor, expected in ((65, [modes.NARROW]), (1040, [])):
        raw = b"".join(b"\0" + (np.arange(24) * factor % 65536).astype(">u2").tobytes() for _ in range(4))
        (tmp_path / "x.png").write_bytes(png(8, 4, 16, 2, raw))
        assert notes(tmp_path / "x.png") == ([modes.NARROW] if factor == 65 else notes(tmp_path / "x.png"))
        assert (modes.NARROW in notes(tmp_path / "x.png")) == bool(expected)
    dark = np.full((4, 8, 3), 9, np.uint8)
    Image.fromarray(dark).save(tmp_path / "dark.png")
    assert notes(tmp_path / "dark.png") == []  # eight bits have no other scale


@pytest.mark.parametrize("size", [None, (1, 32)])
@pytest.mark.parametrize("limit", ["1", "0"])  # gigabytes of decoded images that are kept
def test_training_says_each_time_how_many_images_do_not_fit(tmp_path, monkeypatch, capsys, limit, size):
    monkeypatch.setenv("POOLZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("POOLZOO_CACHE_LIMIT", limit)
    for index in range(5):
        folder = tmp_path / "data/train" / ("ant" if index < 2 else "bee")
        folder.mkdir(parents=True, exist_ok=True)
        factor = 65 if index < 3 else 1040
        tiff(folder / f"{index}.tif", np.arange(64, dtype=np.uint16)[None] * factor, bits=16, kind=1)
    for _ in range(2):
        source.load_split(source.open_dataset(f"folder:{tmp_path / 'data'}", size, ("train",)), "train")
        *_, line = capsys.readouterr().err.splitlines()
        assert "3 of 5 train images use a quarter or less of the scale" in line
        assert f"{tmp_path / 'data/train/ant/0.tif'}: 0 to 4,095 of 0 to 65,535" in line
    with output.quiet():  # as in every trial of a comparison
        source.load_split(source.open_dataset(f"folder:{tmp_path / 'data'}", size, ("train",)), "train")
    assert capsys.readouterr().err == ""


def test_colors_of_16_bits_are_judged_at_any_size(tmp_path):
    raw = b"".join(b"\0" + (np.arange(24) * 65).astype(">u2").tobytes() for _ in range(4))
    (tmp_path / "x.png").write_bytes(png(8, 4, 16, 2, raw))
    assert notes(tmp_path / "x.png", (4, 8)) == notes(tmp_path / "x.png", (2, 4)) == [modes.NARROW]


def test_predict_says_it_too(poolzoo, tmp_path):
    from support.linear_bundle import linear_bundle

    bundle = linear_bundle(tmp_path / "linear", "uint8")
    files = [tiff(tmp_path / f"{i}.tif", np.full((4, 6), 9000, np.float32), bits=32, kind=3) for i in range(2)]
    outcome = poolzoo("predict", bundle, *files, "--json")
    assert outcome.code == 0
    assert "2 of 2 images have many pixels outside of the scale" in outcome.err
