"""Photographs for measurements: mosaics of enlarged pictures with noise; and what processes use of a machine."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = 10
QUALITY, NOISE = 90, 6  # of the JPEGs; standard deviation of the noise in levels


def make(folder: Path, pictures: Path, count: int, height: int, width: int, seed: int = 0) -> Path:
    """A folder of photographs, `train/<class>/*.jpg`; what is there already stays.

    Args:
        folder: Where `<height>x<width>` goes.
        pictures: A folder with small pictures, `train/<class>/*`.
        count: How many photographs.
        height, width: Their sides in pixels.
        seed: Of the choice and of the noise.
    """
    place = folder / f"{height}x{width}"
    sources = [sorted(kind.iterdir())[:200] for kind in sorted((pictures / "train").iterdir()) if kind.is_dir()]
    for number in range(count):
        for split, every in (("train", 1), ("test", 10)):
            label = number // every % min(CLASSES, len(sources))
            path = place / split / f"class{label}" / f"{number:06}.jpg"
            if number % every == 0 and not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                generator = np.random.default_rng((seed, number, every))
                _mosaic(generator, sources[label], height, width).save(path, quality=QUALITY)
    return place


def _mosaic(generator: np.random.Generator, sources: list[Path], height: int, width: int) -> Image.Image:
    """Sixteen tiles or so, each a picture enlarged."""
    whole, side = Image.new("RGB", (width, height)), max(8, width // 4)
    for top in range(0, height, side):
        for left in range(0, width, side):
            with Image.open(sources[generator.integers(len(sources))]) as tile:
                whole.paste(tile.convert("RGB").resize((side, side), Image.Resampling.BICUBIC), (left, top))
    noise = generator.standard_normal((height, width, 1), np.float32) * NOISE
    return Image.fromarray((np.asarray(whole, np.float32) + noise).clip(0, 255).astype(np.uint8))


def cpu_seconds() -> float:
    """Processor time of this process and of its children that have ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


@contextmanager
def peak_pss() -> Iterator[list[float]]:
    """Samples the proportional set size of this process and its descendants; the list holds the largest sum in MB."""
    found, done = [0.0], threading.Event()

    def sample() -> None:
        while not done.wait(1):
            found[0] = max(found[0], sum(map(_pss, _tree(os.getpid()))) / 1024)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()


def _tree(process: int) -> list[int]:
    try:
        children = Path(f"/proc/{process}/task").glob("*/children")
        return [process, *(one for each in children for child in each.read_text().split() for one in _tree(int(child)))]
    except OSError:
        return []


def _pss(process: int) -> int:
    """Kilobytes; 0 of a process that has ended."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
    except OSError:
        return 0
