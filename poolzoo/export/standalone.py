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
import hashlib
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import numpy as np
import onnxruntime

from poolzoo.data.images import read, reason, recorded

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
