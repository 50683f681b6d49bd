"""Directories of finished comparisons with planted accuracies: their table, their runs and the images they saw."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from poolzoo.common import files
from poolzoo.compare import statistics
from poolzoo.data.identity import FILE, DataIdentity, SplitIdentity
from poolzoo.report.results import ComparisonResult, Data, SeedResult, VariantResult


def correct(rng: np.random.Generator, chances: Mapping[str, float], seeds: int, images: int) -> dict:
    """Which images are right by variant and seed, with a chance for each variant; the easy images are easy for all."""
    level = rng.random(images)
    return {
        name: {seed: np.where(rng.random(images) < 0.3, rng.random(images), level) < chance for seed in range(seeds)}
        for name, chance in chances.items()
    }


def planted(
    folder: Path,
    chances: Mapping[str, float],
    data: str,
    seeds: int = 3,
    images: int = 250,
    baseline: str = "avg",
    local: bool = False,
    seed: int = 0,
) -> Path:
    """A finished comparison of poolings that are right with the given chance.

    Args:
        folder: Its directory.
        chances: By pooling.
        data: The name of its data, which also decides what its test images are.
        seeds, images: Their numbers.
        baseline: Its baseline.
        local: Whether poolings other than the baseline are local ones, behind the head `avg`.
        seed: Of everything random.
    """
    rng = np.random.default_rng([seed, len(data), *data.encode()])
    names = {name if name == baseline or not local else f"avg + {name}": name for name in chances}
    right = correct(rng, {shown: chances[name] for shown, name in names.items()}, seeds, images)
    found = statistics.compare(right, baseline, resamples=1999)
    rows = []
    for name, one in found.variants.items():
        runs = [folder / "trials" / f"{names[name]}-{number}" for number in right[name]]
        for run, row in zip(runs, right[name].values(), strict=True):
            run.mkdir(parents=True)
            np.savez(run / "predictions.npz", predicted=row.astype(int), labels=np.ones(images, int))
        rows.append(
            VariantResult(
                pool="avg" if local else name,
                local_pool=names[name] if local and name != baseline else None,
                backbone="nano/resnet",
                status="done",
                accuracy=one.accuracy,
                delta=one.delta,
                rank=one.rank,
                per_seed=[
                    SeedResult(number, float(row.mean()), None, str(run))
                    for (number, row), run in zip(right[name].items(), runs, strict=True)
                ],
            )
        )
    digests = np.random.default_rng([*data.encode()]).integers(0, 256, (images, 8), dtype=np.uint8)
    identity = DataIdentity({"test": SplitIdentity(digests, np.ones(images, np.int64))}, ("no", "yes"))
    identity.save(folder / FILE)
    result = ComparisonResult(
        schema=1, baseline=baseline, alpha=0.05, started=str(folder), data=Data(name=data, n_test=images), results=rows
    )
    files.write_json(folder / "compare.json", result.to_json())
    return folder
