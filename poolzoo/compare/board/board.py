"""A board as types: the rows that passed their checks, by protocol, with what each test image got."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Final

import numpy as np

from poolzoo.common.errors import CheckFailed
from poolzoo.compare import grid
from poolzoo.report.results import Accuracy, Delta

SCHEMA: Final = 1


@dataclass(frozen=True)
class BoardRow:
    """One row of a section.

    Attributes:
        backbone, pool, local_pool: The variant.
        author: Who made it, in their own words.
        date: When it was merged, ISO 8601.
        plugin_sha256: Of the file with the pooling; None of a built-in one.
        versions: By package.
        reran: What was run again before it was merged: `evaluation`, `training`.
        f1: For each seed.
        correct: Which test images each seed has right, packed bits in base64; empty where nobody kept it.
        accuracy, delta, rank: What the statistics of the section say; None of the baseline's difference.
    """

    backbone: str
    pool: str
    local_pool: str | None
    author: str
    date: str
    plugin_sha256: str | None
    versions: Mapping[str, str]
    reran: tuple[str, ...]
    f1: Mapping[int, float]
    correct: Mapping[int, str]
    accuracy: Accuracy | None = None
    delta: Delta | None = None
    rank: int | None = None

    @property
    def name(self) -> str:
        """Its name among the variants of a backbone."""
        return f"{self.pool} + {self.local_pool}" if self.local_pool else self.pool

    @property
    def key(self) -> tuple[object, ...]:
        """What makes it the same row as another: its poolings, whatever the order of their options, and its plugin."""
        return grid.identity(self.pool), self.local_pool and grid.identity(self.local_pool), self.plugin_sha256

    def right(self, images: int) -> dict[int, np.ndarray]:
        """Which test images each seed has right, `bool[N]`.

        Raises:
            CheckFailed: They are not those of so many images.
        """
        found = {}
        for seed, text in self.correct.items():
            try:
                packed = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
            except (binascii.Error, ValueError) as error:
                raise CheckFailed(f"the board's row {self.name} is damaged: {error}", "restore the file") from error
            if len(packed) != (images + 7) // 8:
                raise CheckFailed(f"the board's row {self.name} is not of {images} images", "restore the file")
            found[seed] = np.unpackbits(packed, count=images).astype(bool)
        return found


@dataclass(frozen=True)
class BoardSection:
    """The rows of one protocol, the best first.

    Attributes:
        protocol: Its reference, `NAME@VERSION:SHA256`.
        question: What it asks.
        free: The setting that differs from row to row, `pool` or `local_pool`.
        baseline: The name of the row that the others are compared with.
        alpha: The significance level.
        images: Number of test images.
        rows: The baseline among them.
        conclusions: What the statistics say, in sentences.
    """

    protocol: str
    question: str
    free: str
    baseline: str
    alpha: float
    images: int
    rows: tuple[BoardRow, ...] = ()
    conclusions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Board:
    """All sections, by the names of their protocols.

    Attributes:
        sections: By name.
        text: The file that it was read from; "" for a new one.
    """

    sections: Mapping[str, BoardSection] = field(default_factory=dict)
    text: str = ""

    def to_json(self) -> dict[str, object]:
        return {"schema": SCHEMA, "sections": {name: asdict(self.sections[name]) for name in sorted(self.sections)}}
