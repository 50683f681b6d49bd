"""Every kind of odd image file, by its row in docs/reference/images.md: files of 4 × 6 pixels, and their content."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageCms
from support import odd_images
from support.odd_images import GRAY, HEIGHT, PIXELS, SEEN, WIDTH, as_rgb, on_white, png

Make = Callable[
    [Path], np.ndarray | str
]  # writes the file with an ending of its own; gives pixels or words of an error
FIRST, SECOND = (10, 20, 30), (200, 100, 0)
LOSSY: Final = frozenset(
    {"AVIF", "CMYK JPEG with Adobe's marker", "CMYK JPEG without a marker", "HEIC", "Lab TIFF", "MPO"}
)
ALPHA_16: Final = np.where(SEEN, 65535, 0)


def _flat(color: tuple[int, int, int]) -> np.ndarray:
    return np.broadcast_to(np.array(color, np.uint8), (HEIGHT, WIDTH, 3))


def _frames() -> list[Image.Image]:
    return [Image.new("RGB", (WIDTH, HEIGHT), color) for color in (FIRST, SECOND)]


def _several(ending: str, **options: object) -> Make:
    def make(path: Path) -> np.ndarray:
        first, *others = _frames()
        first.save(path.with_suffix(ending), save_all=True, append_images=others, **options)
        return _flat(FIRST)

    return make


def _scan_lines(pixels: np.ndarray) -> bytes:
    return b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)


def _png_of_16_bits(kind: int, pixels: np.ndarray, expected: np.ndarray) -> Make:
    def make(path: Path) -> np.ndarray:
        stored = np.dstack([pixels.astype(np.uint16) * 257, ALPHA_16])
        path.with_suffix(".png").write_bytes(png(WIDTH, HEIGHT, 16, kind, _scan_lines(stored)))
        return expected

    return make


def tiff(pixels: np.ndarray, sample_format: int) -> bytes:
    """An uncompressed TIFF of several samples a pixel, `[H, W, S]`, by its specification."""
    samples, bits = pixels.shape[2], pixels.itemsize * 8
    strip = pixels.tobytes()
    at_bits = 8 + len(strip)
    at_formats = at_bits + 2 * samples
    lists = struct.pack(f"<{2 * samples}H", *[bits] * samples, *[sample_format] * samples)
    tags = [
        *((256, 1, WIDTH), (257, 1, HEIGHT), (258, samples, at_bits), (259, 1, 1), (262, 1, 2), (273, 1, 8)),
        *((277, 1, samples), (278, 1, HEIGHT), (279, 1, len(strip)), (339, samples, at_formats)),
    ]
    entries = b"".join(struct.pack("<HHII", tag, 4 if count == 1 else 3, count, value) for tag, count, value in tags)
    directory = at_formats + 2 * samples
    return b"II" + struct.pack("<HI", 42, directory) + strip + lists + struct.pack("<H", len(tags)) + entries + bytes(4)


def _color_tiff_of_16_bits(path: Path) -> np.ndarray:
    path.with_suffix(".tif").write_bytes(tiff(PIXELS.astype("<u2") * 257, 1))
    return PIXELS


def _color_tiff_of_floats(path: Path) -> str:
    path.with_suffix(".tif").write_bytes(tiff((PIXELS / 255).astype("<f4"), 3))
    return "nothing that Pillow reads"


def _big_endian(path: Path) -> np.ndarray:
    strip = (GRAY.astype(">u2") * 257).tobytes()
    tags = (
        (256, WIDTH),
        (257, HEIGHT),
        (258, 16),
        (259, 1),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, HEIGHT),
        (279, len(strip)),
    )
    entries = b"".join(struct.pack(">HHII", tag, 4, 1, value) for tag, value in tags)
    head = b"MM" + struct.pack(">HI", 42, 8 + len(strip))
    path.with_suffix(".tif").write_bytes(head + strip + struct.pack(">H", len(tags)) + entries + bytes(4))
    return as_rgb(GRAY)


def _cmyk_without_marker(path: Path) -> np.ndarray:
    expected = odd_images.cmyk(path)
    file = path.with_suffix(".jpg")
    content = file.read_bytes()
    start = content.index(b"\xff\xee")
    (length,) = struct.unpack(">H", content[start + 2 : start + 4])
    file.write_bytes(content[:start] + content[start + 2 + length :])
    assert b"Adobe" not in file.read_bytes()
    return expected


def _cmyk_tiff(path: Path) -> np.ndarray:
    ink = np.broadcast_to(np.array([255, 0, 0, 0], np.uint8), (HEIGHT, WIDTH, 4))
    Image.fromarray(np.ascontiguousarray(ink), "CMYK").save(path.with_suffix(".tif"))
    return _flat((0, 255, 255))


def _two_bits(path: Path) -> np.ndarray:
    rows = b"".join(b"\0" + bytes([0b00011011, 0b11100000]) for _ in range(HEIGHT))
    path.with_suffix(".png").write_bytes(png(WIDTH, HEIGHT, 2, 0, rows))
    return as_rgb(np.tile(np.array([0, 1, 2, 3, 3, 2]) * 85, (HEIGHT, 1)))


def _jpeg(**options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "JPEG", quality=95, subsampling=0, **options)
    return file.getvalue()


def _decoded(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def _progressive(path: Path) -> np.ndarray:
    path.with_suffix(".jpg").write_bytes(_jpeg(progressive=True))
    return _decoded(_jpeg())  # the coefficients are the same, in another order


def _bytes_behind(path: Path) -> np.ndarray:
    path.with_suffix(".jpg").write_bytes(_jpeg() + b"more" * 9)
    return _decoded(_jpeg())


def _wrong_extension(path: Path) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "PNG")
    path.with_suffix(".jpg").write_bytes(file.getvalue())
    return PIXELS


def _profile(path: Path) -> np.ndarray:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    Image.fromarray(PIXELS).save(path.with_suffix(".png"), icc_profile=profile)
    return PIXELS


def _lab(path: Path) -> np.ndarray:
    lab = Image.new("LAB", (WIDTH, HEIGHT))
    lab.putdata([(255, 128, 128)] * (WIDTH * HEIGHT))  # L 100, a and b 0
    lab.save(path.with_suffix(".tif"))
    return _flat((255, 255, 255))


def _truncated(path: Path) -> str:
    path.with_suffix(".jpg").write_bytes(_jpeg()[:-60])
    return "truncated"


def _truncated_png(path: Path) -> str:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "PNG")
    path.with_suffix(".png").write_bytes(file.getvalue()[:70])
    return ""


def _empty(path: Path) -> str:
    path.with_suffix(".png").write_bytes(b"")
    return "empty"


def _huge(path: Path) -> str:
    path.with_suffix(".png").write_bytes(png(20_000, 20_000, 1, 0, b""))
    return "exceeds limit"


def _avif(path: Path) -> np.ndarray:
    Image.new("RGB", (WIDTH, HEIGHT), FIRST).save(path.with_suffix(".avif"), quality=100)
    return _flat(FIRST)


def _heic(path: Path) -> np.ndarray:
    import pillow_heif

    pillow_heif.register_heif_opener()
    Image.new("RGB", (WIDTH, HEIGHT), FIRST).save(path.with_suffix(".heic"), "HEIF", quality=100)
    return _flat(FIRST)


def _turned_heic(path: Path) -> np.ndarray:
    """As `_turned_jpeg`; pillow-heif writes the orientation as the property of the container that counts."""
    import pillow_heif

    pillow_heif.register_heif_opener()
    stored, expected, exif = _to_turn()
    Image.fromarray(stored).save(path.with_suffix(".heic"), "HEIF", quality=100, exif=exif.tobytes())
    return expected


def _turned_jpeg(path: Path) -> np.ndarray:
    stored, expected, exif = _to_turn()
    Image.fromarray(stored).save(path.with_suffix(".jpg"), exif=exif, quality=100, subsampling=0)
    return expected


def _to_turn() -> tuple[np.ndarray, np.ndarray, Image.Exif]:
    """Black to the left of white, and what is seen after a quarter turn: black above white."""
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = np.zeros((WIDTH, HEIGHT, 3), np.uint8)  # of a file that is turned, height and width change places
    stored[:, HEIGHT // 2 :] = 255
    expected = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    expected[HEIGHT // 2 :] = 255
    return stored, expected, exif


ROWS: Final[dict[str, tuple[Make, ...]]] = {
    "gray of 16 bits": (odd_images.gray_of_16_bits, _big_endian),
    "color of 16 bits": (odd_images.color_of_16_bits, _color_tiff_of_16_bits),
    "16 bits with alpha": (
        _png_of_16_bits(4, GRAY, on_white(as_rgb(GRAY))),
        _png_of_16_bits(6, PIXELS, on_white(PIXELS)),
    ),
    "integers of 32 bits": (odd_images.integers_of_32_bits,),
    "floating point, gray": (odd_images.fractions, odd_images.floats_to_255),
    "floating point, color": (_color_tiff_of_floats,),
    "CMYK JPEG with Adobe's marker": (odd_images.cmyk,),
    "CMYK JPEG without a marker": (_cmyk_without_marker,),
    "CMYK TIFF": (_cmyk_tiff,),
    "Lab TIFF": (_lab,),
    "palette with alpha": (
        odd_images.palette_with_a_transparent_color,
        odd_images.palette_with_several_transparencies,
    ),
    "gray with alpha": (odd_images.gray_with_alpha,),
    "color with alpha": (odd_images.color_with_alpha,),
    "one or two bits a pixel": (odd_images.one_bit, _two_bits),
    "animated GIF": (odd_images.animation,),
    "animated WebP": (_several(".webp", lossless=True),),
    "animated PNG": (_several(".png"), _several(".png", default_image=True)),
    "TIFF of several pages": (_several(".tif"),),
    "MPO": (_several(".mpo", quality=100),),
    "EXIF orientation 2 to 8": (*odd_images.TURNED, _turned_jpeg),
    "color profile": (_profile,),
    "progressive JPEG": (_progressive,),
    "bytes behind the end": (_bytes_behind,),
    "wrong extension": (_wrong_extension,),
    "truncated": (_truncated, _truncated_png),
    "zero bytes": (_empty,),
    "more than 178,956,970 pixels": (_huge,),
    "AVIF": (_avif,),
    "HEIC": (_heic, _turned_heic),
}
