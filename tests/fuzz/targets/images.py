"""Images of every format, as every reader of poolzoo has them: damaged bytes, sizes that promise too much, modes."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import BinaryIO

import numpy as np
from PIL import Image

from fuzz import odd
from fuzz.harness import Disagreement, Target
from poolzoo.common.errors import CheckFailed
from poolzoo.data import decode, images, jpeg
from poolzoo.data.check import look
from poolzoo.plugin.image_index import ImageIndex, Names

SIZE = (24, 32)
LARGEST = 1300 << 20  # bytes that an image of as many pixels as Pillow reads may take
BOMB = 13_000  # side of an image that is large and compresses to little


@dataclass(frozen=True)
class InMemory:
    """Images as bytes."""

    contents: tuple[bytes, ...]
    place: str = "memory"

    def open(self, row: int, name: str) -> BinaryIO:
        return io.BytesIO(self.contents[row])

    def stamp(self, row: int, name: str) -> tuple[int, int]:
        return len(self.contents[row]), hash(self.contents[row]) % 2**40


def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def encoded(kind: str, image: Image.Image | None = None, **how: object) -> bytes:
    """An image in a format of Pillow's."""
    buffer = io.BytesIO()
    (image or Image.fromarray(pixels())).save(buffer, kind, **how)
    return buffer.getvalue()


@cache
def seeds() -> dict[str, list[bytes]]:
    """Valid images by format."""
    whole = Image.fromarray(pixels())
    exif = Image.Exif()
    exif[0x0112] = 6
    alpha = Image.fromarray(np.dstack([pixels(), pixels()[..., :1]]), "RGBA")
    deep = Image.fromarray(pixels()[..., 0].astype(np.uint16) * 257)
    found = {
        "jpeg": [
            encoded("JPEG"),
            encoded("JPEG", progressive=True),
            encoded("JPEG", exif=exif),
            encoded("JPEG", whole.convert("L")),
            encoded("JPEG", whole.convert("CMYK")),
            encoded("JPEG", whole.resize((160, 120)), quality=30),
        ],
        "png": [
            encoded("PNG"),
            encoded("PNG", alpha),
            encoded("PNG", deep),
            encoded("PNG", whole.quantize(16), transparency=3),
            encoded("PNG", whole.convert("1")),
            encoded("PNG", exif=exif),
        ],
        "gif": [encoded("GIF", save_all=True, append_images=[whole.rotate(90)]), encoded("GIF", whole.quantize(4))],
        "webp": [encoded("WEBP"), encoded("WEBP", alpha, lossless=True)],
        "bmp": [encoded("BMP"), encoded("BMP", whole.quantize(16)), encoded("BMP", whole.convert("1"))],
        "tiff": [
            *(encoded("TIFF", compression=name) for name in ("raw", "tiff_lzw", "tiff_deflate", "jpeg", "packbits")),
            encoded("TIFF", Image.fromarray(pixels()[..., 0].astype(np.float32))),
            encoded("TIFF", Image.fromarray(pixels()[..., 0].astype(np.int32) * 1000)),
            encoded("TIFF", deep, exif=exif),
        ],
        "others": [
            encoded(kind) for kind in ("PPM", "TGA", "ICO", "PCX", "SGI", "JPEG2000", "DDS", "QOI") if _writes(kind)
        ],
    }
    if images.with_heif():
        found["heif"] = [encoded("HEIF")]
    if "AVIF" in Image.SAVE:
        found["avif"] = [encoded("AVIF")]
    return found


def _writes(kind: str) -> bool:
    Image.init()
    return kind in Image.SAVE


@cache
def bomb() -> bytes:
    """A PNG of many pixels in few bytes."""
    row = zlib.compressobj(9)
    raw = b"".join(row.compress(b"\0" + bytes(BOMB)) for _ in range(BOMB)) + row.flush()
    parts = ((b"IHDR", struct.pack(">IIBBBBB", BOMB, BOMB, 8, 0, 0, 0, 0)), (b"IDAT", raw), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, content) for name, content in parts)


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def mutated_image(rng: Random, known: Sequence[bytes]) -> bytes:
    """An image with damaged bytes; of a PNG the chunks have right checksums, so that the damage gets through."""
    content = rng.choice(known)
    if content.startswith(b"\x89PNG") and rng.random() < 0.6:
        return _other_png(rng, content)
    return odd.damaged(rng, content, known)


