"""What became of each trial, as a type, and the journal of a comparison. Needs no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from poolzoo.common import json_reader
from poolzoo.common.errors import CheckFailed
from poolzoo.compare.grid import Trial
from poolzoo.compare.journal import Journal
from poolzoo.compare.racing import Stopped, stopped_from_json
from poolzoo.report import results
from poolzoo.report.results import CorruptionAccuracy

FILE: Final = "journal.jsonl"


@dataclass(frozen=True)
class Consistency:
    """How stable predictions are under one kind of shift.

    Attributes:
        consistency: Share of images, 0–1, whose prediction is the same in both shifted copies.
        stability: Share of images, 0–1, whose prediction is right in both.
        reach: The largest shift, in pixels.
    """

    consistency: float
    stability: float | None
    reach: int

    @classmethod
    def from_json(cls, value: object) -> Consistency | None:
        found = json_reader.mapping(value)
        consistency = json_reader.number(found.get("consistency"))
        if consistency is None:
            return None
        return cls(
            consistency, json_reader.number(found.get("stability")), json_reader.integer(found.get("reach")) or 0
        )


@dataclass(frozen=True)
class Robustness:
    """Robustness of one trained network; None throughout where it could not be measured."""

    crop_consistency: Consistency | None = None
    shift_consistency: Consistency | None = None
    corruption_accuracy: CorruptionAccuracy | None = None


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One line of the journal.

    Attributes:
        trial: The trial's key.
        status: "done" or "failed".
        error: Why it failed.
        run: Its run directory.
        accuracy, f1: On the test images, 0–1.
        validation: Accuracy on the validation images, 0–1.
        seconds: That training took.
        robustness: None where it has not been tried yet.
        params, macs: Size of the network, and operations for one image.
        parity: Whether its exported graph passed; None where it has not been exported.
        latency_ms, latency_ms_32: Under ONNX Runtime, for one image and for 32.
    """

    trial: str
    status: str
    backbone: str
    pool: str
    local_pool: str | None
    seed: int
    error: str | None = None
    run: str | None = None
    accuracy: float | None = None
    f1: float | None = None
    validation: float | None = None
    seconds: float | None = None
    robustness: Robustness | None = None
    params: int | None = None
    macs: int | None = None
    parity: bool | None = None
    latency_ms: float | None = None
    latency_ms_32: float | None = None

    @property
    def done(self) -> bool:
        return self.status == "done"

    @property
    def path(self) -> Path:
        """The run directory of a finished trial.

        Raises:
            CheckFailed: The record names none.
        """
        if self.run is None:
            raise CheckFailed(f"the journal names no run of {self.trial}", "start another comparison")
        return Path(self.run)

    @classmethod
    def of(cls, trial: Trial, status: str) -> TrialRecord:
        """A record without figures."""
        variant = trial.variant
        return cls(
            trial=trial.key,
            status=status,
            backbone=variant.backbone,
            pool=variant.pool,
            local_pool=variant.local_pool,
            seed=trial.seed,
        )

    def to_json(self) -> dict[str, object]:
        """Without what is not known yet."""
        return {key: value for key, value in asdict(self).items() if value is not None or key == "local_pool"}

    @classmethod
    def from_json(cls, line: Mapping[str, object]) -> TrialRecord:
        """Reads a line of the journal, also of earlier versions."""
        return cls(
            trial=str(line.get("trial")),
            status=str(line.get("status")),
            backbone=str(line.get("backbone")),
            pool=str(line.get("pool")),
            local_pool=json_reader.text(line.get("local_pool")),
            seed=json_reader.integer(line.get("seed")) or 0,
            error=json_reader.text(line.get("error")),
            run=json_reader.text(line.get("run")),
            accuracy=json_reader.number(line.get("accuracy")),
            f1=json_reader.number(line.get("f1")),
            validation=json_reader.number(line.get("validation")),
            seconds=json_reader.number(line.get("seconds")),
            robustness=_robustness(line),
            params=json_reader.integer(line.get("params")),
            macs=json_reader.integer(line.get("macs")),
            parity=json_reader.flag(line.get("parity")),
            latency_ms=json_reader.number(line.get("latency_ms")),
            latency_ms_32=json_reader.number(line.get("latency_ms_32")),
        )


def _robustness(line: Mapping[str, object]) -> Robustness | None:
    if "shift" in line:  # a line of an earlier version
        shift = json_reader.mapping(line["shift"])
        found = {"crop_consistency": shift.get("zhang"), "shift_consistency": shift.get("circular")}
        found["corruption_accuracy"] = line.get("corruption")
    elif "robustness" in line:
        found = dict(json_reader.mapping(line["robustness"]))
    else:
        return None
    return Robustness(
        crop_consistency=Consistency.from_json(found.get("crop_consistency")),
        shift_consistency=Consistency.from_json(found.get("shift_consistency")),
        corruption_accuracy=results.corruption_accuracy(found.get("corruption_accuracy")),
    )


class TrialRecords:
    """The trials of a comparison by their keys, what its races stopped, and its hours; all in `journal.jsonl`.

    Attributes:
        trials: By key.
        looks: What races have stopped: by backbone, number of the look, and name.
        hours: That all sessions took, this one as it was last written.
    """

    def __init__(self, out: Path) -> None:
        self._journal = Journal(out / FILE)
        self.trials: dict[str, TrialRecord] = {}
        self.looks: dict[str, dict[int, dict[str, Stopped]]] = {}
        self._hours_before = 0.0
        self._session = f"session {datetime.now(UTC).isoformat()} {os.getpid()}"
        for line in self._journal.records.values():
            if line.get("status") == "session":
                self._hours_before += json_reader.number(line.get("hours")) or 0.0
            elif line.get("status") == "look":
                of_backbone = self.looks.setdefault(str(line.get("backbone")), {})
                of_backbone[json_reader.integer(line.get("look")) or 0] = stopped_from_json(line.get("stopped"))
            else:
                record = TrialRecord.from_json(line)
                self.trials[record.trial] = record
        self.hours = self._hours_before

    def __getitem__(self, trial: Trial) -> TrialRecord:
        return self.trials[trial.key]

    def done(self, trial: Trial) -> bool:
        """Whether a trial has finished; one that failed is tried again."""
        return trial.key in self.trials and self[trial].done

    def stopped(self, backbone: str) -> dict[str, Stopped]:
        """The variants of a backbone that its race has stopped, by name."""
        return {name: one for look in self.looks.get(backbone, {}).values() for name, one in look.items()}

    def is_stopped(self, trial: Trial) -> bool:
        """Whether a race has stopped a trial's variant."""
        return trial.variant.name in self.stopped(trial.variant.backbone)

    def add(self, record: TrialRecord) -> None:
        """Writes a record; the last one of a trial counts."""
        self.trials[record.trial] = record
        self._journal.add(record.to_json())

    def add_look(self, backbone: str, number: int, stopped: Mapping[str, Stopped]) -> None:
        """Writes what a look has stopped, all in one line, so that it is never taken twice."""
        self.looks.setdefault(backbone, {})[number] = dict(stopped)
        line = {"trial": f"look {number} {backbone}", "status": "look", "backbone": backbone, "look": number}
        self._journal.add({**line, "stopped": {name: one.to_json() for name, one in stopped.items()}})

    def set_session(self, seconds: float) -> None:
        """Writes how long this process has taken up to now; a killed one has taken as long as it last wrote."""
        self.hours = self._hours_before + seconds / 3600
        self._journal.add({"trial": self._session, "status": "session", "hours": seconds / 3600})
