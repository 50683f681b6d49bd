"""Images that are odd but whole, each with the pixels that it must become, worked out without Pillow's conversions."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 4, 6  # as the networks of these tests take them, so that nothing is resized
PIXELS: Final = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
GRAY: Final = PIXELS[..., 0]
SEEN: Final = np.indices((HEIGHT, WIDTH)).sum(0) % 2 == 0  # a checkerboard


def as_rgb(gray: np.ndarray) -> np.ndarray:
    return np.repeat(np.asarray(gray, np.uint8)[..., None], 3, -1)


def on_white(pixels: np.ndarray) -> np.ndarray:
    return np.where(SEEN[..., None], pixels, 255).astype(np.uint8)


def png(width: int, height: int, depth: int, kind: int, raw: bytes) -> bytes:
    """A PNG file, by its specification: `raw` is the scan lines, each with its filter's number before it."""
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)), (b"IDAT", zlib.compress(raw)))
    parts = [
        struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in (*chunks, (b"IEND", b""))
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def gray_of_16_bits(path: Path) -> np.ndarray:
    wide = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 2700
    Image.fromarray(wide).save(path.with_suffix(".png"))
    return as_rgb(np.rint(wide * (255 / 65535)))


def color_of_16_bits(path: Path) -> np.ndarray:
    rows = (PIXELS.astype(">u2") * 257).astype(">u2")
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    path.with_suffix(".png").write_bytes(png(WIDTH, HEIGHT, 16, 2, raw))
    return PIXELS


def integers_of_32_bits(path: Path) -> np.ndarray:
    wide = np.arange(HEIGHT * WIDTH, dtype=np.int64).reshape(HEIGHT, WIDTH) * 93_000_000 - 5000
    Image.fromarray(wide.astype(np.int32)).save(path.with_suffix(".tif"))
    return as_rgb(np.rint(np.clip(wide, 0, None) * (255 / (2**31 - 1))))


def cmyk(path: Path) -> np.ndarray:
    """Cyan alone: no red, full green and blue."""
    ink = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    ink[..., 0] = 255
    Image.fromarray(ink, "CMYK").save(path.with_suffix(".jpg"), quality=100)
    return np.broadcast_to(np.array([0, 255, 255], np.uint8), (HEIGHT, WIDTH, 3))


def palette_with_a_transparent_color(path: Path) -> np.ndarray:
    image = Image.fromarray(SEEN.astype(np.uint8), "P")
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.save(path.with_suffix(".png"), transparency=0)
    return on_white(np.broadcast_to([200, 100, 50], (HEIGHT, WIDTH, 3)))


def palette_with_several_transparencies(path: Path) -> np.ndarray:
    image = Image.fromarray(SEEN.astype(np.uint8), "P")
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.save(path.with_suffix(".png"), transparency=bytes([0, 255]))
    return on_white(np.broadcast_to([200, 100, 50], (HEIGHT, WIDTH, 3)))


def gray_with_alpha(path: Path) -> np.ndarray:
    Image.fromarray(np.stack([GRAY, SEEN * np.uint8(255)], -1), "LA").save(path.with_suffix(".png"))
    return on_white(as_rgb(GRAY))


def color_with_alpha(path: Path) -> np.ndarray:
    Image.fromarray(np.dstack([PIXELS, SEEN * np.uint8(255)]), "RGBA").save(path.with_suffix(".png"))
    return on_white(PIXELS)


def animation(path: Path) -> np.ndarray:
    """Black and white frames; the first one counts."""
    frames = [Image.new("L", (WIDTH, HEIGHT), shade) for shade in (0, 255)]
    frames[0].save(path.with_suffix(".gif"), save_all=True, append_images=frames[1:])
    return np.zeros((HEIGHT, WIDTH, 3), np.uint8)


def one_bit(path: Path) -> np.ndarray:
    Image.fromarray(SEEN).save(path.with_suffix(".png"))
    return as_rgb(SEEN * 255)


def fractions(path: Path) -> np.ndarray:
    Image.fromarray((GRAY / 255).astype(np.float32)).save(path.with_suffix(".tif"))
    return as_rgb(GRAY)


def floats_to_255(path: Path) -> np.ndarray:
    floats = GRAY.astype(np.float32)
    floats[0, 0], floats[0, 1], floats[0, 2] = np.nan, 300, -3
    Image.fromarray(floats).save(path.with_suffix(".tif"))
    expected = GRAY.copy()
    expected[0, :3] = 0, 255, 0
    return as_rgb(expected)


def _turned(orientation: int, stored: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], np.ndarray]:
    """A file whose EXIF tells how to turn what is stored to get `PIXELS`."""

    def save(path: Path) -> np.ndarray:
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(np.ascontiguousarray(stored(PIXELS))).save(path.with_suffix(".png"), exif=exif)
        return PIXELS

    save.__name__ = f"turned_{orientation}"
    return save


TURNED: Final = (  # the inverse of what the EXIF standard has a viewer do
    _turned(2, lambda x: x[:, ::-1]),
    _turned(3, lambda x: x[::-1, ::-1]),
    _turned(4, lambda x: x[::-1]),
    _turned(5, lambda x: x.transpose(1, 0, 2)),
    _turned(6, lambda x: np.rot90(x)),
    _turned(7, lambda x: x[::-1, ::-1].transpose(1, 0, 2)),
    _turned(8, lambda x: np.rot90(x, -1)),
)
ODD: Final = (
    gray_of_16_bits,
    color_of_16_bits,
    integers_of_32_bits,
    cmyk,
    palette_with_a_transparent_color,
    palette_with_several_transparencies,
    gray_with_alpha,
    color_with_alpha,
    animation,
    one_bit,
    fractions,
    floats_to_255,
    *TURNED,
)
