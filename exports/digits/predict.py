"""Labels images with the network in this directory. Needs onnxruntime, numpy and Pillow, nothing else.

python predict.py IMAGE...           a line for each image, in order: its label and score, or `error` and the reason
python predict.py --top 3 IMAGE...   the three most probable labels, each with its score, on that line
python predict.py --verify           check that files and outputs are as exported

Where an image may have several labels, the line has those that reach their thresholds; it may be empty.
A graph with the output `accepted` adds the column yes or no, one with `prediction_set` the set, separated by |.
Columns are separated by tabs. The exit code is 1 where an image cannot be read or a check fails, and 4 where the
installed onnxruntime is too old.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import importlib
import json
import os
import stat
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import cache
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, NoReturn

import numpy as np
import onnxruntime
from PIL import Image, ImageOps, UnidentifiedImageError

NOT_A_FILE: Final = "Not a file but a pipe or a device"


def open_file(path: str | os.PathLike[str], *, pipe: bool = False) -> BufferedReader:
    """Opens a file of somebody else to read it, and waits for nobody.

    Args:
        path: A regular file, or a link to one.
        pipe: Whether it may be a pipe, which is not seekable; one that nobody writes to is empty.

    Raises:
        OSError: It cannot be read. It is a folder, a socket, a device or, without `pipe`, a pipe.
    """
    file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115 - closed by who called
    mode = os.fstat(file.fileno()).st_mode
    if not (stat.S_ISREG(mode) or (pipe and stat.S_ISFIFO(mode))):
        file.close()
        raise OSError(errno.EINVAL, NOT_A_FILE, os.fspath(path))
    if pipe and stat.S_ISFIFO(mode):
        os.set_blocking(file.fileno(), True)
    return file


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a pipe without a writer would wait for one


Size = tuple[int, int]


def plain(size: Size) -> int | str:
    """A size as settings keep it and `--image-size` takes it: a number for a square, else `HEIGHTxWIDTH`."""
    return size[0] if size[0] == size[1] else f"{size[0]}x{size[1]}"


FILTERS: Final = ("bilinear", "bicubic")
READER: Final = 2  # the rules by which files become pixels; what was trained by older ones is read by them again

# What `metadata_props` says of them, beside the values of `Fit`.
TRANSFORMS: Final = {
    1: "EXIF turned, alpha on white, RGB; where the size differs, shorter side resized, center cropped",
    2: "EXIF turned, alpha on white, RGB, deep images scaled by their type; where the size differs, shorter side "
    "resized, center cropped, after a JPEG was decoded at 1/2, 1/4 or 1/8 of its size where that is twice as large",
}


@dataclass(frozen=True)
class Fit:
    """How an image of another size is brought to the wanted one, in timm's words.

    Attributes:
        interpolation: "bilinear" or "bicubic".
        crop_pct: Part of the shorter side that is kept of the center; at 1 no margin is cut off.
        reader: The rules by which files become pixels: 2, or 1 for what was trained before these.
    """

    interpolation: str = "bilinear"
    crop_pct: float = 1.0
    reader: int = READER


PLAIN: Final = Fit()  # how data sets are fitted


def recorded(facts: Mapping[str, Any]) -> Fit:
    """The fit that a run's or a bundle's description holds; where an older one says nothing, what was done then.

    Raises:
        ValueError: It holds no such values.
    """
    fit = Fit(facts.get("interpolation", "bilinear"), facts.get("crop_pct", 1.0), facts.get("reader", 1))
    if fit.interpolation not in FILTERS:
        raise ValueError(f"interpolation {' or '.join(FILTERS)}, but {fit.interpolation!r:.40}")
    if isinstance(fit.crop_pct, bool) or not isinstance(fit.crop_pct, int | float) or not 0 < fit.crop_pct <= 1:
        raise ValueError("crop_pct above 0 and at most 1")
    if isinstance(fit.reader, bool) or not isinstance(fit.reader, int) or fit.reader not in TRANSFORMS:
        raise ValueError("reader that this version of poolzoo knows")
    return fit


Tags = Mapping[int, Any]
ScaleCallback = Callable[
    [str, str], None
]  # gets, of an image whose values do not fit the scale, which way and the values

OUTSIDE: Final = "have many pixels outside of the scale of their type, which become black or white"
NARROW: Final = "use a quarter or less of the scale of their type"
STRIP: Final = 1 << 22  # pixels that are converted at a time: ten floats of each are held meanwhile
MAX_OUTSIDE, MIN_USED = 0.25, 0.25  # shares of the pixels, and of the scale, from which on an image is reported

_BITS, _PHOTOMETRIC, _FORMAT = 258, 262, 339  # tags of TIFF
_WHITE_IS_ZERO, _SIGNED = 0, 2  # values of the last two


def is_deep(image: Image.Image, tags: Tags) -> bool:
    """Whether the pixels of an image are of more than eight bits, or signed."""
    return image.mode[0] in "IF" or (image.mode == "L" and tags.get(_FORMAT, (1,))[0] == _SIGNED)


def levels(image: Image.Image, tags: Tags, on_misfit: ScaleCallback | None = None) -> Image.Image:
    """An image for which `is_deep` holds, by the scale of its type, as mode "L".

    Args:
        image: The image, perhaps turned.
        tags: Those of its file where that is a TIFF, else none.
        on_misfit: Called where values do not fit the scale.

    Raises:
        ValueError: No pixel is a finite number.
    """
    pixels, white = _values(image, tags)
    inverted = tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO and image.mode != "L"  # Pillow inverts eight bits alone
    found = np.empty(pixels.shape, np.uint8)
    finite, inside, low, high = 0, 0, np.inf, -np.inf
    step = max(1, STRIP // max(1, image.width))
    for top in range(0, len(pixels), step):
        values = pixels[top : top + step]
        values = values if image.mode == "F" else values.astype(np.float64)
        shown = values[np.isfinite(values)]
        finite += shown.size
        inside += int(np.count_nonzero((shown >= 0) & (shown <= white)))
        low, high = min(low, float(shown.min(initial=np.inf))), max(high, float(shown.max(initial=-np.inf)))
        scaled = np.nan_to_num(values).clip(0, white) * (255 / white)
        found[top : top + step] = np.rint(255 - scaled if inverted else scaled)
    if not finite:
        raise ValueError("no pixel is a finite number")
    if on_misfit is not None:
        _report_misfit((low, high), 1 - inside / pixels.size, white, on_misfit)
    return Image.fromarray(found)


def report_narrow_colors(image: Image.Image, on_misfit: ScaleCallback) -> None:
    """Notes colors that use little of the 16 bits that the file has; Pillow reads the upper eight."""
    pixels = np.asarray(image)
    low, high = int(pixels.min()), int(pixels.max())
    if high - low <= MIN_USED * 255:
        on_misfit(NARROW, f"{low * 256:,} to {high * 256 + 255:,} of 0 to 65,535")


def levels_of_reader_1(image: Image.Image) -> Image.Image:
    """The same by the rules of reader 1, which clamped all integers to 0–65535."""
    pixels = np.asarray(image).astype(np.float64 if image.mode[0] == "I" else np.float32)
    if image.mode[0] == "I":
        return Image.fromarray(np.rint(pixels.clip(0, 65535) / 257).astype(np.uint8))
    scaled = pixels * (255 if np.nanmax(pixels) <= 1 else 1)
    return Image.fromarray(np.rint(np.nan_to_num(scaled).clip(0, 255)).astype(np.uint8))


def _values(image: Image.Image, tags: Tags) -> tuple[np.ndarray, float]:
    """The pixels as they are stored, `[H, W]`, and the value that is white."""
    pixels = np.asarray(image)
    if image.mode == "F":
        brightest = pixels.max(initial=-np.inf, where=np.isfinite(pixels))
        return pixels, 1.0 if -np.inf < brightest <= 1 else 255.0
    if image.mode == "L":
        return pixels.view(np.int8), 127.0
    signed = tags.get(_FORMAT, (1,))[0] == _SIGNED
    bits = tags.get(_BITS, (16,))[0]  # what is no TIFF comes at 16 bits, in whatever mode
    if bits == 32 and not signed:
        pixels = pixels.view(np.uint32)
    return pixels, float(2 ** (bits - signed) - 1)


def _report_misfit(used: tuple[float, float], outside: float, white: float, on_misfit: ScaleCallback) -> None:
    """Notes values that do not fit: the least and the largest, and the share of the pixels beyond the scale."""
    low, high = used
    text = f"{low:,.6g} to {high:,.6g} of 0 to {white:,.10g}"
    if outside > MAX_OUTSIDE:
        on_misfit(OUTSIDE, text)
    elif min(high, white) - max(low, 0) <= MIN_USED * white:
        on_misfit(NARROW, text)


try:
    import simplejpeg
except ImportError:  # no wheel for this machine: Pillow decodes everything
    simplejpeg = None

START: Final = b"\xff\xd8\xff"
COLORS: Final = ("Gray", "YCbCr")  # what Pillow turns into RGB as libjpeg-turbo does
MIN_SIDE: Final = 64  # below it several scales of libjpeg-turbo give the same number of pixels
ORIENTATION: Final = 0x0112  # EXIF tag
_PIXELS: Final = b"\xda"  # marker of the segment that pixels follow
_METADATA: Final = (b"Exif\x00", b"http://ns.adobe.com/xap")  # where an orientation may be


class PlainJpeg(NamedTuple):
    """A JPEG whose pixels need nothing but decoding: its bytes, its height and its width."""

    content: bytes
    height: int
    width: int

    def decode(self, part: int = 1) -> np.ndarray | None:
        """The pixels at 1/part of the size, `uint8[⌈h / part⌉, ⌈w / part⌉, 3]`; None where the file has errors.

        Args:
            part: 1, 2, 4 or 8.
        """
        if part > 1 and min(self.height, self.width) < MIN_SIDE:
            return None
        height, width = -(-self.height // part), -(-self.width // part)
        with suppress(ValueError):
            if part == 1:
                return simplejpeg.decode_jpeg(self.content)  # type: ignore[no-any-return]
            return simplejpeg.decode_jpeg(  # type: ignore[no-any-return]
                self.content, min_height=height, min_width=width, min_factor=part
            )
        return None


def plain_jpeg(file: BinaryIO) -> PlainJpeg | None:
    """Reads a file, if it is a plain JPEG; else None, and the file is at its start again."""
    if simplejpeg is not None and file.read(len(START)) == START:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        content = file.read(size)  # without a size, a buffered file joins two parts to one more copy
        with suppress(ValueError):
            height, width, colors, _ = simplejpeg.decode_jpeg_header(content)
            if colors in COLORS and height * width <= (Image.MAX_IMAGE_PIXELS or 0) and not _turned(content):
                return PlainJpeg(content, height, width)
    file.seek(0)
    return None


def _turned(content: bytes) -> bool:
    """Whether the metadata may say that the image is to be turned."""
    header = _header(content)
    if not any(name in header for name in _METADATA):
        return False
    with suppress(Exception), Image.open(BytesIO(content)) as image:  # damaged metadata makes Pillow raise anything
        return bool(image.getexif().get(ORIENTATION, 1) != 1)
    return True


def _header(content: bytes) -> bytes:
    """The segments before the pixels; everything where they do not follow each other."""
    end = 2
    while content[end : end + 1] == b"\xff":
        if content[end + 1 : end + 2] == _PIXELS:
            return content[:end]
        end += 2 + int.from_bytes(content[end + 2 : end + 4], "big")
    return content


# Pixels of an image beside which no other one is decoded. Pillow reads images of five times as many, from files of any
# size, and takes six bytes for each pixel.
LARGE: Final = 1 << 25
_alone = threading.Lock()


@cache
def with_heif() -> bool:
    """Whether HEIC files can be read: they can where pillow-heif is installed."""
    with suppress(ImportError):
        importlib.import_module("pillow_heif").register_heif_opener()
        return True
    return False


def reason(error: Exception) -> str:
    """Why an image cannot be read, in one line, such as `No such file or directory`."""
    if isinstance(error, UnidentifiedImageError):  # whose text repeats the path
        return "empty, or nothing that Pillow reads"
    text = getattr(error, "strerror", None) or " ".join(str(error).split())
    return text if " " in text else f"{type(error).__name__}: {text}".removesuffix(": ")


def to_rgb(image: Image.Image, how: Fit = PLAIN, on_misfit: ScaleCallback | None = None) -> Image.Image:
    """Any image as RGB: turned by its EXIF orientation, first frame, alpha on white, deep ones by the type's scale."""
    tags, of_16_bits = getattr(image, "tag_v2", {}), any(";16" in str(tile) for tile in getattr(image, "tile", ()))
    image = ImageOps.exif_transpose(image)
    if how.reader == 1 and image.mode[0] in "IF":
        return levels_of_reader_1(image).convert("RGB")
    if how.reader > 1 and is_deep(image, tags):
        return levels(image, tags, on_misfit).convert("RGB")
    if of_16_bits and on_misfit is not None:
        report_narrow_colors(image.convert("RGB"), on_misfit)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def fit(image: Image.Image, size: tuple[int, int], how: Fit = PLAIN) -> Image.Image:
    """An RGB image at (height, width): as it is, or with its shorter side resized and its center cropped."""
    height, width = size
    if image.size == (width, height):
        return image
    return ImageOps.fit(image, (width, height), _filter(how), bleed=(1 - how.crop_pct) / 2)


