"""What a comparison found, as types: the content of `compare.json`, whichever version of poolzoo wrote it.

This is the one place where that file is parsed. A figure that is missing, NaN or infinite is None from here on, so that
pages and tables never test for it again. The file is long because it has a type for each part of that one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Final

from poolzoo.common import json_reader as json

# Keys of earlier versions, below `shift`.
CONSISTENCIES: Final = {"crop_consistency": "zhang", "shift_consistency": "circular"}


@dataclass(frozen=True)
class MeanSd:
    """The mean over seeds of a figure, and its standard deviation from seed to seed; None for a single seed."""

    mean: float | None = None
    sd: float | None = None


@dataclass(frozen=True)
class Accuracy(MeanSd):
    """An accuracy, 0–1, over `n` seeds, and its interval."""

    n: int | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Delta:
    """A difference from the baseline's accuracy, 0–1, with its simultaneous interval; None where it was not tested.

    Attributes:
        p, p_adjusted: Of the test alone, and corrected for the number of comparisons.
        better, worse: Whether the corrected p is below alpha.
    """

    mean: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_adjusted: float | None = None
    better: bool = False
    worse: bool = False


@dataclass(frozen=True)
class Stop:
    """Where a race stopped a variant, and why.

    Attributes:
        seeds: Number of its seeds that were trained.
        behind: Name of the variant that it is behind, in the same backbone.
        mean, low, high: By how much, 0–1, with the interval at the level of this look.
        p_adjusted: Corrected for all pairs and all looks.
        worse_than: Names of all variants that are better beyond chance.
    """

    seeds: int | None = None
    behind: str | None = None
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    p_adjusted: float | None = None
    worse_than: Sequence[str] = ()

    def reason(self, of: int) -> str:
        """One line for tables, with points.

        Args:
            of: Number of seeds of the comparison.
        """
        mean, low, high = (100 * (one or 0.0) for one in (self.mean, self.low, self.high))
        how_far = f"{mean:.1f} points ({low:.1f} to {high:.1f}) behind {self.behind}"
        return f"stopped after {self.seeds} of {of} seeds: {how_far}"

    @classmethod
    def from_json(cls, value: object) -> Stop | None:
        """Reads what `asdict` gave; None where there is no such object."""
        if not isinstance(value, Mapping) or not value:
            return None
        return cls(
            seeds=json.integer(value.get("seeds")),
            behind=json.text(value.get("behind")),
            mean=json.number(value.get("mean")),
            low=json.number(value.get("low")),
            high=json.number(value.get("high")),
            p_adjusted=json.number(value.get("p_adjusted")),
            worse_than=json.texts(value.get("worse_than")),
        )


@dataclass(frozen=True)
class CorruptionAccuracy:
    """Accuracy on corrupted images, 0–1: over all, at severities 1 to 5, and of each corruption at these."""

    mean: float | None = None
    by_severity: Sequence[float | None] = ()
    by_kind: Mapping[str, Sequence[float | None]] = field(default_factory=dict)


@dataclass(frozen=True)
class SeedResult:
    """One trial: its figures on the test images, 0–1, and its run directory."""

    seed: int | None = None
    accuracy: float | None = None
    f1: float | None = None
    run: str | None = None


@dataclass(frozen=True)
class ClassResult:
    """Mean over seeds of one class, 0–1; None without test images of it."""

    label: str
    recall: float | None = None
    f1: float | None = None


@dataclass(frozen=True)
class EpochPoint:
    """One epoch of a learning curve; accuracies are 0–1."""

    epoch: float | None = None
    loss: float | None = None
    train_accuracy: float | None = None
    val_accuracy: float | None = None

    @classmethod
    def from_json(cls, found: Mapping[str, object]) -> EpochPoint:
        """Reads a line of `metrics.jsonl`, or a point of `curves`."""
        return cls(**{one.name: json.number(found.get(one.name)) for one in fields(cls)})


@dataclass(frozen=True, kw_only=True)
class VariantResult:
    """One row of a comparison: a backbone with its poolings.

    Attributes:
        status: "done", "failed" where no seed finished, or "left out" where the time budget had no room for one.
        error: Why it failed, or why some of its seeds did.
        delta: None for the baseline.
        stop: Where a race stopped it; None for all others.
        rank: 1 plus the number of variants that are significantly better.
        train_seconds: Of one trial.
        crop_consistency, shift_consistency: How often a prediction stays the same, 0–1, when an image is cropped
            elsewhere, and when it is shifted circularly.
        macs: Multiply–accumulate operations for one image.
        latency_ms, latency_ms_32: Under ONNX Runtime, for one image and for 32.
        parity: Whether the exported graph passed its parity check; None where it was not exported.
        curves: For each seed.
    """

    pool: str | None = None
    local_pool: str | None = None
    backbone: str | None = None
    status: str | None = None
    error: str | None = None
    accuracy: Accuracy | None = None
    delta: Delta | None = None
    stop: Stop | None = None
    rank: int | None = None
    per_seed: Sequence[SeedResult] = ()
    f1: MeanSd | None = None
    train_seconds: MeanSd | None = None
    crop_consistency: MeanSd | None = None
    shift_consistency: MeanSd | None = None
    corruption_accuracy: CorruptionAccuracy | None = None
    params: int | None = None
    macs: int | None = None
    latency_ms: float | None = None
    latency_ms_32: float | None = None
    parity: bool | None = None
    per_class: Sequence[ClassResult] = ()
    curves: Sequence[Sequence[EpochPoint]] = ()

    @property
    def done(self) -> bool:
        """Whether at least one seed was trained and measured."""
        return self.status == "done"

    def to_json(self) -> dict[str, object]:
        classes = [{"class": row.label, "recall": row.recall, "f1": row.f1} for row in self.per_class]
        return {**asdict(self), "per_class": classes}

    @classmethod
    def from_json(cls, found: Mapping[str, object]) -> VariantResult:
        """Reads one entry of `results`; what is missing or has another type is None or empty."""
        return cls(
            pool=json.text(found.get("pool")),
            local_pool=json.text(found.get("local_pool")),
            backbone=json.text(found.get("backbone")),
            status=json.text(found.get("status")),
            error=json.text(found.get("error")),
            accuracy=_accuracy(found.get("accuracy")),
            delta=delta(found.get("delta")),
            stop=Stop.from_json(found.get("stop")),
            rank=json.integer(found.get("rank")),
            per_seed=[_seed(run) for run in json.objects(found.get("per_seed"))],
            f1=mean_sd(found.get("f1")),
            train_seconds=mean_sd(found.get("train_seconds")),
            crop_consistency=_consistency(found, "crop_consistency"),
            shift_consistency=_consistency(found, "shift_consistency"),
            corruption_accuracy=corruption_accuracy(found.get("corruption_accuracy") or found.get("corruption")),
            params=json.integer(found.get("params")),
            macs=json.integer(found.get("macs")),
            latency_ms=json.number(found.get("latency_ms")),
            latency_ms_32=json.number(found.get("latency_ms_32")),
            parity=json.flag(found.get("parity")),
            per_class=[_class(row) for row in json.objects(found.get("per_class"))],
            curves=[
                [EpochPoint.from_json(row) for row in json.objects(run)] for run in json.items(found.get("curves"))
            ],
        )


@dataclass(frozen=True, kw_only=True)
class Data:
    """What was tested on. `skipped` lists the files that could not be read, as in a run's `metrics.json`."""

    name: str | None = None
    n_train: int | None = None
    n_test: int | None = None
    classes: Sequence[str] = ()
    skipped: object = None

    def to_json(self) -> dict[str, object]:
        return {key: value for key, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class ComparisonResult:
    """A whole comparison.

    Attributes:
        schema: Version of the file's format.
        baseline: Name of the variant that the others of its backbone are compared with.
        alpha: The level of the tests.
        settings, environment: As they are shown, by name.
        conclusions: What the statistics say, in sentences.
        left_out: What the time budget had no room for, in sentences.
        notes: What a reader of the figures has to know.
        results: The best first, those that failed last, one backbone after the other.
        command: As it was typed.
        started: ISO 8601.
        hours: That it took, interruptions left out.
        protocol: That pinned everything but one pooling, as `NAME@VERSION:SHA256`.
        unofficial: Why the results do not count for it.
    """

    schema: int | None = None
    baseline: str | None = None
    seeds: Sequence[int] = ()
    alpha: float | None = None
    data: Data = field(default_factory=Data)
    settings: Mapping[str, object] = field(default_factory=dict)
    environment: Mapping[str, object] = field(default_factory=dict)
    conclusions: Sequence[str] = ()
    left_out: Sequence[str] = ()
    notes: Sequence[str] = ()
    results: Sequence[VariantResult] = ()
    command: str | None = None
    started: str | None = None
    hours: float | None = None
    protocol: str | None = None
    unofficial: str | None = None

    def to_json(self) -> dict[str, object]:
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        values |= {"data": self.data.to_json(), "results": [row.to_json() for row in self.results]}
        return {key: value for key, value in values.items() if value is not None}

    @classmethod
    def from_json(cls, found: Mapping[str, object]) -> ComparisonResult:
        """Reads the content of a `compare.json`; what is missing or has another type is None or empty."""
        data = json.mapping(found.get("data"))
        return cls(
            schema=json.integer(found.get("schema")),
            baseline=json.text(found.get("baseline")),
            seeds=[seed for one in json.items(found.get("seeds")) if (seed := json.integer(one)) is not None],
            alpha=json.number(found.get("alpha")),
            data=Data(
                name=json.text(data.get("name")),
                n_train=json.integer(data.get("n_train")),
                n_test=json.integer(data.get("n_test")),
                classes=json.texts(data.get("classes")),
                skipped=data.get("skipped"),
            ),
            settings=json.mapping(found.get("settings")),
            environment=json.mapping(found.get("environment")),
            conclusions=json.texts(found.get("conclusions") or found.get("verdict")),
            left_out=json.texts(found.get("left_out")),
            notes=json.texts(found.get("notes")),
            results=[VariantResult.from_json(row) for row in json.objects(found.get("results"))],
            command=json.text(found.get("command")),
            started=json.text(found.get("started")),
            hours=json.number(found.get("hours")),
            protocol=json.text(found.get("protocol")),
            unofficial=json.text(found.get("unofficial")),
        )


def mean_sd(value: object) -> MeanSd | None:
    """A mean with its standard deviation; None where there is no such object."""
    return MeanSd(json.number(value.get("mean")), json.number(value.get("sd"))) if isinstance(value, Mapping) else None


def corruption_accuracy(value: object) -> CorruptionAccuracy | None:
    """Accuracies on corrupted images; None where there is no such object."""
    if not isinstance(value, Mapping):
        return None
    by_severity = [json.number(one) for one in json.items(value.get("by_severity"))]
    kinds = {
        kind: [json.number(one) for one in json.items(accuracies)]
        for kind, accuracies in json.mapping(value.get("by_kind")).items()
    }
    if any(len(accuracies) != len(by_severity) for accuracies in kinds.values()):
        return None  # damaged
    return CorruptionAccuracy(mean=json.number(value.get("mean")), by_severity=by_severity, by_kind=kinds)


def _accuracy(value: object) -> Accuracy | None:
    if not isinstance(value, Mapping):
        return None
    return Accuracy(
        mean=json.number(value.get("mean")),
        sd=json.number(value.get("sd")),
        n=json.integer(value.get("n")),
        low=json.number(value.get("low")),
        high=json.number(value.get("high")),
    )


def delta(value: object) -> Delta | None:
    """A difference from the baseline; None where there is no such object."""
    if not isinstance(value, Mapping) or not value:
        return None
    return Delta(
        mean=json.number(value.get("mean")),
        low=json.number(value.get("low")),
        high=json.number(value.get("high")),
        p=json.number(value.get("p")),
        p_adjusted=json.number(value.get("p_adjusted")),
        better=bool(value.get("better")),
        worse=bool(value.get("worse")),
    )


def _consistency(found: Mapping[str, object], key: str) -> MeanSd | None:
    """A consistency under its own key, or that of earlier versions, where it may be a number or a nested object."""
    value = found.get(key)
    if value is None:
        value = json.mapping(found.get("shift")).get(CONSISTENCIES[key])
    if isinstance(value, Mapping) and "consistency" in value:
        value = value["consistency"]
    return (
        mean_sd(value) if isinstance(value, Mapping) else None if (mean := json.number(value)) is None else MeanSd(mean)
    )


def _seed(row: Mapping[str, object]) -> SeedResult:
    return SeedResult(
        json.integer(row.get("seed")),
        json.number(row.get("accuracy")),
        json.number(row.get("f1")),
        json.text(row.get("run")),
    )


def _class(row: Mapping[str, object]) -> ClassResult:
    return ClassResult(str(row.get("class")), json.number(row.get("recall")), json.number(row.get("f1")))
