"""`metrics.json` of a run: what the trained network achieves, and what training cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from poolzoo.artifacts.reading import OTHER_VERSION
from poolzoo.common import conform, files
from poolzoo.common.errors import CheckFailed
from poolzoo.metrics.calibration_fit import CalibrationFit
from poolzoo.metrics.multilabel_results import MultilabelMetrics
from poolzoo.metrics.reliability import ReliabilityChange
from poolzoo.metrics.results import AnyMetrics, metrics_from_json
from poolzoo.metrics.tasks import CLASSIFICATION, MULTILABEL, TASKS, Task

FILE: Final = "metrics.json"


@dataclass(frozen=True)
class PeakMemory:
    """The largest memory of a process in bytes; None where it is unknown.

    Attributes:
        host_bytes: Peak resident set of the process.
        device_bytes: Peak that torch's allocator handed out on a CUDA device.
    """

    host_bytes: int | None
    device_bytes: int | None


@dataclass(frozen=True)
class Ending:
    """How long a run trained.

    Attributes:
        epochs: Number of epochs; of the last one, perhaps a part.
        steps: Number of steps.
        by: "patience" or "time budget", whichever ended it; None if it trained for as long as its settings say.
    """

    epochs: int
    steps: int
    by: str | None


@dataclass(frozen=True)
class RunReport:
    """The result of a finished run.

    Attributes:
        path: The run directory.
        val: Metrics on the held-out images of the epoch whose weights were kept.
        best_epoch: That epoch, counted from 1.
        test: Metrics on the test images.
        test_flip_tta: Test accuracy, or mAP, averaged over each image and its mirror image; None where mirroring
            changes labels.
        seconds: Duration of training, without validation and test.
        images_per_s: Training throughput.
        peak_memory: Of the first process.
        processes: Number of processes that trained together.
        skipped: Images that could not be read, each with `file` and `error`.
        ending: How long it trained; None for a run of an earlier version.
        fit: What the validation images say about calibration; None without, and for a run of an earlier version.
        reliability: How far the probabilities of the test images can be believed; None in a trial of a comparison.
    """

    path: Path
    val: AnyMetrics
    best_epoch: int
    test: AnyMetrics
    test_flip_tta: float | None
    seconds: float
    images_per_s: float
    peak_memory: PeakMemory
    processes: int
    skipped: tuple[Mapping[str, str], ...] = ()
    ending: Ending | None = None
    fit: CalibrationFit | None = None
    reliability: ReliabilityChange | None = None

    @property
    def task(self) -> Task:
        """The task, which the metrics show."""
        return TASKS[MULTILABEL if isinstance(self.test, MultilabelMetrics) else CLASSIFICATION]

    def to_json(self) -> dict[str, object]:
        """The object in `metrics.json`."""
        flip_tta = None if self.test_flip_tta is None else {self.task.score_key: self.test_flip_tta}
        return {
            "run": self.path.name,
            "val": {**self.val.to_json(), "epoch": self.best_epoch},
            "test": {**self.test.to_json(), **self._reliability()},
            "test_flip_tta": flip_tta,
            "seconds": self.seconds,
            "images_per_s": self.images_per_s,
            "peak_memory": asdict(self.peak_memory),
            "processes": self.processes,
            **({"calibration": self.fit.to_json()} if self.fit is not None else {}),
            **({"ending": asdict(self.ending)} if self.ending is not None else {}),
            **self._skipped_rows(),
        }

    def summary(self) -> dict[str, object]:
        """The object that `poolzoo finetune --json` prints last."""
        return {
            "run": str(self.path),
            "test": self.test.summary(),
            "val": {**self.val.summary(), "epoch": self.best_epoch},
            "seconds": self.seconds,
            "images_per_s": self.images_per_s,
            **({"ending": asdict(self.ending)} if self.ending is not None else {}),
            **self._skipped_rows(),
        }

    def _reliability(self) -> dict[str, object]:
        return {"reliability": self.reliability.to_json()} if self.reliability is not None else {}

    def _skipped_rows(self) -> dict[str, object]:
        return {"skipped": [dict(row) for row in self.skipped]} if self.skipped else {}

    @classmethod
    def load(cls, path: Path) -> RunReport:
        """Reads `metrics.json` of a finished run, also of earlier versions.

        Args:
            path: The run directory.

        Raises:
            CheckFailed: The file is missing or damaged, or lacks a key.
        """
        found = files.read_json(path / FILE)
        try:
            return conform.require(cls._of(path, found), cls, path / FILE, OTHER_VERSION)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            what = f"lacks {error}" if isinstance(error, KeyError) else f"is damaged: {error}"
            raise CheckFailed(f"{path / FILE} {what}", OTHER_VERSION) from error

    @classmethod
    def _of(cls, path: Path, found: Mapping[str, Any]) -> RunReport:
        flip_tta = found.get("test_flip_tta")
        memory = found.get("peak_memory") or {}
        trusted = found["test"].get("reliability")
        return cls(
            path=path,
            val=metrics_from_json(found["val"]),
            best_epoch=found["val"]["epoch"],
            test=metrics_from_json(found["test"]),
            test_flip_tta=None if flip_tta is None else next(iter(flip_tta.values()), None),
            seconds=found["seconds"],
            images_per_s=found["images_per_s"],
            peak_memory=PeakMemory(host_bytes=memory.get("host_bytes"), device_bytes=memory.get("device_bytes")),
            processes=found.get("processes", 1),
            skipped=tuple(found.get("skipped", ())),
            ending=Ending(**found["ending"]) if found.get("ending") else None,
            fit=CalibrationFit.from_json(found["calibration"]) if found.get("calibration") else None,
            reliability=ReliabilityChange.from_json(trusted) if trusted else None,
        )
