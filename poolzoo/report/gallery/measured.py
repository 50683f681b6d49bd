"""What was measured of the built-in strategies, where it was; `docs/make_gallery.py` writes the figures beside this."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

FILE: Final = Path(__file__).with_name("measured.json")


@dataclass(frozen=True)
class Measured:
    """What is known of a strategy; None where it was not measured.

    Attributes:
        forward, training: Time of a forward pass and of one with gradients, in those of `avg`.
        accuracy, sd, n: Mean accuracy over n seeds, 0–1, and its standard deviation.
        consistency: Rank of test images, 0–1, whose prediction stays the same when they are cropped elsewhere.
        where: In which comparison, and in which backbone.
    """

    forward: float | None = None
    training: float | None = None
    accuracy: float | None = None
    sd: float | None = None
    n: int | None = None
    consistency: float | None = None
    where: str = ""


def of(kind: str, name: str) -> Measured:
    """What is known of a built-in strategy."""
    return Measured(**_all().get(f"{kind} {name}", {}))


@cache
def _all() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))["strategies"]
    return found


# --- Gathering: from the two files in docs/ --------------------------------------------------------------------------

MAPS: Final = {"global": [8, 512, 7, 7], "local": [64, 64, 32, 32]}  # ResNet-18's last map; an early one


def gather(kernels: dict[str, Any], leaderboard: dict[str, Any]) -> dict[str, Any]:
    """The content of `measured.json`.

    Args:
        kernels: That of `docs/pooling_kernels.json`.
        leaderboard: That of `docs/leaderboard.json`, `{comparison: {"results": [row as in compare.json]}}`. The first
            comparison that has a strategy without options tells of it, of a local one with `avg` as the head.
    """
    strategies: dict[str, dict[str, Any]] = {}
    rows = [row for row in kernels["rows"] if row["map"] == MAPS[row["kind"]]]
    first = {row["kind"]: row for row in rows if row["name"] == "avg"}
    for row in rows:
        ratios = {key: row[f"{key}_ms"] / first[row["kind"]][f"{key}_ms"] for key in ("forward", "training")}
        strategies[f"{row['kind']} {row['name']}"] = {key: round(ratio, 2) for key, ratio in ratios.items()}
    for comparison, found in leaderboard.items():
        for row in found.get("results") or [] if isinstance(found, dict) else []:
            kind = "local" if row.get("local_pool") else "global"
            name = str(row.get("local_pool") or row.get("pool"))
            told = strategies.setdefault(f"{kind} {name}", {})
            if row.get("accuracy") and "accuracy" not in told and _alone(row, name):
                told |= _results(comparison, row)
    return {"maps": MAPS, "strategies": {key: strategies[key] for key in sorted(strategies) if strategies[key]}}


def _alone(row: dict[str, Any], name: str) -> bool:
    """Whether a row is about one strategy with its defaults: a local one stands before the mean."""
    return ":" not in name and (not row.get("local_pool") or row.get("pool") == "avg")


def _results(comparison: str, row: dict[str, Any]) -> dict[str, Any]:
    accuracy, told = row["accuracy"], {"where": f"{comparison}, {row.get('backbone')}"}
    told |= {"accuracy": accuracy["mean"], "sd": accuracy.get("sd"), "n": accuracy.get("n")}
    crops = (row.get("shift") or {}).get("zhang") or {}
    crops = crops.get("consistency", crops)  # a number, or its mean and spread, with or without a name around it
    told["consistency"] = crops.get("mean") if isinstance(crops, dict) else crops
    return told
