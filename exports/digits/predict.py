"""Labels images with the network in this directory. Needs onnxruntime, numpy and Pillow, nothing else.

python predict.py IMAGE...           a line for each image, in order: its label and score, or `error` and the reason
python predict.py --top 3 IMAGE...   the three most probable labels, each with its score, on that line
python predict.py --verify           check that files and outputs are as exported

Columns are separated by tabs. The exit code is 1 where an image cannot be read or a check fails, and 4 where the
installed onnxruntime is too old.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, NoReturn

import numpy as np
import onnxruntime
from PIL import Image, ImageOps, UnidentifiedImageError

Size = tuple[int, int]


def plain(size: Size) -> int | str:
    """A size as settings keep it and `--image-size` takes it: a number for a square, else `HEIGHTxWIDTH`."""
    return size[0] if size[0] == size[1] else f"{size[0]}x{size[1]}"


READER: Final = 2  # the rules by which files become pixels; what was trained by older ones is read by them again


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
    """The fit that a run's or a bundle's description holds; where an older one says nothing, what was done then."""
    return Fit(facts.get("interpolation", "bilinear"), facts.get("crop_pct", 1.0), facts.get("reader", 1))


Tags = Mapping[int, Any]
ScaleCallback = Callable[
    [str, str], None
]  # gets, of an image whose values do not fit the scale, which way and the values

OUTSIDE: Final = "have many pixels outside of the scale of their type, which become black or white"
NARROW: Final = "use a quarter or less of the scale of their type"
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
    values, white = _values(image, tags)
    finite = np.isfinite(values)
    if not finite.any():
        raise ValueError("no pixel is a finite number")
    if on_misfit is not None:
        _report_misfit(values, finite, white, on_misfit)
    scaled = np.nan_to_num(values).clip(0, white) * (255 / white)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO and image.mode != "L":  # Pillow inverts eight bits alone
        scaled = 255 - scaled
    return Image.fromarray(np.rint(scaled).astype(np.uint8))


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
    """The pixels, `float[H, W]`, and the value that is white."""
    pixels = np.asarray(image)
    if image.mode == "F":
        shown = pixels[np.isfinite(pixels)]
        return pixels, 1.0 if shown.size and shown.max() <= 1 else 255.0
    if image.mode == "L":
        return pixels.view(np.int8).astype(np.float64), 127.0
    signed = tags.get(_FORMAT, (1,))[0] == _SIGNED
    bits = tags.get(_BITS, (16,))[0]  # what is no TIFF comes at 16 bits, in whatever mode
    if bits == 32 and not signed:
        pixels = pixels.view(np.uint32)
    return pixels.astype(np.float64), float(2 ** (bits - signed) - 1)


def _report_misfit(values: np.ndarray, finite: np.ndarray, white: float, on_misfit: ScaleCallback) -> None:
    shown = values[finite]
    low, high = float(shown.min()), float(shown.max())
    outside = 1 - np.count_nonzero((shown >= 0) & (shown <= white)) / values.size
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
    start = file.read(len(START))
    if simplejpeg is not None and start == START:
        content = start + file.read()
        with suppress(ValueError):
            height, width, colors, _ = simplejpeg.decode_jpeg_header(content)
            if colors in COLORS and height * width <= (Image.MAX_IMAGE_PIXELS or 0) and not _turned(content):
                return PlainJpeg(content, height, width)
    file.seek(0)
    return None


def _turned(content: bytes) -> bool:
    """Whether the metadata may say that the image is to be turned."""
    if not any(name in content for name in _METADATA):
        return False
    with suppress(Exception), Image.open(BytesIO(content)) as image:  # damaged metadata makes Pillow raise anything
        return bool(image.getexif().get(ORIENTATION, 1) != 1)
    return True


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


def _fit_part(small: Image.Image, part: int, full: Size, wanted: Size, how: Fit, orientation: int = 1) -> Image.Image:
    """An image that was decoded at one part of its full size (height, width), resized and cropped."""
    side = _pixels(full, wanted, how)
    # The last pixel of a side may stand for less than `part` pixels of the file; turning puts it first.
    box = []
    for axis, mirrored in ((1, MIRRORED_X), (0, MIRRORED_Y)):
        length = small.size[1 - axis]
        spare = length - full[axis] / part if orientation in mirrored else 0
        start = spare + max(0.0, (full[axis] - wanted[axis] * side) / part / 2)
        box.append((start, min(start + wanted[axis] * side / part, length)))  # a rounding may lead outside
    return small.resize(wanted[::-1], _filter(how), (box[0][0], box[1][0], box[0][1], box[1][1]))


def _by_pillow(file: BinaryIO, size: Size | None, how: Fit, on_misfit: ScaleCallback | None) -> tuple[np.ndarray, Size]:
    """Any image that Pillow reads, as `read_with_size` gives it."""
    with Image.open(file) as image:
        orientation, part, full = 1, 1, image.size[::-1]
        if image.format in ("JPEG", "MPO"):  # asked first: the orientation of a PNG is behind its pixels
            orientation = image.getexif().get(ORIENTATION, 1)
            full = image.size if orientation in TURNED else full
            part = _part(full, size, how) if size is not None and how.reader > 1 else 1
        if part > 1:
            image.draft(None, (image.width // part, image.height // part))
        whole = to_rgb(image, how, on_misfit)
        if part == 1:
            full = whole.size[::-1]  # a PNG's orientation is known by now
            return np.asarray(whole if size is None else fit(whole, size, how)), full
        assert size is not None
        return np.asarray(_fit_part(whole, part, full, size, how, orientation)), full


def _by_simplejpeg(plain: PlainJpeg, size: Size | None, how: Fit) -> np.ndarray | None:
    """The same of a plain JPEG; None where Pillow is to say what is wrong with it."""
    full = plain.height, plain.width
    part = _part(full, size, how) if size is not None and how.reader > 1 else 1
    pixels = plain.decode(part)
    if pixels is None or size is None or (part == 1 and full == size):
        return pixels
    small = Image.fromarray(pixels)
    return np.asarray(fit(small, size, how) if part == 1 else _fit_part(small, part, full, size, how))


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
    with_heif()
    with _opened(path) as file:
        if (plain := plain_jpeg(file)) is not None:
            if (pixels := _by_simplejpeg(plain, size, how)) is not None:
                return pixels, (plain.height, plain.width)
            file.seek(0)
        return _by_pillow(file, size, how, on_misfit)


@contextmanager
def _opened(path: Path | BinaryIO) -> Iterator[BinaryIO]:
    if not isinstance(path, Path):
        yield path
        return
    with path.open("rb") as file:
        yield file


HERE = Path(__file__).absolute().parent
REQUIRED = ("config.json", "golden.npz", "model.onnx", "parity.json")  # an empty manifest proves nothing


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
        metadata = session.get_modelmeta().custom_metadata_map
        needed = json.loads(metadata.get("onnxruntime", '"0"'))
        if _release(onnxruntime.__version__) < _release(needed):  # it opens the file, and computes wrong numbers
            _stop(needed)
        image = json.loads(metadata["input"])
        names = json.loads(metadata["labels"])
        # Control characters are escaped: a terminal would obey them.
        self.labels = ["".join(c if c.isprintable() else ascii(c)[1:-1] for c in name) for name in names]
        self.kind = image["kind"]
        self.size = (image["height"], image["width"]) if self.kind != "photo" else None  # None: it resizes itself
        self.fit = recorded(json.loads(metadata.get("preprocessing", "{}")))

    def run(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits and probabilities, `float32[N, classes]` each, of `uint8[N, H, W, 3]`; N is 1 for photographs."""
        if self.kind == "float":
            images = np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32) / np.float32(255)
        logits, probabilities = self.session.run(["logits", "probabilities"], {"images": images})
        return logits, probabilities


