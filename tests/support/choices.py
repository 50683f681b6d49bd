"""Finished comparisons of a choice from planted answers, without training: predictions on disk, records and tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from poolzoo.compare import table
from poolzoo.compare.choosing.finished import Finished
from poolzoo.compare.choosing.plan import FROZEN, Planned
from poolzoo.compare.config import ComparisonConfig
from poolzoo.compare.records import TrialRecord, TrialRecords
from poolzoo.report.results import ComparisonResult
from poolzoo.train.settings import Settings


@dataclass(frozen=True)
class Truth:
    """The chance that a trial of a variant has a test image right, and its accuracy on validation images."""

    test: float
    validation: float


def finished(
    folder: Path,
    truths: Mapping[str, Truth],
    *,
    regime: str = FROZEN,
    seeds: int = 3,
    images: int = 400,
    alpha: float = 0.05,
    random: int = 0,
    macs: int = 1000,
    **settings: object,
) -> Finished:
    """A comparison of global poolings, the first of which is the baseline."""
    given = {"freeze": "backbone", "pretrained": True} if regime == FROZEN else {}
    config = ComparisonConfig(
        pools=",".join(truths),
        local_pools=None,
        backbones="nano/resnet",
        seeds=seeds,
        baseline=None,
        robustness_samples=0,
        export_top=0,
        alpha=alpha,
        settings=Settings(**{"data": "digits", "epochs": 3, **given, **settings}),
    )
    place = folder / regime.replace(" ", "-")
    place.mkdir(parents=True)
    generator = np.random.default_rng(random)
    hard = generator.random(images)
    records = TrialRecords(place)
    labels = np.zeros(images, np.int64)
    for trial in config.trials:
        truth = truths[trial.variant.pool]
        # Trials of one comparison find the same images hard, so that differences have less noise than accuracies.
        right = hard + generator.normal(0, 0.05, images) < truth.test
        run = place / "trials" / trial.key
        run.mkdir(parents=True)
        (run / "metrics.json").write_text("{}")
        (run / "metrics.jsonl").write_text("")
        np.savez(run / "predictions.npz", predicted=np.where(right, 0, 1), labels=labels)
        records.add(
            TrialRecord(
                trial=trial.key,
                status="done",
                backbone=trial.variant.backbone,
                pool=trial.variant.pool,
                local_pool=None,
                seed=trial.seed,
                run=str(run),
                macs=macs,
                accuracy=float(right.mean()),
                validation=truth.validation,
            )
        )
    rows, sentences = table.variant_results(
        config.variants, config.baseline_variant, config.trials, records.trials, config.alpha
    )
    result = ComparisonResult(baseline=config.baseline_variant.name, results=rows, conclusions=sentences)
    return Finished(Planned(regime, config), result, records, place)
