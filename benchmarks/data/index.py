"""A data set of a million photographs: seconds from the command to the end of the first training step, and peak memory.

python -m benchmarks.data.index --pictures DIR [--images 1280000] [--classes 1000]

DIR holds small pictures, `train/<class>/*`. The photographs are hard links to one of 375×500 for each class, with as
many links to test on as there are classes. Reading them takes what as many files would take from a warm file cache.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.data import photographs
from benchmarks.train import peers


def links(folder: Path, pictures: Path, images: int, classes: int) -> Path:
    """A folder of hard links, `train/<class>/*` and `test/<class>/*`; what is there already stays."""
    base = sorted((photographs.make(folder / "base", pictures, min(classes, 50), 375, 500) / "train").glob("*/*"))
    place = folder / f"links-{images}-{classes}"
    if place.is_dir():
        return place
    for label in range(classes):
        original = base[label % len(base)].read_bytes()
        for split, count in (("train", images // classes), ("test", 1)):
            kind = place / split / f"class{label:05}"
            kind.mkdir(parents=True)
            (kind / "ILSVRC2012_00000000.JPEG").write_bytes(original)
            for number in range(1, count):
                os.link(kind / "ILSVRC2012_00000000.JPEG", kind / f"ILSVRC2012_{number:08}.JPEG")
    return place


def first_step(folder: str, cache: str, data_cache: str) -> dict[str, Any]:
    """Trains one step, and gives the seconds of each stage and the peak memory."""
    stages: dict[str, float] = {}
    with photographs.peak_pss() as pss:
        import torch

        from poolzoo.train.build import build_engine
        from poolzoo.train.checkpoint import Checkpoint, RunIdentity
        from poolzoo.train.prepare import prepare
        from poolzoo.train.settings import Settings

        os.environ["POOLZOO_CACHE"] = cache
        started, stages["imports"] = time.perf_counter(), time.process_time()
        settings = Settings(
            data=f"folder:{folder}",
            backbone="timm/mobilenetv3_small_050",
            image_size=224,
            epochs=1,
            batch_size=64,
            threads=2,
            data_cache=data_cache,
        )
        prepared = prepare(settings)
        stages["prepared"] = time.perf_counter() - started
        before = peers.peak_mb()
        engine = build_engine([prepared], Checkpoint(Path(cache), RunIdentity({}, prepared.data.identity.digest)))
        prepared.data.identity.save(Path(cache) / "data.npz")
        (module,) = engine.modules.values()
        module.start_epoch(1)
        batches = engine.loader.epoch(1)
        module.step(next(iter(batches)), 0)
        torch.zeros(1).item()
        stages["first step"] = time.perf_counter() - started
        stages["cpu"] = time.process_time()
        del batches
    saved = (Path(cache) / "data.npz").stat().st_size
    found = {"pss": pss[0], "before": before, "peak": peers.peak_mb(), "saved": saved}
    return {"stages": stages, "images": len(prepared.data.images), **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pictures", type=Path, required=True, metavar="DIR", help="holds train/<class>/*")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir(), "poolzoo-photographs"))
    parser.add_argument("--images", type=int, default=1_280_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--data-cache", default="auto")
    given = parser.parse_args()
    folder = links(given.folder, given.pictures, given.images, given.classes)
    with tempfile.TemporaryDirectory(dir=given.folder) as cache:
        arguments = {"folder": str(folder), "cache": cache, "data_cache": given.data_cache}
        started = time.perf_counter()
        found = peers.elsewhere("benchmarks.data.index:first_step", arguments, show_stderr=True)
        seconds = time.perf_counter() - started
    stages = ", ".join(f"{name} {value:.1f} s" for name, value in found["stages"].items())
    print(f"{found['images']:,} photographs: {seconds:.1f} s with imports; {stages}")
    print(
        f"peak memory {found['peak']:.0f} MB (PSS of all processes {found['pss']:.0f} MB), "
        f"{found['before']:.0f} MB before the step of 64 images; {found['saved']:,} bytes saved"
    )


if __name__ == "__main__":
    main()
