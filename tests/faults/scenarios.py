"""The commands that faults hit: what each starts from, what it makes, and how one goes on after a fault."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

# Kinds of faults and their weights; `faults.bench` has what they mean.
KILLS: Final = {
    "kill": 6,
    "power": 2,
    "term": 2,
    "int": 2,
    "hup": 1,
    "int-twice": 1,
    "hup-twice": 1,
    "kill%": 2,
    "term%": 1,
    "int%": 1,
    "child%": 0.5,
}
DISKS: Final = {"full": 3, "quota": 0.5, "disk%": 1, "eio": 2, "readonly": 1, "denied": 1, "short": 0.5, "nolocks": 0.5}
TWINS: Final = {"twin": 2, "gone": 1}
CLOCKS: Final = {"ahead": 0.5, "behind": 0.5}
DIGITS: Final = ("--data", "digits", "--limit", "100", "--epochs", "2", "--batch-size", "30", "--threads", "1")
PLAIN: Final = ("--backbone", "nano/plain", "--pool", "gem")
TRAIN: Final = ("finetune", *DIGITS, *PLAIN, "--no-check-export")
PHOTOS: Final = (
    *("--data", "folder:photos", "--image-size", "16", "--epochs", "2", "--batch-size", "12", "--threads", "1"),
)


@dataclass(frozen=True)
class Scenario:
    """A command under faults. All paths are relative to a box, a directory of its own.

    Attributes:
        command: The words behind `poolzoo`.
        made: What it makes, or changes.
        done: A file or directory whose presence means that the result is whole; "" where nothing says it.
        says: A text that this file has then.
        settle: A command that must succeed after any fault, where there was a whole result before.
        begun: A file whose presence means that `resume` goes on; without it the command is given again.
        resume: The command that goes on.
        inputs: What lies in the box before: names of materials, with a `:` and the name in the box where it differs.
        kinds: The weights with which kinds of faults are drawn.
        gone: Directories that may vanish under the command.
        needs: Modules without which it is left out.
    """

    command: tuple[str, ...]
    made: tuple[str, ...]
    done: str = ""
    says: str = ""
    settle: tuple[str, ...] = ()
    begun: str = ""
    resume: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    kinds: Mapping[str, float] = field(default_factory=lambda: {**KILLS, **DISKS, **TWINS, **CLOCKS})
    gone: tuple[str, ...] = ("cache",)
    weight: float = 1.0
    needs: tuple[str, ...] = ()

    def next(self, box: Path) -> tuple[str, ...]:
        """The command that a user gives after a fault: () where the result is whole already."""
        done = box / self.done
        if self.done and done.exists() and (not self.says or self.says in done.read_text()):
            return ()
        return self.resume if self.begun and (box / self.begun).is_file() else self.command


def _run(*words: str, **more: object) -> Scenario:
    facts: dict[str, object] = {"gone": ("cache", "run"), **more}
    return Scenario(
        command=(*words, "--out", "run"),
        made=("run",),
        done="run/manifest.json",
        begun="run/run.toml",
        resume=("finetune", "--resume", "run"),
        **facts,  # type: ignore[arg-type]
    )


def _compare(*words: str, **more: object) -> Scenario:
    measures = ("--seeds", "1", "--robustness-samples", "0", "--export-top", "0")
    facts: dict[str, object] = {"gone": ("cache", "comparison"), **more}
    return Scenario(
        command=("compare", *words, *measures, "--out", "comparison"),
        made=("comparison",),
        begun="comparison/plan.json",
        resume=("compare", "--resume", "comparison"),
        **facts,  # type: ignore[arg-type]
    )


SCENARIOS: Final[Mapping[str, Scenario]] = {
    "finetune": _run(*TRAIN, weight=3),
    "finetune-pretrained": _run("finetune", *DIGITS, "--backbone", "nano/resnet", "--pretrained", "--no-check-export"),
    "resume": Scenario(
        command=("finetune", "--resume", "run"),
        made=("run",),
        done="run/manifest.json",
        begun="run/run.toml",
        resume=("finetune", "--resume", "run"),
        inputs=("half:run",),
        weight=2,
    ),
    "cache-decoded": _run(
        *("finetune", *PHOTOS, *PLAIN, "--no-check-export", "--data-cache", "decoded"), inputs=("photos",), weight=1.5
    ),
    "cache-reduced": _run(
        *("finetune", *PHOTOS, *PLAIN, "--no-check-export", "--data-cache", "reduced", "--data-workers", "2"),
        inputs=("photos",),
        weight=1.5,
    ),
    "compare": _compare(*DIGITS, "--backbone", "nano/plain", "--pool", "avg,gem", weight=2),
    "compare-frozen": _compare(
        *(*DIGITS, "--backbone", "nano/resnet", "--pretrained", "--pool", "avg,gem", "--freeze", "backbone"), weight=1.5
    ),
    "compare-budget": _compare(
        *(*DIGITS, "--backbone", "nano/plain", "--pool", "avg,gem", "--time-budget", "1h"), kinds=CLOCKS, weight=0.3
    ),
    "export": Scenario(
        command=("export", "run", "--no-bench", "--out", "bundle"),
        made=("bundle",),
        done="bundle",
        inputs=("run",),
        gone=("tmp",),
    ),
    "export-int8": Scenario(
        command=("export", "run", "--no-bench", "--precision", "int8", "--min-agreement", "0.1", "--out", "bundle"),
        made=("bundle",),
        done="bundle",
        inputs=("run",),
        weight=0.3,
        gone=("tmp",),
    ),
    "export-half": Scenario(
        command=("export", "run", "--no-bench", "--precision", "fp16", "--min-agreement", "0.1", "--out", "bundle"),
        made=("bundle",),
        done="bundle",
        inputs=("run",),
        weight=0.3,
        gone=("tmp",),
    ),
    "verify-runtime": Scenario(
        command=("verify", "bundle", "--no-bench", "--plugin", "runtime.py", "--runtime", "fake"),
        made=("bundle",),
        done="bundle/runtimes.html",
        inputs=("bundle", "runtime.py"),
        gone=("tmp",),
        weight=0.5,
    ),
    "calibrate": Scenario(
        command=("evaluate", "run", "--calibrate"),
        made=("run",),
        done="run/config.json",
        says='"calibration"',
        settle=("evaluate", "run", "--threads", "1"),
        inputs=("plain:run",),
        weight=1.5,
    ),
    "report": Scenario(
        command=("report", "run", "run2", "--out", "report"),
        made=("report",),
        done="report",
        inputs=("run", "run2"),
    ),
    "plugin-new": Scenario(
        command=("plugin", "new", "my-pool"),
        made=("my-pool",),
        done="my-pool",
        gone=(),
    ),
    "download": Scenario(
        command=("finetune", "--plugin", "remote.py", "--data", "remote", *PLAIN, "--dry-run"),
        made=("fetched",),
        inputs=("remote.py",),
    ),
    "predict": Scenario(
        command=("predict", "bundle", "photos", "--out", "predictions"),
        made=("predictions",),
        begun="predictions/predict.json",
        resume=("predict", "--resume", "predictions"),
        inputs=("bundle", "photos"),
        gone=("predictions/parts",),
        needs=("pyarrow",),
    ),
    "predict-ray": Scenario(
        command=("predict", "bundle", "photos", "--out", "predictions", "--executor", "ray"),
        made=("predictions",),
        begun="predictions/predict.json",
        resume=("predict", "--resume", "predictions"),
        inputs=("bundle", "photos"),
        gone=(),
        kinds={"kill": 2, "term": 2, "int": 2},
        weight=0.15,
        needs=("pyarrow", "ray"),
    ),
    "choose": Scenario(
        command=(
            *("choose", "--data", "digits", "--limit", "100", "--epochs", "2", "--threads", "1", "--seeds", "1"),
            *("--backbone", "nano/plain", "--pool", "avg,gem", "--local-pool", "none", "--time-budget", "10m"),
            *("--out", "choice"),
        ),
        made=("choice",),
        begun="choice/choose.json",
        resume=("choose", "--resume", "choice"),
        gone=(),
        weight=0.3,
    ),
    "data-check": Scenario(
        command=("data", "check", "folder:photos"),
        made=("cache",),
        inputs=("photos",),
        gone=(),
    ),
}


def available() -> dict[str, Scenario]:
    """The scenarios whose modules are installed."""
    from importlib.util import find_spec

    return {name: one for name, one in SCENARIOS.items() if all(map(find_spec, one.needs))}