def _filter(how: Fit) -> Image.Resampling:
    return Image.Resampling[how.interpolation.upper()]


TURNED, MIRRORED_X, MIRRORED_Y = (5, 6, 7, 8), (2, 3, 6, 7), (3, 4, 7, 8)  # EXIF orientations, by what they do


def _part(full: Size, wanted: Size, how: Fit) -> int:
    """1, 2, 4 or 8: a JPEG of the full size is decoded at one part of it and then fitted.

    What is decoded stays twice as large as what is wanted, so that hardly a level changes (0.15 in the mean).
    """
    return next((part for part in (8, 4, 2) if _pixels(full, wanted, how) >= 2 * part), 1)


def _pixels(full: Size, wanted: Size, how: Fit) -> float:
    """Pixels of the file along one pixel of ours."""
    return min(full[axis] / wanted[axis] for axis in (0, 1)) * how.crop_pct


class Scaled(NamedTuple):
    """An RGB image that was decoded at one part of its size.

    Attributes:
        pixels: `uint8[h, w, 3]`, or an image of Pillow's, which need not be converted for Pillow's own resize.
        full: Height and width in the file, turned by its orientation.
        part: 1, 2, 4 or 8: h and w are the full sides divided by it, rounded up.
        start: Row and column of `pixels` where the image begins: below 1, and 0 but for a turned image.
    """

    pixels: np.ndarray | Image.Image
    full: Size
    part: int = 1
    start: tuple[float, float] = (0.0, 0.0)

    def image(self) -> Image.Image:
        """The pixels as an image of Pillow's."""
        return Image.fromarray(self.pixels) if isinstance(self.pixels, np.ndarray) else self.pixels

    def array(self) -> np.ndarray:
        """The pixels as an array that can be written to."""
        found = self.pixels if isinstance(self.pixels, np.ndarray) else np.asarray(self.pixels)
        return found if found.flags.writeable else found.copy()

    def fitted(self, size: Size | None, how: Fit) -> np.ndarray:
        """The pixels resized and center-cropped to (height, width), `uint8[height, width, 3]`; None as they are."""
        if size is None or (self.part == 1 and self.full == size):
            return np.asarray(self.pixels)
        if self.part == 1:
            return np.asarray(fit(self.image(), size, how))
        side, small = _pixels(self.full, size, how), self.image()
        box = []
        for axis in (1, 0):
            length = small.size[1 - axis]
            start = self.start[axis] + max(0.0, (self.full[axis] - size[axis] * side) / self.part / 2)
            box.append((start, min(start + size[axis] * side / self.part, length)))  # a rounding may lead outside
        return np.asarray(small.resize(size[::-1], _filter(how), (box[0][0], box[1][0], box[0][1], box[1][1])))


