"""From the records of trials to the result of a comparison: statistics, measures and curves of every variant."""

from __future__ import annotations

import platform
import statistics as plain
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

import numpy as np

from poolzoo.artifacts import manifest
from poolzoo.common import files, json_reader
from poolzoo.common.errors import CheckFailed
from poolzoo.compare import conclusions, statistics
from poolzoo.compare.config import ComparisonConfig
from poolzoo.compare.grid import Trial, Variant
from poolzoo.compare.race import Race, races_of
from poolzoo.compare.records import Consistency, TrialRecord, TrialRecords
from poolzoo.compare.statistics import VariantStatistics
from poolzoo.report.results import (
    Accuracy,
    ClassResult,
    ComparisonResult,
    CorruptionAccuracy,
    Data,
    EpochPoint,
    MeanSd,
    SeedResult,
    VariantResult,
)

VARIED: Final = ("backbone", "pool", "local_pool", "seed", "protocol")  # settings that the table itself shows


def comparison_result(
    config: ComparisonConfig,
    records: TrialRecords,
    *,
    command: str | None,
    started: str | None,
    left_out: Sequence[str] = (),
) -> ComparisonResult:
    """The result of a comparison all of whose trials ended, were stopped by a race, or were left out.

    Args:
        config: What was compared.
        records: Of its trials.
        command, started: As they are shown.
        left_out: What the time budget had no room for, in sentences.

    Raises:
        CheckFailed: Every trial failed.
    """
    baseline = config.baseline_variant
    races = races_of(config, records)
    rows, sentences = variant_results(config.variants, baseline, config.trials, records.trials, config.alpha, races)
    done = next((row for row in rows if row.done), None)
    if done is None:
        if all(row.status == "left out" for row in rows):
            raise CheckFailed("the time budget had no room for a single trial", "give it more time, or fewer --epochs")
        raise CheckFailed("every trial failed", str(next(row.error for row in rows if row.status == "failed")))
    path = Path(str(done.per_seed[0].run))
    environment = dict(json_reader.mapping(files.read_json(path / "env.json")))
    versions = json_reader.mapping(environment.pop("versions", {}))
    settings = {
        key: value for key, value in asdict(config.settings).items() if key not in VARIED and value not in (None, ())
    }
    return ComparisonResult(
        schema=manifest.SCHEMA,
        baseline=baseline.name,
        seeds=list(range(config.settings.seed, config.settings.seed + config.seeds)),
        alpha=config.alpha,
        data=data_of(path),
        settings=settings,
        environment={**versions, **environment, "machine": platform.machine()},
        conclusions=sentences,
        left_out=left_out,
        notes=_notes(config),
        results=rows,
        command=command,
        started=started,
        hours=round(records.hours, 3),
        protocol=config.settings.protocol,
        unofficial=config.unofficial,
    )


def _notes(config: ComparisonConfig) -> list[str]:
    """How our corruptions differ from the published ones, where they were measured."""
    if not config.robustness_samples:
        return []
    from poolzoo.metrics import corruptions

    return [f"{name}: {text}" for name, text in corruptions.NOTES.items() if name in corruptions.NAMES]


def correct(path: Path) -> np.ndarray:
    """Which test images a run has right, `bool[N]`, in the data's order."""
    file = path / "predictions.npz"
    predicted, labels = files.read_arrays(file, ("predicted", "labels"))
    if (
        predicted.shape != labels.shape
        or labels.ndim != 1
        or not labels.size
        or {predicted.dtype.kind, labels.dtype.kind} - {*"iu"}
    ):
        found = f"{predicted.dtype}{list(predicted.shape)} and {labels.dtype}{list(labels.shape)}"
        raise CheckFailed(f"{file} is damaged: it holds {found}, not a class of each image", "train the run again")
    return np.asarray(predicted == labels)


def data_of(path: Path) -> Data:
    """The data of a run, files that could not be read included."""
    config = json_reader.mapping(files.read_json(path / "config.json"))
    metrics = json_reader.mapping(files.read_json(path / "metrics.json"))
    return Data(
        name=json_reader.text(json_reader.mapping(config.get("poolzoo")).get("data")),
        n_test=len(correct(path)),
        classes=json_reader.texts(config.get("label_names")),
        skipped=metrics.get("skipped") or None,
    )


def variant_results(
    variants: Sequence[Variant],
    baseline: Variant,
    trials: Sequence[Trial],
    records: Mapping[str, TrialRecord],
    alpha: float,
    races: Mapping[str, Race] | None = None,
) -> tuple[list[VariantResult], list[str]]:
    """The rows of a comparison, the best first, and its conclusions; the tests of one backbone are a family.

    Args:
        variants: All of them.
        baseline: The variant that the others of its backbone are compared with. Each other backbone has a baseline of
            the same name.
        trials: Every variant from every seed.
        records: By the trial's key.
        alpha: The significance level of the tests.
        races: By backbone, where these were races.
    """
    rows: list[VariantResult] = []
    sentences: list[str] = []
    backbones = list(dict.fromkeys(variant.backbone for variant in variants))
    for backbone in backbones:
        of_backbone = [variant for variant in variants if variant.backbone == backbone]
        known = {
            variant.name: [records[one.key] for one in trials if one.variant == variant and one.key in records]
            for variant in of_backbone
        }
        finished = {name: [one for one in of if one.done] for name, of in known.items()}
        right = {name: {one.seed: correct(one.path) for one in of} for name, of in finished.items() if of}
        compared: Mapping[str, VariantStatistics] = {}
        race = (races or {}).get(backbone)
        stopped = {name: one for name, one in race.stopped.items() if name in right} if race else {}
        if baseline.name in right:
            found = statistics.compare(right, baseline.name, alpha, stopped=stopped, level=race.level if race else None)
            compared = found.variants
            prefix = f"{backbone}: " if len(backbones) > 1 else ""
            sentences += [prefix + line for line in conclusions.conclusions(found)]
            if race:
                sentences.append(prefix + conclusions.race_summary(stopped, len(race.seeds), _seconds(finished)))
        elif right:
            sentences.append(f"{backbone}: the baseline {baseline.name} has no finished trial; nothing is compared.")
        rows += [
            replace(
                _row(variant, known[variant.name], compared.get(variant.name)),
                stop=stopped[variant.name].stop if variant.name in stopped else None,
            )
            for variant in of_backbone
        ]
    order = {backbone: index for index, backbone in enumerate(backbones)}
    rows.sort(key=lambda row: (order[str(row.backbone)], not row.done, -_mean_accuracy(row)))
    return rows, sentences


