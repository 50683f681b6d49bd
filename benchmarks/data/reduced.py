"""What the way images are kept does to accuracy: reduced once, decoded at one size, or decoded anew in every epoch.

python -m benchmarks.data.reduced --pictures DIR [--images 600] [--classes 4] [--seeds 3] [--epochs 10] [--size 64]

DIR holds small pictures, `train/<class>/*`. Of these it makes scenes of 240×320 to 480×640 pixels: one picture, a third
of the shorter side high, on a background of blurred ones. The class is that of the picture, so that a crop which
shows it with its pixels tells more than one that is enlarged. Every way has the same scenes, seeds and settings. First
come the pixels: how far crops of reduced photographs are from the same crops of whole ones, in levels of 255.

    none      every scene decoded in every epoch: crops have the pixels of the file
    reduced   scenes reduced to 8/7 of the training size: small crops are enlarged
    decoded   scenes at the training size: most crops are enlarged

A difference is that of two runs with the same seed. Few seeds give a wide interval; --images and --seeds narrow it.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter
from scipy import stats

from benchmarks.data.loading import index_of
from poolzoo.data.augment.crops import CropSampler
from poolzoo.data.streaming.photographs import Encoded, Reduced
from poolzoo.metrics.results import Metrics

MODES = ("none", "reduced", "decoded")
SIDES = ((240, 320), (320, 240), (360, 480), (480, 640))
SHARE = 3  # the shorter side through that of the picture
QUALITY, SAMPLE, PER_TEST = 90, 200, 2  # of the JPEGs; crops that are compared; training scenes for one to test on


def make_scenes(folder: Path, pictures: Path, count: int, classes: int) -> Path:
    """Scenes, `train/<class>/*.jpg` and half as many in `test`; what is there already stays."""
    folders = sorted(kind for kind in (pictures / "train").iterdir() if kind.is_dir())[:classes]
    kinds = [sorted(kind.iterdir()) for kind in folders]
    for split, number in (("train", count), ("test", count // PER_TEST)):
        for place in range(number):
            label = place % len(kinds)
            path = folder / split / f"class{label}" / f"{place:06}.jpg"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                # Pictures of one split are in no other.
                usable = [kind[split == "test" :: 2] for kind in kinds]
                generator = np.random.default_rng((place, split == "test"))
                _scene(generator, usable, label).save(path, quality=QUALITY)
    return folder


def _scene(generator: np.random.Generator, kinds: list[list[Path]], label: int) -> Image.Image:
    height, width = SIDES[generator.integers(len(SIDES))]
    whole, side = Image.new("RGB", (width, height)), min(height, width) // 2
    for top in range(0, height, side):
        for left in range(0, width, side):
            whole.paste(_picture(generator, kinds[generator.integers(len(kinds))], side), (left, top))
    whole = whole.filter(ImageFilter.GaussianBlur(side / 16))
    side = min(height, width) // SHARE
    picture = _picture(generator, kinds[label], side)
    whole.paste(picture, (int(generator.integers(width - side + 1)), int(generator.integers(height - side + 1))))
    return whole


def _picture(generator: np.random.Generator, files: list[Path], side: int) -> Image.Image:
    with Image.open(files[generator.integers(len(files))]) as picture:
        return picture.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)


def pixel_differences(folder: Path, size: int, scale: tuple[float, float]) -> np.ndarray:
    """Mean absolute differences of crops from reduced and from whole photographs in levels, `float64[n]`."""
    index = index_of(str(folder))
    whole, reduced = Encoded(index), Reduced(index, (size, size), None)
    sampler, found = CropSampler(scale, (3 / 4, 4 / 3), seed=0, epoch=1), []
    for position in range(min(SAMPLE, len(index))):
        one, other = (np.empty((size, size, 3), np.uint8) for _ in range(2))
        whole.crop(position, partial(sampler.box, position), one)
        reduced.crop(position, partial(sampler.box, position), other)
        found.append(np.abs(one.astype(int) - other).mean())
    return np.array(found)


def accuracy(folder: Path, mode: str, seed: int, given: argparse.Namespace, out: Path) -> float:
    """The test accuracy of a run with a seed, the images kept in one of the ways."""
    from poolzoo.common import output
    from poolzoo.train.run import finetune
    from poolzoo.train.settings import Settings

    settings = Settings(
        data=f"folder:{folder}",
        backbone=given.backbone,
        image_size=given.size,
        epochs=given.epochs,
        lr=given.lr,
        batch_size=32,
        seed=seed,
        split_seed=0,
        threads=2,
        augment="standard",
        color_jitter=0.0,
        crop_scale=given.scale,
        data_cache=mode,
    )
    with output.quiet():
        report = finetune(settings, out)
    assert report is not None
    assert isinstance(report.test, Metrics)
    return report.test.accuracy


def difference(ours: list[float], theirs: list[float]) -> str:
    """The mean paired difference in points, with its 95 % interval by Student's t."""
    pairs = [100 * (one - other) for one, other in zip(ours, theirs, strict=True)]
    mean = statistics.mean(pairs)
    if len(pairs) < 2:
        return f"{mean:+.2f}"
    half = float(stats.t.ppf(0.975, len(pairs) - 1)) * statistics.stdev(pairs) / math.sqrt(len(pairs))
    return f"{mean:+.2f} [{mean - half:+.2f}, {mean + half:+.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pictures", type=Path, required=True, metavar="DIR", help="holds train/<class>/*")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir(), "poolzoo-scenes"))
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--classes", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--lr", type=float, default=0.003)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--scale", default="0.08,1")
    parser.add_argument("--backbone", default="nano/plain")
    given = parser.parse_args()
    folder = make_scenes(given.folder / f"{given.images}-{given.classes}", given.pictures, given.images, given.classes)
    low, high = map(float, given.scale.split(","))
    levels = pixel_differences(folder, given.size, (low, high))
    print(f"{given.images} scenes of {given.classes} classes, {given.backbone} at {given.size}, crops of {given.scale}")
    print(f"crops of reduced scenes differ by {levels.mean():.2f} levels in the mean, {levels.max():.2f} at most")
    found: dict[str, list[float]] = {mode: [] for mode in MODES}
    cpu = time.process_time()
    with tempfile.TemporaryDirectory(dir=given.folder) as runs:
        for seed in range(given.seeds):
            for mode in MODES:
                found[mode].append(accuracy(folder, mode, seed, given, Path(runs, f"{mode}-{seed}")))
    print(f"{'':8} {'accuracy':>9} {'sd':>6}   points beside none, 95 % interval")
    for mode, values in found.items():
        sd = statistics.stdev(values) if len(values) > 1 else math.nan
        beside = "" if mode == "none" else difference(values, found["none"])
        print(f"{mode:8} {100 * statistics.mean(values):8.2f} {100 * sd:7.2f}   {beside}")
    print(f"{given.seeds} seeds, {given.epochs} epochs, {time.process_time() - cpu:.0f} CPU seconds of training")


if __name__ == "__main__":
    main()
