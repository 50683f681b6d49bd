"""Photographs of odd sizes in a bundle's graph that resizes them itself, in each runtime, against training's resize.

    python -m benchmarks.export.photo BUNDLE FOLDER [--count 512] [--runtime NAME ...]

BUNDLE was exported with `--input photo`; FOLDER holds images of which photographs are made: enlarged, or side by side,
with parts of scikit-learn's two photographs, at sizes from 37 to 900. The oracle is Pillow's resize, and ONNX Runtime
with the same network for images of one size. Runtimes that are not installed are left out, with the reason.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper
from PIL import Image

from benchmarks.export.photo_runtimes import NODE, OPENED
from poolzoo.common import timing
from poolzoo.data import images as pixels
from poolzoo.data.walk import Tally, images_under
from poolzoo.runtime import ort_session, photo_input
from poolzoo.runtime import photo_graph as photo

SMALLEST, LARGEST = 37, 900
DENSE: Final = ("tract",)  # runtimes that refuse dynamic slices
SIDES: Final = ((300, 400), (500, 375), (900, 900), (1200, 1600), (3000, 4000))  # that are timed
HEADERS: Final = ("runtime", "photographs", "flips", "largest", "mean", "> 1 level", "differing")


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


def compare(bundle: Path, folder: Path, count: int, runtimes: list[str]) -> None:
    """Prints a row for each runtime, and how long ONNX Runtime takes beside Pillow's resize and the other graph."""
    model = onnx.load(bundle / "model.onnx")
    stored_graph = photo.without_photo_input(model)
    made = list(photographs(folder, count))
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        onnx.save(stored_graph, work / "stored.onnx")
        stored = ort_session.open_model(work / "stored.onnx", threads=1)
        fitted = np.stack([_fitted(one, stored) for one in made])
        logits, _ = ort_session.run_in_batches(stored, fitted)
        np.savez(work / "photographs.npz", **{str(index): one for index, one in enumerate(made)})
        print(f"{count} photographs of {SMALLEST} to {LARGEST} pixels a side to {stored.size}, {stored.fit}")
        print(*HEADERS, sep="\t")
        for name in runtimes:
            onnx.save(_with_pixels(stored_graph, stored.size, dense=name in DENSE), work / "model.onnx")
            command = [sys.executable, str(Path(__file__).with_name("photo_runtimes.py")), name, str(work)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                lines = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
                print(name, lines[-1][:200], sep="\t")
                continue
            with np.load(work / f"{name}.npz") as found:
                levels = np.abs(found["pixels"] - fitted.astype(np.float32))
                flips = int((found["logits"].argmax(1) != logits.argmax(1)).sum())
                release = str(found["version"])
            share = f"{(levels > 1).mean():.4%}", f"{(levels > 0).mean():.2%}"
            row = (f"{name} {release}", len(made), flips, int(levels.max()), f"{levels.mean():.4f}", *share)
            print(*row, sep="\t", flush=True)
        _print_speed(bundle, stored)


def _fitted(photograph: np.ndarray, stored: ort_session.OnnxModel) -> np.ndarray:
    return np.asarray(pixels.fit(Image.fromarray(photograph), stored.size, stored.fit))


def _with_pixels(stored: onnx.ModelProto, size: tuple[int, int], *, dense: bool) -> onnx.ModelProto:
    """The graph that takes photographs, whose outputs are what the network sees of them, and the logits."""
    model = photo.with_photo_input(stored, dense=dense)
    seen = helper.make_tensor_value_info(photo_input.PIXELS, TensorProto.FLOAT, [1, *size, 3])
    kept = [seen, *(one for one in model.graph.output if one.name == "logits")]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    return model


def _print_speed(bundle: Path, stored: ort_session.OnnxModel) -> None:
    """Prints the time of the graph over that of Pillow's resize and the graph for images of one size."""
    graph = ort_session.open_model(bundle / "model.onnx", threads=1)
    print("photograph", "Pillow and graph, ms", "photo graph, ms", "ratio", sep="\t")
    for height, width in SIDES:
        image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        calls = {
            "pillow": lambda image=image: stored.run(_fitted(image, stored)[None]),
            "photo": lambda image=image: graph.run(image[None]),
        }
        times = timing.interleaved(calls, 4.0)
        peer, ours = (float(np.median(times[name])) for name in ("pillow", "photo"))
        print(
            f"{height}×{width}",
            f"{peer:.2f}",
            f"{ours:.2f}",
            f"{timing.ratio(times['photo'], times['pillow']):.2f}",
            sep="\t",
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--count", type=int, default=512)
    parser.add_argument("--runtime", nargs="*", default=[*OPENED, NODE], choices=[*OPENED, NODE])
    arguments = parser.parse_args()
    compare(arguments.bundle, arguments.folder, arguments.count, arguments.runtime)


if __name__ == "__main__":
    main()