def _seconds(finished: Mapping[str, Sequence[TrialRecord]]) -> dict[str, list[float]]:
    """The training seconds of each variant's finished trials."""
    return {name: [one.seconds or 0.0 for one in of] for name, of in finished.items()}


def _mean_accuracy(row: VariantResult) -> float:
    return 0.0 if row.accuracy is None else row.accuracy.mean or 0.0


def _row(variant: Variant, records: Sequence[TrialRecord], compared: VariantStatistics | None) -> VariantResult:
    errors = [str(record.error) for record in records if not record.done]
    done = [record for record in records if record.done]
    row = VariantResult(pool=variant.pool, local_pool=variant.local_pool, backbone=variant.backbone, status="failed")
    if not done:
        if not errors:
            return replace(row, status="left out", error="no seed of it was trained")
        return replace(row, error=errors[0])
    accuracy = mean_sd([record.accuracy or 0.0 for record in done])
    robustness = [record.robustness for record in done if record.robustness is not None]
    first = done[0]
    return replace(
        row,
        status="done",
        error=f"{len(errors)} of its seeds failed: {errors[0]}" if errors else None,
        accuracy=compared.accuracy if compared else Accuracy(mean=accuracy.mean, sd=accuracy.sd, n=len(done)),
        delta=compared.delta if compared else None,
        rank=compared.rank if compared else None,
        per_seed=[SeedResult(one.seed, one.accuracy, one.f1, one.run) for one in done],
        f1=mean_sd([record.f1 or 0.0 for record in done]),
        train_seconds=mean_sd([record.seconds or 0.0 for record in done]),
        crop_consistency=_consistency([one.crop_consistency for one in robustness]),
        shift_consistency=_consistency([one.shift_consistency for one in robustness]),
        corruption_accuracy=_corruption_accuracy([one.corruption_accuracy for one in robustness]),
        params=first.params,
        macs=first.macs,
        latency_ms=first.latency_ms,
        latency_ms_32=first.latency_ms_32,
        parity=first.parity,
        per_class=_per_class([record.path for record in done]),
        curves=[_curve(record.path) for record in done],
    )


def mean_sd(values: Sequence[float]) -> MeanSd:
    """Mean and standard deviation of at least one value; that of a single one is None."""
    return MeanSd(plain.fmean(values), plain.stdev(values) if len(values) > 1 else None)


def _consistency(found: Sequence[Consistency | None]) -> MeanSd | None:
    measured = [one.consistency for one in found if one is not None]
    return mean_sd(measured) if measured else None


def _corruption_accuracy(found: Sequence[CorruptionAccuracy | None]) -> CorruptionAccuracy | None:
    """The means over the seeds."""
    measured = [one for one in found if one is not None]
    if len({len(one.by_severity) for one in measured}) != 1:
        return None
    return CorruptionAccuracy(
        mean=plain.fmean(one.mean or 0.0 for one in measured),
        by_severity=_means([one.by_severity for one in measured]),
        by_kind={
            kind: _means([one.by_kind[kind] for one in measured])
            for kind in measured[0].by_kind
            if all(kind in one.by_kind for one in measured)
        },
    )


def _means(rows: Sequence[Sequence[float | None]]) -> list[float]:
    found: list[float] = np.mean(np.array(rows, dtype=float), 0).tolist()
    return found


def _per_class(paths: Sequence[Path]) -> list[ClassResult]:
    """The means over the seeds of recall and F1 of each class."""
    reports = [json_reader.mapping(files.read_json(path / "metrics.json")) for path in paths]
    tables = [json_reader.objects(json_reader.mapping(one.get("test")).get("per_class")) for one in reports]
    if len(set(map(len, tables))) > 1:
        raise CheckFailed(f"the runs of {paths[0].parent} have tables of different classes", "train them again")
    return [
        ClassResult(str(rows[0].get("class")), recall=_class_mean(rows, "recall"), f1=_class_mean(rows, "f1"))
        for rows in zip(*tables, strict=True)
    ]


def _class_mean(rows: Sequence[Mapping[str, object]], key: str) -> float | None:
    """The mean over the seeds; None for a class without test images, where runs of earlier versions have a zero."""
    values = [json_reader.number(row.get(key)) for row in rows if row.get("n")]
    known = [value for value in values if value is not None]
    return plain.fmean(known) if len(known) == len(rows) else None


def _curve(path: Path) -> list[EpochPoint]:
    return [EpochPoint.from_json(line) for line in files.read_json_lines(path / "metrics.jsonl")]
