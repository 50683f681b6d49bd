"""Results of speed measurements: the content of `speed.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import cast

from poolzoo.artifacts import schema
from poolzoo.runtime.environment import Environment


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A runtime at one batch size and thread count, in milliseconds a batch.

    Attributes:
        runtime: Its name.
        threads: How many it used.
        median_ms, min_ms, p90_ms, p99_ms: Over the rounds.
        rounds: How often it ran.
        speedup: How many times as fast as the reference, over the rounds that both ran in; None for the reference.
    """

    runtime: str
    threads: int
    median_ms: float
    min_ms: float
    p90_ms: float
    p99_ms: float
    rounds: int
    speedup: schema.Spread | None = None

    def to_json(self) -> schema.Measurement:
        """The row in `speed.json`; without `speedup` for the reference."""
        row = asdict(self)
        if self.speedup is None:
            del row["speedup"]
        return cast(schema.Measurement, row)


@dataclass(frozen=True)
class BenchRow:
    """The time of a batch of `batch` images in one runtime."""

    measurement: Measurement
    batch: int

    @property
    def images_per_s(self) -> float:
        """Images a second at the median time."""
        return round(self.batch / self.measurement.median_ms * 1e3, 1)

    def to_json(self) -> dict[str, object]:
        """The measurement's keys, `batch` and `images_per_s`."""
        return {**self.measurement.to_json(), "batch": self.batch, "images_per_s": self.images_per_s}


@dataclass(frozen=True, kw_only=True)
class BatchSpeed:
    """The speed at one batch size.

    Attributes:
        ort_ms: ONNX Runtime's median in milliseconds.
        threads, rounds: How many threads it used, and how often it ran.
        torch_ms, torch_threads: The same of torch in eager mode; None where it was not measured.
        speedup: How many times as fast as torch ONNX Runtime is.
        measurements: Everything that was timed.
    """

    ort_ms: float
    threads: int
    rounds: int
    measurements: tuple[Measurement, ...]
    torch_ms: float | None = None
    torch_threads: int | None = None
    speedup: float | None = None

    def to_json(self) -> schema.BatchSpeed:
        """`speed` of one batch size in `speed.json`; without torch's figures where it was not measured."""
        row = {"ort_ms": self.ort_ms, "rounds": self.rounds, "threads": self.threads}
        compared = {"torch_ms": self.torch_ms, "speedup": self.speedup, "torch_threads": self.torch_threads}
        row |= {key: value for key, value in compared.items() if value is not None}
        return cast(schema.BatchSpeed, {**row, "measurements": [one.to_json() for one in self.measurements]})


@dataclass(frozen=True, kw_only=True)
class PreprocessingTime:
    """Milliseconds from the bytes of one image file to pixels; `what` says from which file to which pixels."""

    median_ms: float
    min_ms: float
    p90_ms: float
    p99_ms: float
    rounds: int
    what: str

    def to_json(self) -> schema.Preprocessing:
        """`preprocessing` in `speed.json`."""
        return cast(schema.Preprocessing, asdict(self))


@dataclass(frozen=True, kw_only=True)
class SpeedReport:
    """What was measured of a graph.

    Attributes:
        environment: The machine, versions and settings.
        batches: The speed by batch size; empty where only the environment was asked for.
        preprocessing: What comes before the graph; None likewise.
    """

    environment: Environment
    batches: Mapping[int, BatchSpeed]
    preprocessing: PreprocessingTime | None = None

    def to_json(self) -> schema.Speed:
        """The content of `speed.json`."""
        content: schema.Speed = {"speed": speeds_to_json(self.batches), "environment": self.environment.to_json()}
        if self.preprocessing is not None:
            content["preprocessing"] = self.preprocessing.to_json()
        return content


def speeds_to_json(batches: Mapping[int, BatchSpeed]) -> dict[str, schema.BatchSpeed]:
    """`speed` in `speed.json`: JSON has no numbers as keys."""
    return {str(size): one.to_json() for size, one in batches.items()}
