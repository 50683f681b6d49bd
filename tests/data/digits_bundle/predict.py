"""Labels images with the network in this directory. Needs onnxruntime, numpy and Pillow, nothing else.

python predict.py IMAGE...           a line an image, in order: its label and the score, or `error` and the reason
python predict.py --top 3 IMAGE...   the three most probable labels, each with its score, on that line
python predict.py --verify           whether the files and what the network computes are as they were exported

Columns are separated by tabs. The exit code is 1 where an image cannot be read or a check fails.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


@dataclass(frozen=True)
class Fit:
    """How an image of another size is brought to the wanted one, in timm's words.

    Attributes:
        interpolation: "bilinear" or "bicubic".
        crop_pct: Part of the shorter side that is kept of the centre; at 1 no margin is cut off.
    """

    interpolation: str = "bilinear"
    crop_pct: float = 1.0


PLAIN: Final = Fit()  # how data sets are fitted


def reason(error: Exception) -> str:
    """Why an image cannot be read, in one line, such as `No such file or directory`."""
    text = getattr(error, "strerror", None) or " ".join(str(error).split())
    return text if " " in text else f"{type(error).__name__}: {text}".removesuffix(": ")


def to_rgb(image: Image.Image) -> Image.Image:
    """Any image as RGB: turned by its EXIF orientation, first frame, alpha on white, 16 bits scaled to 8."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.float64)
        return Image.fromarray(np.rint(wide.clip(0, 65535) / 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":  # floating point: 0 to 1 by custom, else taken as 0 to 255
        pixels = np.asarray(image)
        scaled = pixels * (255 if np.nanmax(pixels) <= 1 else 1)
        return Image.fromarray(np.rint(np.nan_to_num(scaled).clip(0, 255)).astype(np.uint8)).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def fit(image: Image.Image, size: tuple[int, int], how: Fit = PLAIN) -> Image.Image:
    """An RGB image at (height, width): as it is, or with its shorter side resized and its centre cropped."""
    height, width = size
    if image.size == (width, height):
        return image
    filter = Image.Resampling[how.interpolation.upper()]
    return ImageOps.fit(image, (width, height), filter, bleed=(1 - how.crop_pct) / 2)


def read(path: Path, size: tuple[int, int] | None = None, how: Fit = PLAIN) -> np.ndarray:
    """An image file as `uint8[H, W, 3]`, at (height, width) where `size` is given.

    Raises:
        OSError, ValueError, SyntaxError, RuntimeError, DecompressionBombError: It is no image, or a damaged one.
    """
    with Image.open(path) as image:
        rgb = to_rgb(image)
    return np.asarray(rgb if size is None else fit(rgb, size, how))


HERE = Path(__file__).absolute().parent
REQUIRED = ("config.json", "golden.npz", "model.onnx", "parity.json")  # an emptied manifest vouches for nothing


class Model:
    """`model.onnx`, opened, and what its `metadata_props` say of it."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # leaves the cores to others
        self.session = onnxruntime.InferenceSession(HERE / "model.onnx", options, providers=["CPUExecutionProvider"])
        facts = self.session.get_modelmeta().custom_metadata_map
        given, how = json.loads(facts["input"]), json.loads(facts.get("preprocessing", "{}"))
        self.labels: list[str] = json.loads(facts["labels"])
        self.kind, self.size = given["kind"], (given["height"], given["width"])
        self.fit = Fit(how.get("interpolation", "bilinear"), how.get("crop_pct", 1.0))

    def run(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits and probabilities, `float32[N, classes]` each, of `uint8[N, H, W, 3]`."""
        if self.kind == "float":
            images = np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32) / np.float32(255)
        logits, probabilities = self.session.run(["logits", "probabilities"], {"images": images})
        return logits, probabilities


def predict(files: list[Path], top: int) -> bool:
    """Prints a line an image; whether all could be read."""
    model, complete = Model(), True
    for file in files:
        try:
            image = read(file, model.size, model.fit)
        except Exception as error:  # a damaged file makes Pillow raise anything
            print("error", reason(error), sep="\t")
            complete = False
            continue
        chances = model.run(image[None])[1][0]
        best = np.argsort(-chances, kind="stable")[:top]
        print(*(f"{model.labels[index]}\t{chances[index]:.6f}" for index in best), sep="\t")
    return complete


def verify() -> bool:
    """Prints a line a check; whether all passed. The graph of an altered directory is not opened."""
    return _report("manifest.json", files_as_listed) and _report("golden.npz", outputs_as_stored)


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


def files_as_listed() -> Iterator[tuple[str, bool, str]]:
    text = (HERE / "manifest.json").read_text(encoding="utf-8")
    manifest = json.loads(text)
    whole = manifest["kind"] == "bundle" and _sealed(manifest, text)
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


def _sealed(manifest: dict, text: str) -> bool:
    """Whether the manifest is as it was written; from schema 2 on it holds a hash of its own text without the hash."""
    if manifest["schema"] == 1 and "seal" not in manifest:
        return True
    rest = {key: value for key, value in manifest.items() if key != "seal"}
    return text == _dump(manifest) and manifest["seal"] == hashlib.sha256(_dump(rest).encode()).hexdigest()


def _dump(value: dict) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def outputs_as_stored() -> Iterator[tuple[str, bool, str]]:
    model = Model()
    with np.load(HERE / "golden.npz") as golden:
        images, allowed = golden["images"], golden["allowed"]
        expected = golden["logits"], golden["probabilities"]
    for size in (1, 2, 7, len(images)):
        parts = [model.run(images[start : start + size]) for start in range(0, len(images), size)]
        got = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
        error = np.maximum(*(np.abs(a - b).max(1) for a, b in zip(got, expected, strict=True)))
        detail = f"largest difference {error.max():.2e}, allowed {allowed.max():.2e}"
        yield f"outputs at batch {size}", bool((error <= allowed).all()), detail


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", metavar="IMAGE", nargs="*", type=Path)
    parser.add_argument("--top", type=int, default=1, metavar="N", help="labels an image")
    parser.add_argument("--verify", action="store_true", help="check this directory")
    arguments = parser.parse_args()
    if arguments.verify == bool(arguments.images) or arguments.top < 1:
        parser.error("give images (and --top, at least 1), or --verify")
    warnings.simplefilter("ignore")  # what Pillow says of odd images; one is either read or an error
    return 0 if (verify() if arguments.verify else predict(arguments.images, arguments.top)) else 1


if __name__ == "__main__":
    sys.exit(main())
