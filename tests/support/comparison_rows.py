"""What two comparisons with the same settings have in common."""

from __future__ import annotations

import json
from typing import Any


def stable_rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The results of a `compare.json` without what a clock or a place decides."""
    rows: list[dict[str, Any]] = json.loads(json.dumps(found["results"]))
    for row in rows:
        row.pop("train_seconds", None)
        for one in row.get("per_seed", ()):
            one.pop("run")
    return rows
