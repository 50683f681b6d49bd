"""`poolzoo report`: the same page from runs that were done one at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from poolzoo.artifacts import manifest
from poolzoo.common import files
from poolzoo.common.errors import UsageError
from poolzoo.compare import grid, measures, table, trial
from poolzoo.compare.grid import Trial, Variant
from poolzoo.data.identity import FILE, DataIdentity
from poolzoo.train.settings import Settings, read_run_settings

Record = dict[str, Any]
# What may differ between the runs of one table: what is compared, the luck, and where it was computed.
FREE = ("backbone", "pool", "local_pool", "seed", "device", "threads", "plugins", "split_seed")
# What tells one set of test images from another: a label for each, and a sample of the images themselves.
TESTED = (("predictions.npz", "labels"), ("samples.npz", "test_images"))


def found(paths: Sequence[Path], baseline: str | None, alpha: float) -> Record:
    """What `compare.json` holds, for finished runs.

    Raises:
        UsageError: There is no such run, one is there twice, or they were not tested on the same images.
        CheckFailed: One is damaged.
    """
    records: dict[str, Record] = {}
    trials: list[Trial] = []
    settings: list[tuple[Path, Settings]] = []
    for path in paths:
        manifest.check(path, "run")
        if not (path / "predictions.npz").is_file():
            raise UsageError(f"{path} does not say what it predicted", "train it again with this version of poolzoo")
        own = read_run_settings(path)
        one = Trial(Variant(own.backbone, own.pool, own.local_pool), own.seed)
        if one.key in records:
            text = f"{path} and {records[one.key]['run']} are the same variant from the same seed"
            raise UsageError(text, "leave one out")
        trials.append(one)
        settings.append((path, own))
        records[one.key] = trial.finished(one, path)
    _same_images(settings)
    for one in {one.variant: one for one in reversed(trials)}.values():  # the first of each variant
        records[one.key] |= measures.size(Path(records[one.key]["run"]))
    variants = list(dict.fromkeys(one.variant for one in trials))
    chosen = grid.find_baseline(baseline, variants)
    rows, sentences = table.assemble(variants, chosen, trials, records, alpha)
    return {
        "schema": manifest.SCHEMA,
        "baseline": chosen.name,
        "seeds": sorted({one.seed for one in trials}),
        "alpha": alpha,
        "data": table.data(paths[0]),
        "environment": files.read_json(paths[0] / "env.json").pop("versions", {}),
        "verdict": sentences,
        "notes": _differences(settings),
        "results": rows,
    }


def _same_images(settings: Sequence[tuple[Path, Settings]]) -> None:
    """Raises where runs were not tested on the same images.

    Those of earlier versions kept no identity of theirs: there the names, the labels and a sample tell.
    """
    first, known = settings[0]
    (labels,), (samples,) = (files.read_arrays(first / file, [name]) for file, name in TESTED)
    images = DataIdentity.load(first / FILE)
    for path, own in settings[1:]:
        if own.data != known.data:
            text = f"{path} was tested on {own.data}, {first} on {known.data}"
            raise UsageError(text, "compare runs on the same data")
        (others,), (seen,) = (files.read_arrays(path / file, [name]) for file, name in TESTED)
        alike = seen.shape != samples.shape or np.array_equal(seen, samples)  # other sizes tell nothing
        if not (np.array_equal(others, labels) and alike):
            hint = "with --limit, give them the same --split-seed; data that has changed needs new runs"
            raise UsageError(f"{path} and {first} were not tested on the same images", hint)
        tested = DataIdentity.load(path / FILE)
        if images is None or tested is None or seen.shape != samples.shape:
            continue
        if changes := DataIdentity({"test": images.splits["test"]}, images.classes).changes(tested):
            text = f"{path} and {first} were not tested on the same images: {'; '.join(changes)}"
            raise UsageError(text, "data that has changed needs new runs")


def _differences(settings: Sequence[tuple[Path, Settings]]) -> list[str]:
    """What else the runs differ in, for the reader to judge."""
    notes = []
    for name in vars(settings[0][1]):
        values = {repr(getattr(own, name)) for _, own in settings}
        if name not in FREE and len(values) > 1:
            notes.append(f"the runs differ in {name.replace('_', ' ')} too: {', '.join(sorted(values))}")
    return notes
