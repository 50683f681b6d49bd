"""Photographs of odd sizes in a bundle's graph that resizes them itself, in each runtime, against training's resize.

    python -m benchmarks.export.photo BUNDLE FOLDER [--count 512] [--runtime NAME ...]

BUNDLE was exported with `--input photo`; FOLDER holds images of which photographs are made: enlarged, or side by side,
with parts of scikit-learn's two photographs, at sizes from 37 to 900. The oracle is Pillow's resize, and ONNX Runtime
with the same network for images of one size. Runtimes are the built-in ones, each in its process, as `verify` opens
them, but that the graph also gives what the network sees. A runtime that is not here is left out, with the reason.

At the end ONNX Runtime is timed on JPEGs, on one thread and in CPU time: decoding and the graph for photographs, over
decoding, Pillow's resize and the graph for images of one size.
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from poolzoo.common import timing
from poolzoo.common.errors import PoolzooError
from poolzoo.data import images as pixels
from poolzoo.data.walk import Tally, images_under
from poolzoo.plugin import loader
from poolzoo.runtime import availability, ort_session, photo_input, runtimes
from poolzoo.runtime import photo_graph as photo
from poolzoo.runtime.limits import Limits
from poolzoo.runtime.prepare import prepare
from poolzoo.runtime.process import RuntimeProcess

RUNTIMES: Final = ("onnxruntime", "openvino", "opencv", "tract", "mnn", "iree", "onnxruntime-web")
LIMITS: Final = Limits(seconds=300.0, memory=8 << 30)  # of opening, converting or a photograph; of a process
SMALLEST, LARGEST = 37, 900
SIDES: Final = ((300, 400), (500, 375), (900, 900), (1200, 1600), (3000, 4000))  # that are timed
HEADERS: Final = ("runtime", "photographs", "flips", "largest", "mean", "> 1 level", "differing")
QUALITY: Final = 90  # of the JPEGs that are timed


def photographs(folder: Path, count: int) -> Iterator[np.ndarray]:
    """Photographs of odd sizes, `uint8[H, W, 3]`, the same for the same folder."""
    generator = np.random.default_rng(0)
    files = list(images_under(folder, Tally()))
    scenes = _scenes()
    for index in range(count):
        height, width = (int(side) for side in np.exp(generator.uniform(np.log(SMALLEST), np.log(LARGEST), 2)))
        small = Image.open(files[int(generator.integers(len(files)))]).convert("RGB")
        if index % 3 == 0 and scenes:
            scene = scenes[int(generator.integers(len(scenes)))]
            height, width = min(height, scene.height), min(width, scene.width)
            left, top = (int(generator.integers(most + 1)) for most in (scene.width - width, scene.height - height))
            yield np.asarray(scene.crop((left, top, left + width, top + height)))
        elif index % 3 == 1:
            yield np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))
        else:
            grid = Image.new("RGB", (width, height))
            for top in range(0, height, small.height):
                for left in range(0, width, small.width):
                    grid.paste(Image.open(files[int(generator.integers(len(files)))]).convert("RGB"), (left, top))
            yield np.asarray(grid)


def _scenes() -> list[Image.Image]:
    try:
        from sklearn.datasets import load_sample_images
    except ImportError:
        return []
    return [Image.fromarray(one) for one in load_sample_images().images]


@dataclass(frozen=True)
class Oracle:
    """What each photograph is after Pillow's resize, `uint8[N, h, w, 3]`, and the network's label for that."""

    fitted: np.ndarray
    labels: np.ndarray


def compare(bundle: Path, folder: Path, count: int, names: list[str]) -> None:
    """Prints a row for each runtime, and how long ONNX Runtime takes beside Pillow's resize and the other graph."""
    model = onnx.load(bundle / "model.onnx")
    made = list(photographs(folder, count))
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        onnx.save(photo.without_photo_input(model), work / "stored.onnx")
        stored = ort_session.open_model(work / "stored.onnx", threads=1)
        fitted = np.stack([_fitted(one, stored) for one in made])
        logits, _ = ort_session.run_in_batches(stored, fitted)
        oracle = Oracle(fitted, logits.argmax(1))
        seen = work / "seen"
        seen.mkdir()
        shutil.copyfile(bundle / "config.json", seen / "config.json")
        onnx.save(_with_pixels(model), seen / "model.onnx")
        print(f"{count} photographs of {SMALLEST} to {LARGEST} pixels a side to {stored.size}, {stored.fit}")
        print(*HEADERS, sep="\t")
        for name in names:
            try:
                print(*_row(name, seen, work / name, made, oracle), sep="\t", flush=True)
            except PoolzooError as error:
                print(name, error.message[:300], sep="\t", flush=True)
        _print_speed(bundle, stored)