def _release(version: str) -> list[int]:
    return [int(part) for part in version.split(".")[:2] if part.isdecimal()]


def _stop(needed: str) -> NoReturn:
    """Prints which onnxruntime the graph needs and exits."""
    print(f"error: model.onnx needs onnxruntime {needed} or newer, this is {onnxruntime.__version__}", file=sys.stderr)
    print("hint: pip install --upgrade onnxruntime", file=sys.stderr)
    sys.exit(4)


def predict(files: list[Path], top: int) -> bool:
    """Prints a line for each image; returns whether all could be read."""
    model, complete = Model(), True
    notes: list[str] = []
    for file in files:
        try:
            image = read(file, model.size, model.fit, lambda kind, _: notes.append(kind))
        except Exception as error:  # a damaged file makes Pillow raise anything
            print("error", reason(error), sep="\t")
            complete = False
            continue
        probabilities = model.run(image[None])[1][0]
        if not np.isfinite(probabilities).all():
            print("error", "the network gives NaN or infinity for it", sep="\t")
            complete = False
            continue
        best = np.argsort(-probabilities, kind="stable")[:top]
        print(*(f"{model.labels[index]}\t{probabilities[index]:.6f}" for index in best), sep="\t")
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
            print("ok" if passed else "FAILED", name, detail, sep="\t")
            every &= passed
    except Exception as error:  # whatever a damaged file leads to
        print("FAILED", what, reason(error), sep="\t")
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
        difference = np.maximum(*(np.abs(a - b).max(1) for a, b in zip(got, expected, strict=True)))
        worst = int((difference / np.maximum(allowed, 1e-30)).argmax())  # both numbers belong to this image
        detail = f"image {worst} is closest to its limit: {difference[worst]:.2e} of {allowed[worst]:.2e} allowed"
        yield f"outputs at batch {size}", bool((difference <= allowed).all()), detail
    if model.kind == "photo":
        yield from check_photographs(model)


def check_photographs(model: Model) -> Iterator[tuple[str, bool, str]]:
    with np.load(HERE / "golden.npz") as golden:
        for index, allowed in enumerate(golden["photo/allowed"]):
            photograph = golden[f"photo/{index}"]
            expected = golden["photo/logits"][index], golden["photo/probabilities"][index]
            got = model.run(photograph[None])
            difference = np.max([np.abs(a[0] - b).max() for a, b in zip(got, expected, strict=True)])
            height, width = photograph.shape[:2]
            detail = f"difference {difference:.2e} of {allowed:.2e} allowed"
            yield f"photograph of {height}×{width}", bool(difference <= allowed), detail


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", metavar="IMAGE", nargs="*", type=Path)
    parser.add_argument("--top", type=int, default=1, metavar="N", help="labels for an image")
    parser.add_argument("--verify", action="store_true", help="check this directory")
    arguments = parser.parse_args()
    if arguments.verify == bool(arguments.images) or arguments.top < 1:
        parser.error("give images (and --top, at least 1), or --verify")
    warnings.simplefilter("ignore")  # of Pillow about odd images: one is either read or an error
    return 0 if (verify() if arguments.verify else predict(arguments.images, arguments.top)) else 1


if __name__ == "__main__":
    sys.exit(main())
