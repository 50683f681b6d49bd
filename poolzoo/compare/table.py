"""From the records of trials to `compare.json`: statistics, measures and curves of every variant, the best first."""

from __future__ import annotations

import statistics as plain
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from poolzoo.common import files
from poolzoo.compare import statistics
from poolzoo.compare.grid import Trial, Variant

Record = dict[str, Any]


def right(path: Path) -> np.ndarray:
    """Which of the test images a run has right, `bool[N]`, in the data's order."""
    predicted, labels = files.read_arrays(path / "predictions.npz", ("predicted", "labels"))
    return np.asarray(predicted == labels)


def data(path: Path) -> Record:
    """What `compare.json` says of the data that a run saw, files that could not be read included."""
    config = files.read_json(path / "config.json")
    skipped = files.read_json(path / "metrics.json").get("skipped")
    known = {"name": config["poolzoo"]["data"], "n_test": len(right(path)), "classes": config["label_names"]}
    return {**known, "skipped": skipped} if skipped else known


def assemble(
    variants: Sequence[Variant], baseline: Variant, trials: Sequence[Trial], records: Mapping[str, Record], alpha: float
) -> tuple[list[Record], list[str]]:
    """The rows of `results`, and the verdict in sentences; a family of comparisons is that of one backbone.

    Args:
        variants: All of them.
        baseline: The one that the others of its backbone are compared with; other backbones have one called the same.
        trials: Every variant from every seed.
        records: What became of each trial, by its key, with the measures that were taken.
        alpha: The level of the tests.
    """
    rows: list[Record] = []
    sentences: list[str] = []
    backbones = list(dict.fromkeys(variant.backbone for variant in variants))
    for backbone in backbones:
        mine = [variant for variant in variants if variant.backbone == backbone]
        done = {
            variant.name: {
                trial.seed: records[trial.key]
                for trial in trials
                if trial.variant == variant and records.get(trial.key, {}).get("status") == "done"
            }
            for variant in mine
        }
        finished = {name: by_seed for name, by_seed in done.items() if by_seed}
        compared: dict[str, Any] = {"variants": {}}
        if baseline.name in finished:
            compared = statistics.compare(
                {name: {s: right(Path(r["run"])) for s, r in seeds.items()} for name, seeds in finished.items()},
                baseline.name,
                alpha,
            )
            prefix = f"{backbone}: " if len(backbones) > 1 else ""
            sentences += [prefix + line for line in statistics.verdict(compared)]
        elif finished:
            sentences.append(
                f"{backbone}: the baseline {baseline.name} has no finished trial, nothing is compared with it."
            )
        for variant in mine:
            failures = [records[trial.key] for trial in trials if trial.variant == variant and trial.key in records]
            rows.append(_row(variant, done[variant.name], compared["variants"].get(variant.name), failures))
    order = {backbone: index for index, backbone in enumerate(backbones)}
    rows.sort(
        key=lambda row: (order[row["backbone"]], row["status"] != "done", -(row["accuracy"] or {"mean": 0})["mean"])
    )
    return rows, sentences


def _row(variant: Variant, by_seed: Mapping[int, Record], compared: Record | None, records: Sequence[Record]) -> Record:
    errors = [record["error"] for record in records if record["status"] == "failed"]
    row: Record = {"pool": variant.pool, "local_pool": variant.local_pool, "backbone": variant.backbone}
    if not by_seed:
        return {
            **row,
            "status": "failed",
            "error": errors[0] if errors else "it was not run",
            "accuracy": None,
            "delta": None,
        }
    done = list(by_seed.values())
    if compared is None:
        values = [record["accuracy"] for record in done]
        compared = {
            "accuracy": {**_spread(values), "n": len(values), "low": None, "high": None},
            "delta": None,
            "rank": None,
        }
    first = done[0]
    return {
        **row,
        "status": "done",
        "error": f"{len(errors)} of its seeds failed: {errors[0]}" if errors else None,
        **compared,
        "per_seed": [{key: record[key] for key in ("seed", "accuracy", "f1", "run")} for record in done],
        "f1": _spread([record["f1"] for record in done]),
        "train_seconds": _spread([record["seconds"] for record in done]),
        "shift": _shift(done),
        "corruption": _corruption(done),
        **{key: first.get(key) for key in ("params", "macs", "latency_ms", "latency_ms_32", "parity")},
        "per_class": _per_class(done),
        "curves": [_curve(Path(record["run"])) for record in done],
    }


def _spread(values: Sequence[float]) -> Record:
    return {"mean": plain.fmean(values), "sd": plain.stdev(values) if len(values) > 1 else None}


def _shift(done: Sequence[Record]) -> Record | None:
    measured = [record["shift"] for record in done if record.get("shift")]
    return {kind: _spread([one[kind]["consistency"] for one in measured]) for kind in measured[0]} if measured else None


def _corruption(done: Sequence[Record]) -> Record | None:
    measured = [record["corruption"] for record in done if record.get("corruption")]
    if not measured:
        return None
    return {
        "mean": plain.fmean(one["mean"] for one in measured),
        "by_severity": np.mean([one["by_severity"] for one in measured], 0).tolist(),
        "by_kind": {
            kind: np.mean([one["by_kind"][kind] for one in measured], 0).tolist() for kind in measured[0]["by_kind"]
        },
    }


def _per_class(done: Sequence[Record]) -> list[Record]:
    tables = [files.read_json(Path(record["run"]) / "metrics.json")["test"]["per_class"] for record in done]
    return [
        {"class": rows[0]["class"], **{key: _mean_of(rows, key) for key in ("recall", "f1")}}
        for rows in zip(*tables, strict=True)
    ]


def _mean_of(rows: Sequence[Record], key: str) -> float | None:
    """The mean over the seeds; None for a class without test images, where older runs have a zero."""
    return plain.fmean(row[key] for row in rows) if all(row["n"] for row in rows) else None


def _curve(path: Path) -> list[Record]:
    import json

    keys = ("epoch", "loss", "train_accuracy", "val_accuracy")
    lines = (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{key: line.get(key) for key in keys} for line in map(json.loads, lines)]