def _other_png(rng: Random, content: bytes) -> bytes:
    chunks, at = [], 8
    while at + 8 <= len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    place = rng.randrange(len(chunks))
    name, body = chunks[place]
    kind = rng.randrange(5)
    if kind == 0:
        sides = [rng.choice((0, 1, 7, 24, 65536, 2**31 - 1, 2**32 - 1)) for _ in range(2)]
        chunks[0] = (
            b"IHDR",
            struct.pack(">II", *sides) + bytes(rng.choice((0, 1, 2, 3, 4, 6, 8, 16)) for _ in range(5)),
        )
    elif kind == 1:
        chunks[place] = (name, odd.damaged(rng, body))
    elif kind == 2:
        chunks[place:place] = [chunks[place]]
    elif kind == 3:
        del chunks[place]
    else:
        extra = rng.choice(
            (b"tRNS", b"PLTE", b"iCCP", b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"acTL", b"fcTL", b"gAMA", b"pHYs")
        )
        chunks[1:1] = [
            (extra, rng.choice((b"", body[:40], zlib.compress(bytes(1000)), b"a\0\0" + zlib.compress(bytes(300_000)))))
        ]
    return content[:8] + b"".join(_chunk(*one) for one in chunks)


def targets(folder: Path) -> Iterator[Target]:
    for name, known in seeds().items():
        yield Target(f"image-{name}", known, mutated_image, _read(known[0]), 0.5)
    everything = [one for known in seeds().values() for one in known]
    yield Target("image-check", everything, mutated_image, _look, 0.3)
    yield Target("image-header", everything, mutated_image, _header, 0.5)
    yield Target("image-bombs", [encoded("PNG"), bomb()], _bombs, _read(encoded("PNG")), 0.001, LARGEST)


def _bombs(rng: Random, known: Sequence[bytes]) -> bytes:
    return rng.choice(known)


def _read(valid: bytes) -> Callable[[bytes], object]:
    """Reads an image between two valid ones, as training and predictions do; with and without a size."""
    expected = images.read(io.BytesIO(valid), SIZE)

    def read(content: bytes) -> object:
        index = ImageIndex(InMemory((valid, content, valid)), Names.of(["a", "b", "c"]), np.zeros(3, np.int32))
        report = decode.Report()
        found = list(decode.each(index, "train", SIZE, report=report))
        broken = dict(report.broken)
        if set(broken) - {1} or len(found) != 3 - len(broken):
            raise Disagreement(f"{len(found)} images were read, and {broken} are broken")
        if not (np.array_equal(found[0], expected) and np.array_equal(found[-1], expected)):
            raise Disagreement("a valid image beside it has other pixels")
        if broken:
            if not broken[1].strip() or "\n" in broken[1]:
                raise Disagreement(f"the reason is {broken[1]!r}")
            raise CheckFailed(broken[1])
        if found[1].shape != (*SIZE, 3) or found[1].dtype != np.uint8:
            raise Disagreement(f"pixels {found[1].dtype}{found[1].shape}")
        _compare(content)
        return found[1]

    return read


def _compare(content: bytes) -> None:
    """Holds a plain JPEG against Pillow, which decodes all others."""
    plain = jpeg.plain_jpeg(io.BytesIO(content))
    own = None if plain is None else plain.decode()
    if own is None:
        return
    with Image.open(io.BytesIO(content)) as image:
        other = np.asarray(image.convert("RGB"))
    if not np.array_equal(own, other):
        raise Disagreement("Pillow gives other pixels")


def _look(content: bytes) -> object:
    try:
        return look.look(io.BytesIO(content), "a.png")
    except images.Unreadable as error:
        raise CheckFailed(images.reason(error)) from error


def _header(content: bytes) -> object:
    size = decode.size_in(io.BytesIO(content))
    if size is None:
        raise CheckFailed("no image")
    try:
        pixels = images.read(io.BytesIO(content))
    except images.Unreadable:
        return size
    if pixels.shape[:2] != size and not content.startswith((b"\x89PNG", b"RIFF", b"II", b"MM")):
        raise Disagreement(f"its header says {size}, its pixels are {pixels.shape}")
    return size
