"""The training loop: epochs and steps, validation, checkpoints. It knows learners and a feed, and no run directory."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from poolzoo.common import output
from poolzoo.common.errors import CheckFailed, EnvironmentProblem
from poolzoo.data.batches import ALL, Rank
from poolzoo.metrics import classification
from poolzoo.train import distributed, signals
from poolzoo.train.checkpoint import Checkpoint
from poolzoo.train.loaders import Loader
from poolzoo.train.training_module import TrainingModule

SHOW_EVERY = 0.5  # seconds between two readings of loss and accuracy for a progress bar that somebody watches
Line = dict[str, Any]


@dataclass
class Progress:
    """How far a run is: finished epochs with their lines, steps of the next one, seconds of training."""

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    lines: dict[str, list[Line]] = field(default_factory=dict)


@dataclass(frozen=True)
class Fault:
    """Why a state cannot be kept: the step of the epoch, from 1, and the reason in words."""

    step: int
    text: str


class Engine:
    """Trains learners on what a feed serves.

    Args:
        learners: By name; all get the same steps.
        feed: Where steps come from.
        val_labels: Of the feed's validation images, `int64[n]`, all processes' together.
        epochs: How many in all.
        checkpoint: Where the state is kept.
        share: Which part of the batches this process sees; the first process writes.
    """

    def __init__(
        self,
        learners: Mapping[str, TrainingModule],
        feed: Loader,
        val_labels: np.ndarray,
        epochs: int,
        checkpoint: Checkpoint,
        share: Rank = ALL,
    ) -> None:
        self.learners, self.feed, self.val_labels, self.epochs = dict(learners), feed, val_labels, epochs
        self.checkpoint, self.share = checkpoint, share
        self.progress = Progress(lines={name: [] for name in learners})

    def restore(self) -> None:
        """Goes on where the checkpoint stands, if there is one."""
        device = next(iter(self.learners.values())).policy.device
        state = self.checkpoint.read(device)
        if state is None:
            return
        try:
            for name, learner in self.learners.items():
                learner.restore(state["learners"][name])
            self.progress = Progress(**state["progress"])
        except Exception as error:
            raise self.checkpoint.refuse(error) from error
        for learner in self.learners.values():
            if (name := learner.broken()) is not None:
                raise self.checkpoint.refuse_broken(name)
        within = f" and {self.progress.step} of {len(self.feed)} steps" if self.progress.step else ""
        output.say(f"going on after epoch {self.progress.epoch}{within}")

    def run(self, finished: Callable[[int, dict[str, Line]], None]) -> Progress:
        """Trains to the end.

        Args:
            finished: Called in the first process after every epoch with its number and every learner's line.

        Raises:
            CheckFailed: A loss, a gradient or a part of the state is not finite; the last finite state stays saved.
            KeyboardInterrupt: Somebody asked to stop; the state was saved.
            EnvironmentProblem: Another process of the group was lost.
        """
        with output.progress("training", self.epochs * len(self.feed)) as bar:
            while self.progress.epoch < self.epochs:
                with signals.deferred() as request:
                    try:
                        self._epoch(self.progress.epoch + 1, request, bar)
                    except RuntimeError as error:
                        request.obey()
                        if self.share.size == 1 or isinstance(error, torch.OutOfMemoryError):
                            raise
                        text = f"a process of the group was lost: {output.one_line(str(error), 200)}"
                        raise EnvironmentProblem(text, "start it again with --resume and the run directory") from error
                lines = self._judge(self.progress.epoch + 1)
                self._require_finite(self.progress.epoch + 1)  # again: a layer may have written to its buffers
                self.progress.epoch, self.progress.step = self.progress.epoch + 1, 0
                for name, line in lines.items():
                    self.progress.lines[name].append(line)
                    self.learners[name].forget()
                self._save()
                if self.share.rank == 0:
                    finished(self.progress.epoch, lines)
        return self.progress

    def _epoch(self, epoch: int, request: signals.Request, bar: output.Progress) -> None:
        learners, before = list(self.learners.values()), (epoch - 1) * len(self.feed)
        for learner in learners:
            learner.begin(epoch)
        watched = output.shows_progress()
        last = started = shown = time.perf_counter()
        first_step = self.progress.step
        for step in self.feed.epoch(epoch, self.progress.step):
            for learner in learners:
                learner.step(step, before + self.progress.step)
            self.progress.step += 1
            if request.kind is not None or (self.share.rank == 0 and self.checkpoint.due):
                last = self._count_seconds(last)
                self._save_within(epoch)
                request.obey()
            if watched and (now := time.perf_counter()) - shown > SHOW_EVERY:
                shown, totals = now, learners[0].totals()
                rate = (self.progress.step - first_step) / (now - started)
                figures = f"loss {totals.loss:.3f}  acc {totals.accuracy:.3f}  {rate:.1f} steps/s"
                bar.update(before + self.progress.step, figures)
        for learner in learners:
            learner.totals()  # waits for the device, so that the time is the training's
        self._count_seconds(last)
        self._require_finite(epoch)

    def _count_seconds(self, since: float) -> float:
        now = time.perf_counter()
        self.progress.seconds += now - since
        return now

    def _fault(self, epoch: int) -> Fault | None:
        """What in this process is not finite; reads it from the device."""
        for name, learner in self.learners.items():
            place = f"{name}: " if len(self.learners) > 1 else ""
            if (bad := learner.first_bad()) is not None:
                step = bad[0] - (epoch - 1) * len(self.feed) + 1
                return Fault(step, f"{place}the {bad[1]} is NaN or infinite in epoch {epoch}, step {step}")
            if (part := learner.broken()) is not None:
                step = self.progress.step
                return Fault(step, f"{place}{part} holds NaN or infinity after epoch {epoch}, step {step}")
        return None

    def _require_finite(self, epoch: int) -> None:
        """Stops before a state is judged or saved that cannot be trained any more; all processes decide alike."""
        faults = [fault for fault in distributed.gathered(self._fault(epoch), self.share) if fault is not None]
        if faults:
            self._refuse(min(faults, key=lambda fault: fault.step).text)

    def _refuse(self, text: str) -> NoReturn:
        distributed.speak_once(self.share)
        settings = next(iter(self.learners.values())).settings
        hint = f"try a smaller --lr than {settings.lr:g}" + ("" if settings.clip_grad else ", or --clip-grad 1")
        if settings.plugins:
            hint += "; poolzoo plugin check FILE tries a plugin's gradients"
        if self.checkpoint.path.is_file():
            hint += f"; the last finite state is kept for --resume in {self.checkpoint.path}"
        raise CheckFailed(text, hint)

    def _judge(self, epoch: int) -> dict[str, Line]:
        """Measures every learner on the validation images, keeps the best weights, and gives the epoch's lines."""
        parts: dict[str, list[Tensor]] = {name: [] for name in self.learners}
        for learner in self.learners.values():
            distributed.align_buffers(learner.module, self.share)
            if learner.average is not None:
                distributed.align_buffers(learner.average.module, self.share)
            learner.judged.eval()
        for inputs in self.feed.validation():
            for name, learner in self.learners.items():
                parts[name].append(learner.logits(inputs[learner.reads]))
        lines = {}
        spent = self.progress.seconds - sum(line["seconds"] for line in next(iter(self.progress.lines.values()), []))
        for name, learner in self.learners.items():
            mine = torch.cat(parts[name]).cpu().numpy()
            logits = distributed.interleaved(mine, len(self.val_labels), self.share)
            if (classification.predictions(logits) == classification.NO_CLASS).all():
                place = f"{name}: " if len(self.learners) > 1 else ""
                self._refuse(f"{place}all logits of the validation images are NaN or infinite after epoch {epoch}")
            accuracy = classification.accuracy(logits, self.val_labels)
            learner.judge(epoch, accuracy)
            loss, right, seen = distributed.added_up(learner.sums(), self.share).tolist()
            lines[name] = {
                "epoch": epoch,
                "loss": loss / seen,
                "train_accuracy": right / seen,
                "val_loss": _finite(F.cross_entropy(torch.from_numpy(logits), torch.from_numpy(self.val_labels))),
                "val_accuracy": accuracy,
                "lr": learner.schedule.at(epoch * len(self.feed) - 1),
                "seconds": round(spent, 3),
                "images_per_s": round(seen / spent, 1),
            }
        return lines

    def _save_within(self, epoch: int) -> None:
        """Saves the state between two steps, where other processes do not listen: a bad one is told of at the end."""
        if self.share.size == 1:
            self._require_finite(epoch)
        elif self.share.rank == 0 and self._fault(epoch) is not None:
            return self.checkpoint.put_off()
        return self._save()

    def _save(self) -> None:
        if self.share.rank == 0:
            learners = {name: learner.state() for name, learner in self.learners.items()}
            self.checkpoint.write({"progress": dict(vars(self.progress)), "learners": learners})


def _finite(value: Tensor) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
