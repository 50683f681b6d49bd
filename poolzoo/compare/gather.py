"""`poolzoo report`: a comparison of runs that were trained one at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from poolzoo.artifacts import manifest
from poolzoo.common import files, json_reader
from poolzoo.common.errors import UsageError
from poolzoo.compare import grid, measures, table, trial
from poolzoo.compare.config import require_one_label
from poolzoo.compare.grid import Trial, Variant
from poolzoo.compare.records import TrialRecord
from poolzoo.data.identity import FILE, DataIdentity
from poolzoo.report.results import ComparisonResult
from poolzoo.train.settings import Settings
from poolzoo.train.settings_file import read_run_settings

# Settings that may differ between the runs of one table: what is compared, the seeds, and where it was computed.
FREE: Final = ("backbone", "pool", "local_pool", "seed", "device", "threads", "plugins", "split_seed")
# Arrays that identify the test images of runs without a data identity: a label for each, and a sample of the images.
LABELS: Final = ("predictions.npz", "labels")
SAMPLES: Final = ("samples.npz", "test_images")


def compare_runs(paths: Sequence[Path], baseline: str | None, alpha: float) -> ComparisonResult:
    """Compares finished runs as the trials of a comparison.

    Args:
        paths: Run directories.
        baseline: As for `grid.find_baseline`.
        alpha: The significance level of the tests.

    Raises:
        UsageError: There is no such run, one is there twice or has several labels an image, or they were not tested on
            the same images.
        CheckFailed: One is damaged.
    """
    records: dict[str, TrialRecord] = {}
    trials: list[Trial] = []
    settings: list[tuple[Path, Settings]] = []
    for path in paths:
        manifest.check(path, "run")
        if not (path / "predictions.npz").is_file():
            raise UsageError(f"{path} does not say what it predicted", "train it again with this version of poolzoo")
        own = read_run_settings(path)
        require_one_label(own)
        one = Trial(Variant(own.backbone, own.pool, own.local_pool), own.seed)
        if one.key in records:
            text = f"{path} and {records[one.key].run} are the same variant from the same seed"
            raise UsageError(text, "leave one out")
        trials.append(one)
        settings.append((path, own))
        records[one.key] = trial.finished(one, path)
    _require_same_images(settings)
    for one in {one.variant: one for one in reversed(trials)}.values():  # the first of each variant
        size = measures.size(records[one.key].path)
        records[one.key] = replace(records[one.key], params=size.params, macs=size.macs)
    variants = list(dict.fromkeys(one.variant for one in trials))
    chosen = grid.find_baseline(baseline, variants)
    rows, sentences = table.variant_results(variants, chosen, trials, records, alpha)
    environment = json_reader.mapping(files.read_json(paths[0] / "env.json"))
    return ComparisonResult(
        schema=manifest.SCHEMA,
        baseline=chosen.name,
        seeds=sorted({one.seed for one in trials}),
        alpha=alpha,
        data=table.data_of(paths[0]),
        environment=json_reader.mapping(environment.get("versions")),
        conclusions=sentences,
        notes=_differences(settings),
        results=rows,
    )


def _require_same_images(settings: Sequence[tuple[Path, Settings]]) -> None:
    """Raises UsageError where runs were not tested on the same images.

    Runs of earlier versions keep no identity of theirs; there the data's name, the labels and a sample are compared.
    """
    first, known = settings[0]
    labels, samples = _array(first, LABELS), _array(first, SAMPLES)
    images = DataIdentity.load(first / FILE)
    for path, own in settings[1:]:
        if own.data != known.data:
            text = f"{path} was tested on {own.data}, {first} on {known.data}"
            raise UsageError(text, "compare runs on the same data")
        other_labels, other_samples = _array(path, LABELS), _array(path, SAMPLES)
        comparable = other_samples.shape == samples.shape  # samples of another image size cannot be compared
        if not np.array_equal(other_labels, labels) or (comparable and not np.array_equal(other_samples, samples)):
            hint = "with --limit, give them the same --split-seed; data that has changed needs new runs"
            raise UsageError(f"{path} and {first} were not tested on the same images", hint)
        tested = DataIdentity.load(path / FILE)
        if images is None or tested is None or not comparable:
            continue
        if changes := DataIdentity({"test": images.test}, images.classes).changes(tested):
            text = f"{path} and {first} were not tested on the same images: {'; '.join(changes)}"
            raise UsageError(text, "data that has changed needs new runs")


def _array(path: Path, which: tuple[str, str]) -> np.ndarray:
    file, name = which
    (found,) = files.read_arrays(path / file, [name])
    return found


def _differences(settings: Sequence[tuple[Path, Settings]]) -> list[str]:
    """Notes on the other settings in which the runs differ."""
    notes = []
    for name in vars(settings[0][1]):
        values = {repr(getattr(own, name)) for _, own in settings}
        if name not in FREE and len(values) > 1:
            notes.append(f"the runs differ in {name.replace('_', ' ')} too: {', '.join(sorted(values))}")
    return notes
