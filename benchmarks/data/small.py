"""Batches of small images in memory, by this tree and by another one of poolzoo, such as that of an earlier version.

python -m benchmarks.data.small --other DIR [--images 50000] [--size 32] [--batch 128] [--epochs 4] [--rounds 5]

Random images, mirrored and shifted by a sixteenth, to normalized `float32` batches, with one thread. Each tree has a
process of its own in every round, in shuffled order. An epoch warms it up, and its fastest epoch counts. Ratios above 1
say that this tree is faster.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parents[2]


def measure(images: int, size: int, batch: int, epochs: int) -> dict[str, float]:
    """Processor and wall seconds of the fastest epoch. It needs no more of poolzoo than earlier versions have."""
    import numpy as np
    import torch

    from poolzoo.common import allocator
    from poolzoo.data.batches import BatchLoader
    from poolzoo.model.network import Preprocess

    try:
        from poolzoo.data.augment.augmentation import Augmentation
    except ImportError:  # where it lay before it had a room
        from poolzoo.data.augmentation import Augmentation  # type: ignore[import-not-found, no-redef]

    torch.set_num_threads(1)
    allocator.keep()
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (images, size, size, 3), np.uint8)
    labels = generator.integers(0, 10, images)
    how = Augmentation(shift=size // 16, flip="alternating")
    loader = BatchLoader(pixels, labels, batch, how, seed=0, device=torch.device("cpu"))
    preprocess = Preprocess((0.5,) * 3, (0.25,) * 3, data_size=(size, size), image_size=(size, size))
    found: list[tuple[float, float, float]] = []
    for epoch in range(1, epochs + 2):
        times = [(time.process_time(), time.perf_counter())]
        for one in loader.epoch(epoch):
            preprocess(one.images)
        times.append((time.process_time(), time.perf_counter()))
        for _ in loader.epoch(epoch):
            pass
        alone = time.process_time() - times[1][0]
        found.append((times[1][0] - times[0][0], times[1][1] - times[0][1], alone))
    cpu, wall, alone = (min(column) for column in zip(*found[1:], strict=True))
    return {"cpu": cpu, "wall": wall, "loader": alone}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--other", type=Path, required=True, metavar="DIR", help="a tree of poolzoo")
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    arguments = {name: getattr(given, name) for name in ("images", "size", "batch", "epochs")}
    ratios: dict[str, list[float]] = {"cpu": [], "wall": [], "loader": []}
    for turn in range(given.rounds):
        found: dict[Path, dict[str, float]] = {}
        for tree in random.Random(turn).sample((HERE, given.other), 2):
            found[tree] = _in_process(tree, arguments)
        for name, values in ratios.items():
            values.append(found[given.other][name] / found[HERE][name])
        print({name: round(values[-1], 3) for name, values in ratios.items()}, flush=True)
    names = {"cpu": "CPU seconds", "wall": "wall seconds", "loader": "CPU seconds of the loader alone"}
    for name, values in ratios.items():
        print(f"{names[name]}: {statistics.median(values):.2f} times as fast as {given.other}")


def _in_process(tree: Path, arguments: dict[str, int]) -> dict[str, float]:
    """Runs `measure` on another tree: this file by its path, so that nothing else of this tree is found."""
    command = [sys.executable, "-P", __file__, json.dumps(arguments)]
    environment = {**os.environ, "PYTHONPATH": str(tree.absolute()), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1].startswith("{"):
        print(json.dumps(measure(**json.loads(sys.argv[1]))))
    else:
        main()
