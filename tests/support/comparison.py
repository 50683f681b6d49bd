"""A synthetic comparison from a fixed seed, for the tests of its page."""

from __future__ import annotations

from typing import Any

import numpy as np

from poolzoo.report import compare_page
from poolzoo.report.results import ComparisonResult

KINDS = ("gaussian noise", "defocus blur", "contrast", "jpeg")


def comparison(
    variants: int = 8, seeds: int = 3, epochs: int = 6, classes: int = 10, failed: int = 1, **changes: Any
) -> dict[str, Any]:
    """The content of a `compare.json`, of which the first variant is the baseline and the last ones failed."""
    random = np.random.default_rng(3)
    names = [f"class {number}" for number in range(classes)]
    results = [_result(random, number, seeds, epochs, names) for number in range(variants)]
    for result in results[variants - failed :]:
        result |= dict.fromkeys(set(result) - {"pool", "backbone", "local_pool"})
        result |= {"status": "failed", "error": "the loss became NaN in epoch 2", "per_seed": [], "curves": []}
    done = sorted(results[: variants - failed], key=lambda result: -result["accuracy"]["mean"])
    for result in done:  # those that are no more than two points apart share a rank
        better = [other for other in done if other["accuracy"]["mean"] > result["accuracy"]["mean"] + 0.02]
        result["rank"] = 1 + len(better)
    if done:
        results[0]["delta"] = None
    return {
        "schema": 1,
        "command": "poolzoo compare --data digits --pools avg,gem,max",
        "baseline": "pool-00",
        "seeds": list(range(seeds)),
        "alpha": 0.05,
        "data": {"name": "digits", "n_train": 1437, "n_test": 360, "classes": names},
        "settings": {"epochs": epochs, "batch_size": 64, "lr": 0.003},
        "environment": {"processor": "A <chip>", "torch": "2.9.1"},
        "started": "2026-03-04T05:06:07+00:00",
        "hours": 1.25,
        "conclusions": ["gem is better than the baseline by 1.20 points.", "Nothing else can be told apart from it."],
        "notes": ["Latency is that of the ONNX file."],
        "results": results,
        **changes,
    }


def page_of(found: dict[str, Any]) -> str:
    """The page of the content of a `compare.json`."""
    return compare_page.html(ComparisonResult.from_json(found))


def _result(random: np.random.Generator, number: int, seeds: int, epochs: int, names: list[str]) -> dict[str, Any]:
    accuracies = 0.9 + random.uniform(-0.05, 0.05) + random.uniform(-0.01, 0.01, size=seeds)
    mean, sd = float(accuracies.mean()), float(accuracies.std(ddof=1)) if seeds > 1 else None
    pace = random.uniform(0.3, 0.7)
    gain, half = float(0.01 * random.normal()), 0.006
    severe = [mean - 0.05 * s + float(0.01 * random.normal()) for s in range(1, 6)]
    return {
        "pool": f"pool-{number:02d}",
        "local_pool": "blur" if number % 5 == 4 else None,
        "backbone": "nano/resnet",
        "status": "done",
        "error": None,
        "accuracy": {"mean": mean, "sd": sd, "n": seeds, "low": mean - 0.008, "high": mean + 0.006},
        "per_seed": [
            {"seed": seed, "accuracy": float(a), "f1": float(a) - 0.002, "run": f"runs/pool-{number:02d}-{seed}"}
            for seed, a in enumerate(accuracies)
        ],
        "f1": {"mean": mean - 0.002, "sd": sd},
        "delta": {
            "mean": gain, "low": gain - half, "high": gain + half,
            "p": 1e-5, "p_adjusted": 0.04 if number % 2 else 2e-5, "better": gain > half, "worse": gain < -half,
        },
        "rank": None,
        "crop_consistency": {"mean": float(random.uniform(0.8, 1)), "sd": 0.01},
        "shift_consistency": {"mean": float(random.uniform(0.8, 1)), "sd": 0.01},
        "corruption_accuracy": {
            "mean": float(np.mean(severe)), "by_severity": severe,
            "by_kind": {kind: [s - 0.02 * place for s in severe] for place, kind in enumerate(KINDS)},
        },
        "params": int(random.integers(70_000, 90_000)),
        "macs": int(random.integers(2_000_000, 9_000_000)),
        "train_seconds": {"mean": float(random.uniform(10, 200)), "sd": 0.5},
        "latency_ms": float(random.uniform(0.1, 0.9)),
        "latency_ms_32": float(random.uniform(3, 30)),
        "parity": True,
        "per_class": [{"class": name, "recall": float(random.uniform(0.7, 1)), "f1": 0.9} for name in names],
        "curves": [
            [
                {
                    "epoch": epoch, "loss": float(2 / epoch + 0.1 * random.random()),
                    "train_accuracy": float(1 - pace / epoch),
                    "val_accuracy": float(0.95 - pace / epoch + 0.02 * random.random()),
                }
                for epoch in range(1, epochs + 1)
            ]
            for _ in range(seeds)
        ],
    }  # fmt: skip