def _row(name: str, bundle: Path, work: Path, made: list[np.ndarray], oracle: Oracle) -> tuple[object, ...]:
    """What a runtime makes of the photographs."""
    entry = loader.catalog().runtime(name)
    flips, histogram = 0, np.zeros(256, np.int64)  # of how many levels a value is off
    with RuntimeProcess(entry, threads=1, limits=LIMITS) as process:
        prepared = prepare(bundle, entry, work, process=process)
        process.open(prepared.directory, batch=prepared.batch)
        for photograph, fitted, label in zip(made, oracle.fitted, oracle.labels, strict=True):
            pixels_and_logits = process.run(photograph[None]).logits[0]
            found = pixels_and_logits[: fitted.size].reshape(fitted.shape)
            off = np.abs(found - fitted.astype(np.float32)).round().astype(np.int64)
            histogram += np.bincount(off.ravel(), minlength=256)
            flips += int(pixels_and_logits[fitted.size :].argmax() != label)
    release = availability.find(runtimes.runtime_of(entry)).version
    share = histogram / histogram.sum()
    mean = float((share * np.arange(256)).sum())
    shares = f"{share[2:].sum():.4%}", f"{share[1:].sum():.2%}"
    return f"{name} {release}", len(made), flips, int(histogram.nonzero()[0].max()), f"{mean:.4f}", *shares


def _fitted(photograph: np.ndarray, stored: ort_session.OnnxModel) -> np.ndarray:
    return np.asarray(pixels.fit(Image.fromarray(photograph), stored.size, stored.fit))


def _with_pixels(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph whose outputs each begin with what the network sees of the photograph, flattened."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    made.graph.initializer.append(numpy_helper.from_array(np.array([1, -1]), "seen_shape"))
    made.graph.node.append(helper.make_node("Cast", [photo_input.PIXELS], ["seen_levels"], to=TensorProto.FLOAT))
    made.graph.node.append(helper.make_node("Reshape", ["seen_levels", "seen_shape"], ["seen"]))
    for output in made.graph.output:
        own = f"own_{output.name}"
        for node in made.graph.node:
            node.input[:] = [own if name == output.name else name for name in node.input]
            node.output[:] = [own if name == output.name else name for name in node.output]
        made.graph.node.append(helper.make_node("Concat", ["seen", own], [output.name], axis=1))
        output.type.tensor_type.shape.dim[1].Clear()
    del made.graph.value_info[:]
    return made


def _print_speed(bundle: Path, stored: ort_session.OnnxModel) -> None:
    """Prints the time of the graph over that of Pillow's resize and the graph for images of one size."""
    graph = ort_session.open_model(bundle / "model.onnx", threads=1)
    print("photograph", "JPEG, Pillow and graph, ms", "JPEG and photo graph, ms", "ratio", "without decoding", sep="\t")
    for height, width in SIDES:
        image = _timed(height, width)
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=QUALITY)
        content = file.getvalue()

        def decoded(content: bytes = content) -> np.ndarray:
            return pixels.read(io.BytesIO(content))

        calls: dict[str, Callable[[], object]] = {
            "pillow": lambda: stored.run(_fitted(decoded(), stored)[None]),
            "photo": lambda: graph.run(decoded()[None]),
            "pillow alone": lambda image=image: stored.run(_fitted(image, stored)[None]),
            "photo alone": lambda image=image: graph.run(image[None]),
        }
        times = timing.interleaved(calls, 8.0, time.process_time)
        row = [f"{float(np.median(times[name])):.2f}" for name in ("pillow", "photo")]
        ratios = [timing.ratio(times[f"photo{part}"], times[f"pillow{part}"]) for part in ("", " alone")]
        print(f"{height}×{width}", *row, *(f"{one:.2f}" for one in ratios), sep="\t", flush=True)


def _timed(height: int, width: int) -> np.ndarray:
    """A photograph to time: a smooth one with some noise, as one from a camera is."""
    generator = np.random.default_rng(0)
    coarse = Image.fromarray(generator.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    return np.clip(smooth + generator.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--count", type=int, default=512)
    parser.add_argument("--runtime", nargs="*", default=RUNTIMES, metavar="NAME", help="default: " + " ".join(RUNTIMES))
    arguments = parser.parse_args()
    compare(arguments.bundle, arguments.folder, arguments.count, arguments.runtime)


if __name__ == "__main__":
    main()
