"""What was measured of the built-in strategies; `docs/make_gallery.py` writes the figures beside this file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from poolzoo.common import json_reader

FILE: Final = Path(__file__).with_name("measured.json")


@dataclass(frozen=True)
class Measured:
    """The measurements of a strategy; None where there is none.

    Attributes:
        forward, training: Time of a forward pass and of one with gradients, as ratios to `avg`.
        accuracy, sd, n: Mean accuracy over n seeds, 0–1, and its standard deviation.
        consistency: Share of test images, 0–1, whose prediction stays the same when they are cropped elsewhere.
        where: The comparison and the backbone.
    """

    forward: float | None = None
    training: float | None = None
    accuracy: float | None = None
    sd: float | None = None
    n: int | None = None
    consistency: float | None = None
    where: str = ""

    @classmethod
    def from_json(cls, found: Mapping[str, object]) -> Measured:
        """Reads one entry of `measured.json`."""
        return cls(
            forward=json_reader.number(found.get("forward")),
            training=json_reader.number(found.get("training")),
            accuracy=json_reader.number(found.get("accuracy")),
            sd=json_reader.number(found.get("sd")),
            n=json_reader.integer(found.get("n")),
            consistency=json_reader.number(found.get("consistency")),
            where=json_reader.text(found.get("where")) or "",
        )


def of(kind: str, name: str) -> Measured:
    """The measurements of a built-in strategy, by its kind ("global" or "local") and its name."""
    return strategies().get(f"{kind} {name}", Measured())


@cache
def strategies() -> dict[str, Measured]:
    found = json_reader.mapping(json.loads(FILE.read_text(encoding="utf-8")).get("strategies"))
    return {key: Measured.from_json(json_reader.mapping(entry)) for key, entry in found.items()}