def scaled(
    path: Path | BinaryIO, part_of: Callable[[Size], int], how: Fit = PLAIN, on_misfit: ScaleCallback | None = None
) -> Scaled:
    """An image file at a part of its size, where it is a JPEG; any other comes whole.

    Args:
        path: The file.
        part_of: Gives 1, 2, 4 or 8 for the height and width in the file.
        how: By which rules files become pixels.
        on_misfit: Called where the values of a deep image do not fit the scale of their type.

    Raises:
        OSError, ValueError, …: One of `Unreadable`: it is no image, or a damaged one.
    """
    with_heif()
    with open_file(path) if isinstance(path, Path) else nullcontext(path) as file:
        if (plain := plain_jpeg(file)) is not None:
            full = plain.height, plain.width
            part = part_of(full) if how.reader > 1 else 1
            if (pixels := plain.decode(part)) is not None:
                return Scaled(pixels, full, part)
            file.seek(0)  # Pillow is to say what is wrong with it
        return _by_pillow(file, part_of, how, on_misfit)


def _by_pillow(file: BinaryIO, part_of: Callable[[Size], int], how: Fit, on_misfit: ScaleCallback | None) -> Scaled:
    """Any image that Pillow reads, as `scaled` gives it."""
    with Image.open(file) as image:
        orientation, part, full = 1, 1, image.size[::-1]
        if image.format in ("JPEG", "MPO"):  # asked first: the orientation of a PNG is behind its pixels
            orientation = image.getexif().get(ORIENTATION, 1)
            full = image.size if orientation in TURNED else full
            part = part_of(full) if how.reader > 1 else 1
        if part > 1:
            image.draft(None, (image.width // part, image.height // part))
        with _alone if image.width * image.height > LARGE else nullcontext():
            whole = to_rgb(image, how, on_misfit)
    if part == 1:
        return Scaled(whole, whole.size[::-1])  # a PNG's orientation is known by now
    # The last pixel of a side may stand for less than `part` pixels of the file; turning puts it first.
    spare = [whole.size[1 - axis] - full[axis] / part for axis in (0, 1)]
    start = (spare[0] if orientation in MIRRORED_Y else 0.0, spare[1] if orientation in MIRRORED_X else 0.0)
    return Scaled(whole, full, part, start)


def read(
    path: Path | BinaryIO, size: Size | None = None, how: Fit = PLAIN, on_misfit: ScaleCallback | None = None
) -> np.ndarray:
    """An image file as `uint8[H, W, 3]`, at (height, width) where `size` is given.

    Args:
        path: The file.
        size: Height and width to bring it to; None to take it as it is.
        how: In which way.
        on_misfit: Called where the values of a deep image do not fit the scale of their type.

    Raises:
        OSError, ValueError, …: One of `Unreadable`: it is no image, or a damaged one.
    """
    return read_with_size(path, size, how, on_misfit)[0]


def read_with_size(
    path: Path | BinaryIO, size: Size | None = None, how: Fit = PLAIN, on_misfit: ScaleCallback | None = None
) -> tuple[np.ndarray, Size]:
    """The same, with the height and width that the image has in its file, turned by its orientation."""

    def part_of(full: Size) -> int:
        return 1 if size is None else _part(full, size, how)

    found = scaled(path, part_of, how, on_misfit)
    return found.fitted(size, how), found.full


HERE = Path(__file__).absolute().parent
REQUIRED = ("config.json", "golden.npz", "model.onnx", "parity.json")  # an empty manifest proves nothing

MORE = ("accepted", "prediction_set")  # outputs that a graph may have beside logits and probabilities


class Model:
    """`model.onnx`, opened, and what its `metadata_props` say."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry(
            "session.intra_op.allow_spinning", "0"
        )  # spinning threads starve other processes
        try:
            session = onnxruntime.InferenceSession(
                str(HERE / "model.onnx"), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions share no public base class
            if "Unsupported model IR version" in str(error) or "is under development" in str(error):
                config = json.loads((HERE / "config.json").read_text(encoding="utf-8"))
                _stop(config.get("export", {}).get("onnxruntime", "of its time"))
            raise
        self.session = session
        more = [output.name for output in session.get_outputs() if output.name in MORE]
        self.outputs = ["logits", "probabilities", *more]
        metadata = session.get_modelmeta().custom_metadata_map
        needed = json.loads(metadata.get("onnxruntime", '"0"'))
        if _release(onnxruntime.__version__) < _release(needed):  # it opens the file, and computes wrong numbers
            _stop(needed)
        image = json.loads(metadata["input"])
        names = json.loads(metadata["labels"])
        self.labels = [_shown(name) for name in names]
        self.thresholds = json.loads(metadata.get("thresholds", "null"))  # None: an image has exactly one label
        self.kind = image["kind"]
        self.size = (image["height"], image["width"]) if self.kind != "photo" else None  # None: it resizes itself
        self.fit = recorded(json.loads(metadata.get("preprocessing", "{}")))
        self.calibration = json.loads(metadata.get("calibration", "null"))
        self.half = json.loads(metadata.get("precision", "null")) == "fp16"
        self.rules = [json.loads(metadata.get(key, "null")) for key in ("abstention", "prediction_sets")]

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """Logits and probabilities, `float32[N, classes]` each, of `uint8[N, H, W, 3]`; N is 1 for photographs.

        Behind them are `accepted`, `bool[N]`, and `prediction_set`, `bool[N, classes]`, where the graph has them.
        """
        if self.kind == "float":
            images = np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32) / np.float32(255)
        found: list[np.ndarray] = self.session.run(self.outputs, {"images": images})
        return found

    def more(self, outputs: list[np.ndarray], order: np.ndarray) -> Iterator[str]:
        """Columns of the outputs behind logits and probabilities of one image; classes in this order."""
        for name, found in zip(self.outputs[2:], outputs[2:], strict=True):
            if name == "accepted":
                yield "yes" if found[0] else "no"
            else:
                yield "|".join(self.labels[index] for index in order if found[0, index])


def _shown(text: str) -> str:
    """A text on one line, with control characters escaped: a terminal would obey them."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _release(version: str) -> list[int]:
    return [int(part) for part in version.split(".")[:2] if part.isdecimal()]


def _stop(needed: str) -> NoReturn:
    """Prints which onnxruntime the graph needs and exits."""
    print(f"error: model.onnx needs onnxruntime {needed} or newer, this is {onnxruntime.__version__}", file=sys.stderr)
    print("hint: pip install --upgrade onnxruntime", file=sys.stderr)
    sys.exit(4)


def predict(files: list[Path], top: int | None) -> bool:
    """Prints a line for each image; returns whether all could be read."""
    model, complete = Model(), True
    notes: list[str] = []
    for file in files:
        try:
            image = read(file, model.size, model.fit, lambda kind, _: notes.append(kind))
        except Exception as error:  # a damaged file makes Pillow raise anything
            print("error", _shown(reason(error)), sep="\t")
            complete = False
            continue
        outputs = model.run(image[None])
        probabilities = outputs[1][0]
        if not np.isfinite(probabilities).all():
            print("error", "the network gives NaN or infinity for it", sep="\t")
            complete = False
            continue
        order = best = np.argsort(-probabilities, kind="stable")
        if model.thresholds is not None and top is None:
            best = best[(probabilities >= np.asarray(model.thresholds, np.float32))[best]]
        else:
            best = best[: top or 1]
        named = [f"{model.labels[index]}\t{probabilities[index]:.6f}" for index in best]
        print(*named, *model.more(outputs, order), sep="\t")
    for kind in sorted(set(notes)):
        print(f"warning: {notes.count(kind)} of {len(files)} images {kind}", file=sys.stderr)
    return complete


def verify() -> bool:
    """Prints a line for each check; returns whether all passed. The graph of an altered directory is not opened."""
    return _report("manifest.json", check_files) and _report("golden.npz", check_outputs)


def _report(what: str, check: Callable[[], Iterator[tuple[str, bool, str]]]) -> bool:
    every = True
    try:
        for name, passed, detail in check():
            print("ok" if passed else "FAILED", _shown(name), detail, sep="\t")
            every &= passed
    except Exception as error:  # whatever a damaged file leads to
        print("FAILED", what, _shown(reason(error)), sep="\t")
        every = False
    return every


def check_files() -> Iterator[tuple[str, bool, str]]:
    text = (HERE / "manifest.json").read_text(encoding="utf-8")
    manifest = json.loads(text)
    whole = manifest["kind"] == "bundle" and _has_its_checksum(manifest, text)
    yield "manifest.json", whole, "as exported" if whole else "altered"
    yield from ((name, False, "not listed") for name in REQUIRED if name not in manifest["files"])
    for name, entry in manifest["files"].items():
        path = HERE / name
        if not path.resolve().is_relative_to(HERE.resolve()):
            yield name, False, "points outside"
        elif not path.is_file():
            yield name, False, "missing"
        else:
            same = hashlib.sha256(path.read_bytes()).hexdigest() == entry["sha256"]
            yield name, same, "as exported" if same else "altered"


def _has_its_checksum(manifest: dict[str, object], text: str) -> bool:
    """Whether the manifest is as it was written; from schema 2 on `seal` is the sha256 of its text without `seal`."""
    if manifest["schema"] == 1 and "seal" not in manifest:
        return True
    rest = {key: value for key, value in manifest.items() if key != "seal"}
    return text == _dump(manifest) and manifest["seal"] == hashlib.sha256(_dump(rest).encode()).hexdigest()


def _dump(value: dict[str, object]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def check_outputs() -> Iterator[tuple[str, bool, str]]:
    model = Model()
    with np.load(HERE / "golden.npz") as golden:
        images, allowed = golden["images"], golden["allowed"]
        expected = golden["logits"], golden["probabilities"]
    for size in (1,) if model.kind == "photo" else (1, 2, 7, len(images)):
        parts = [model.run(images[start : start + size]) for start in range(0, len(images), size)]
        got = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
        logits, probabilities = (np.abs(a - b).max(1) for a, b in zip(got, expected, strict=False))
        difference = np.maximum(logits, probabilities - 2.0**-23)  # the rounding of a probability is no difference
        worst = int((difference / np.maximum(allowed, 1e-30)).argmax())  # both numbers belong to this image
        detail = f"image {worst} is closest to its limit: {difference[worst]:.2e} of {allowed[worst]:.2e} allowed"
        yield f"outputs at batch {size}", bool((difference <= allowed).all()), detail
    yield check_probabilities(model, *got[:2])
    yield from check_rules(model, got)
    if model.kind == "photo":
        yield from check_photographs(model)


def check_probabilities(model: Model, logits: np.ndarray, given: np.ndarray) -> tuple[str, bool, str]:
    """Whether the probabilities are those of the logits as the metadata say."""
    scaled = logits.astype(np.float64)
    if model.calibration is not None:
        scale, bias = model.calibration.get("scale", 1.0), model.calibration.get("bias", 0.0)
        scaled = scaled * np.asarray(scale) / model.calibration["temperature"] + np.asarray(bias)
    if model.thresholds is None:
        powers = np.exp(scaled - scaled.max(1, keepdims=True))
        expected = powers / powers.sum(1, keepdims=True)
        if model.calibration is not None and "smoothing" in model.calibration:
            level = model.calibration["smoothing"] / expected.shape[1]
            heights = expected - level + np.hypot(expected - level, level / 5)
            expected = heights / heights.sum(1, keepdims=True)
    else:
        small = np.exp(-np.abs(scaled))
        expected = np.where(scaled >= 0, 1.0, small) / (1.0 + small)
    difference = np.abs(expected - given).max(1)
    allowed = 2.0 ** (-9 if model.half else -20) * np.maximum(np.abs(scaled).max(1), 1.0)
    detail = f"those of the {'logits' if model.calibration is None else 'calibrated logits'}"
    passed = bool((difference <= allowed).all())
    return "probabilities", passed, f"{detail}, to {difference.max():.1e}" if passed else f"not {detail}"


def check_rules(model: Model, got: list[np.ndarray]) -> Iterator[tuple[str, bool, str]]:
    """Whether `accepted` and `prediction_set` follow from the probabilities as the metadata say."""
    probabilities, more = got[1], dict(zip(model.outputs[2:], got[2:], strict=True))
    abstention, sets = model.rules
    if abstention is not None or "accepted" in more:
        expected = probabilities.max(1) >= np.float32(abstention["threshold"])
        yield "accepted", np.array_equal(more["accepted"], expected), f"{int(expected.sum())} of {len(expected)} images"
    if sets is not None or "prediction_set" in more:
        right = True
        for chances, members in zip(probabilities, more["prediction_set"], strict=True):
            ahead = chances[None] > chances[:, None]  # of each class, the more probable ones
            places = np.maximum(ahead.sum(1) + 1 - sets["unpenalized"], 0)
            scores = (chances * ahead).sum(1) + sets["penalty"] * places
            close = np.abs(scores - sets["quantile"]) < 1e-5  # rounding may decide
            right &= bool((close | (members == (scores <= sets["quantile"]))).all())
        yield "prediction_set", right, f"{more['prediction_set'].sum(1).mean():.2f} classes on average"


def check_photographs(model: Model) -> Iterator[tuple[str, bool, str]]:
    with np.load(HERE / "golden.npz") as golden:
        for index, allowed in enumerate(golden["photo/allowed"]):
            photograph = golden[f"photo/{index}"]
            expected = golden["photo/logits"][index], golden["photo/probabilities"][index]
            got = model.run(photograph[None])
            difference = np.max([np.abs(a[0] - b).max() for a, b in zip(got, expected, strict=False)])
            height, width = photograph.shape[:2]
            detail = f"difference {difference:.2e} of {allowed:.2e} allowed"
            yield f"photograph of {height}×{width}", bool(difference <= allowed), detail


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", metavar="IMAGE", nargs="*", type=Path)
    parser.add_argument("--top", type=int, metavar="N", help="labels for an image, whatever their score")
    parser.add_argument("--verify", action="store_true", help="check this directory")
    arguments = parser.parse_args()
    if arguments.verify == bool(arguments.images) or (arguments.top is not None and arguments.top < 1):
        parser.error("give images (and --top, at least 1), or --verify")
    warnings.simplefilter("ignore")  # of Pillow about odd images: one is either read or an error
    return 0 if (verify() if arguments.verify else predict(arguments.images, arguments.top)) else 1


if __name__ == "__main__":
    sys.exit(main())
