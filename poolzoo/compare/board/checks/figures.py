"""Checks that the figures of a submission follow from its predictions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from poolzoo.common import files, json_reader
from poolzoo.common.errors import CheckFailed
from poolzoo.compare.board.checks.context import Context
from poolzoo.compare.board.submission import SubmittedRun
from poolzoo.compare.writing import RESULT
from poolzoo.report.results import ComparisonResult, VariantResult

if TYPE_CHECKING:
    from poolzoo.metrics.results import Metrics

CLOSE: Final = 1e-9  # figures from the same integers, perhaps summed in another order
ALIKE: Final = 1e-6  # p-values and intervals, whose quantiles another version of scipy may round otherwise


def metrics_check(context: Context) -> str:
    """`metrics.json` of every run, computed again from its predictions."""
    keys = ("accuracy", "interval", "precision", "recall", "f1", "n", "per_class", "confusion")
    for run in context.runs:
        wanted = metrics_of(run).to_json()
        stated = json_reader.mapping(run.metrics.get("test"))
        for key in keys:
            if not _close(wanted[key], stated.get(key), CLOSE):
                text = f"{run.name}: {key} in metrics.json is not that of predictions.npz"
                raise CheckFailed(f"{text} ({_number(stated.get(key))} instead of {_number(wanted[key])})")
    return "every metrics.json follows from its predictions"


def metrics_of(run: SubmittedRun) -> Metrics:
    """The metrics that predictions tell."""
    from poolzoo.metrics import classification

    predicted, labels = run.predictions
    classes = json_reader.texts(run.config.get("label_names"))
    count = len(classes)
    if labels.min(initial=0) < 0 or max(labels.max(initial=0), predicted.max(initial=0)) >= count:
        raise CheckFailed(f"{run.name}: predictions.npz holds a class that there is not")
    logits = np.zeros((len(labels), count), np.float32)
    logits[np.arange(len(labels)), predicted] = 1
    logits[predicted < 0] = np.nan  # what the network gave was not finite
    return classification.compute(logits, labels, classes)


def statistics_check(context: Context) -> str:
    """`compare.json`, computed again from the predictions."""
    folder = context.submission.comparison
    assert folder is not None
    stated = ComparisonResult.from_json(json_reader.mapping(files.read_json(folder / RESULT)))
    rows, sentences = recomputed(context)
    if stated.protocol != context.protocol.reference or stated.unofficial:
        raise CheckFailed(f"compare.json names {stated.protocol or 'no protocol'}")
    pairs: list[tuple[str, object, object]] = [
        ("baseline", context.variant(context.protocol.baseline).name, stated.baseline),
        ("seeds", list(context.protocol.seed_range), list(stated.seeds)),
        ("alpha", context.protocol.alpha, stated.alpha),
        ("conclusions", list(sentences), list(stated.conclusions)),
    ]
    for key, wanted, found in pairs:
        if wanted != found:
            raise CheckFailed(f"{key} in compare.json is {_number(found)} instead of {_number(wanted)}")
    names = [(row.pool, row.local_pool) for row in rows]
    if sorted(map(str, names)) != sorted(str((row.pool, row.local_pool)) for row in stated.results):
        raise CheckFailed("compare.json has other rows than the plan")
    for row in rows:
        other = next(one for one in stated.results if (one.pool, one.local_pool) == (row.pool, row.local_pool))
        for key, value in _figures(row).items():
            if not _close(value, _figures(other)[key], ALIKE):
                shown = f"{_number(_figures(other)[key])} instead of {_number(value)}"
                raise CheckFailed(f"{key} of {row.pool} in compare.json is not that of the predictions ({shown})")
    return "compare.json follows from the predictions"


def recomputed(context: Context) -> tuple[list[VariantResult], list[str]]:
    """The rows of the table and the conclusions, from the runs themselves."""
    from poolzoo.compare import table, trial

    records = {}
    for one, run in zip(context.trials, context.by_trial.values(), strict=True):
        records[one.key] = replace(trial.finished(one, run.path), accuracy=float(run.correct.mean()))
    variants = [context.variant(name) for name in context.chosen]
    baseline = context.variant(context.protocol.baseline)
    return table.variant_results(variants, baseline, context.trials, records, context.protocol.alpha)


def _figures(row: VariantResult) -> dict[str, object]:
    """What is compared of a row: all that predictions decide."""
    found = row.to_json()
    seeds = [[one.seed, one.accuracy, one.f1] for one in row.per_seed]
    kept = ("status", "accuracy", "delta", "rank", "f1", "per_class")
    return {**{key: found[key] for key in kept}, "accuracies by seed": seeds}


def _close(wanted: object, found: object, tolerance: float) -> bool:
    """Whether two values of JSON are equal, numbers within a tolerance."""
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        return wanted.keys() == found.keys() and all(_close(wanted[key], found[key], tolerance) for key in wanted)
    if isinstance(wanted, list | tuple) and isinstance(found, list | tuple):
        pairs = zip(wanted, found, strict=False)
        return len(wanted) == len(found) and all(_close(one, other, tolerance) for one, other in pairs)
    if isinstance(wanted, float) or isinstance(found, float):
        numbers = (json_reader.number(wanted), json_reader.number(found))
        return None not in numbers and math.isclose(*numbers, rel_tol=tolerance, abs_tol=tolerance)  # type: ignore[arg-type]
    return bool(wanted == found)


def _number(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
