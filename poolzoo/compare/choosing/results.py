"""What `poolzoo choose` found: the recommendation, the comparisons behind it, and what to type next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from poolzoo.compare.grid import Variant
from poolzoo.compare.statistics import POWER
from poolzoo.report.results import Delta

RESULT: Final = "choice.json"
PAGE: Final = "choice.html"


@dataclass(frozen=True)
class Candidate:
    """A variant that may be recommended.

    Attributes:
        variant: What it is.
        regime: How it was trained.
        accuracy, validation: Means over its seeds, 0–1, on test and on validation images.
        seeds: How many.
        delta: The difference from the baseline of its comparison; None for the baseline, or without two seeds.
        latency_ms: Of one image under ONNX Runtime; None where it was not measured.
        refusal: Why it is not recommended although its accuracy allows it; None otherwise.
    """

    variant: Variant
    regime: str
    accuracy: float
    validation: float
    seeds: int
    delta: Delta | None = None
    latency_ms: float | None = None
    refusal: str | None = None

    def to_json(self) -> dict[str, object]:
        values = {key: value for key, value in asdict(self).items() if key != "variant"}
        return {**asdict(self.variant), **values}


@dataclass(frozen=True)
class ComparedRegime:
    """One comparison of a choice.

    Attributes:
        title: Its name in sentences.
        regime, backbone, directory: Which one.
        epochs, limit, seeds: How it was trained; `limit` is None where all images were taken.
        alpha: The level of its tests.
        baseline: Name of its baseline.
        detectable: The difference that it would have found with a power of 0.8, 0–1; None where it is unknown.
        best: Its candidate for the recommendation; None where it has none.
        conclusions: What its statistics say.
    """

    title: str
    regime: str
    backbone: str
    directory: str
    epochs: int | None
    limit: int | None
    seeds: int
    alpha: float
    baseline: str
    detectable: float | None
    best: Candidate | None
    conclusions: Sequence[str]

    def to_json(self) -> dict[str, object]:
        return {**asdict(self), "best": self.best.to_json() if self.best else None}

    def describe(self) -> str:
        """Its candidate with its accuracy, how it was trained, and what would have been found."""
        if self.best is None:
            return f"{self.title}: no candidate."
        length = f"{self.epochs} epoch{'s' * (self.epochs != 1)}"
        text = f"{self.title}: {self.best.variant.name} has {100 * self.best.accuracy:.2f} % after {length}"
        if self.detectable is None:
            return f"{text}; with one seed or one candidate, no difference is tested."
        if self.detectable >= 1:
            return f"{text}; no true difference from {self.baseline} is found with a power of {POWER:g}."
        shown = f"{100 * self.detectable:.2f} points from {self.baseline}"
        return f"{text}; a true difference of {shown} is found with a power of {POWER:g}."


@dataclass(frozen=True)
class Choice:
    """The answer.

    Attributes:
        data: As `--data` names it.
        images: Number of test images.
        recommended: What to use.
        baseline: The baseline of its comparison; the recommended one itself where nothing beats it.
        sentences: The recommendation in words.
        comparisons: Those behind it.
        between: The difference of the recommended candidate's accuracy to the best of each other comparison, by its
            title.
        refused: Candidates that were passed over.
        left_out: What was not tried, in sentences.
        seconds: That everything took.
        train, export: Commands that train and export the recommended network.
        out: The directory of the choice.
    """

    data: str
    images: int
    recommended: Candidate
    baseline: Candidate | None
    sentences: Sequence[str]
    comparisons: Sequence[ComparedRegime]
    between: dict[str, Delta]
    refused: Sequence[Candidate]
    left_out: Sequence[str]
    seconds: float
    train: Sequence[str]
    export: Sequence[str]
    out: Path

    @property
    def page(self) -> Path:
        return self.out / PAGE

    @property
    def commands(self) -> list[str]:
        """The two commands as they can be pasted into a shell."""
        return [shlex.join(self.train), shlex.join(self.export)]

    def to_json(self) -> dict[str, object]:
        return {
            "data": self.data,
            "test_images": self.images,
            "recommended": self.recommended.to_json(),
            "baseline": self.baseline.to_json() if self.baseline else None,
            "sentences": list(self.sentences),
            "comparisons": [one.to_json() for one in self.comparisons],
            "between": {name: asdict(delta) for name, delta in self.between.items()},
            "refused": [one.to_json() for one in self.refused],
            "left_out": list(self.left_out),
            "seconds": round(self.seconds, 1),
            "train": shlex.join(self.train),
            "export": shlex.join(self.export),
            "page": str(self.page),
        }
