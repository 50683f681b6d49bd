"""The training loop: epochs, steps, validation and checkpoints. It knows modules and a loader, but no run directory.

The file is long because one class holds the whole loop.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

import numpy as np
import torch
from torch import Tensor

from poolzoo.artifacts.run_report import Ending
from poolzoo.common import files, output
from poolzoo.common.errors import CheckFailed, EnvironmentProblem
from poolzoo.common.text import one_line
from poolzoo.data.batches import SINGLE_PROCESS, Rank
from poolzoo.train import distributed, signals
from poolzoo.train.checkpoint import Checkpoint
from poolzoo.train.epoch_metrics import EpochMetrics
from poolzoo.train.loaders import Loader
from poolzoo.train.progress import Progress
from poolzoo.train.step_plan import StepPlan
from poolzoo.train.stepper import Stepper
from poolzoo.train.time_budget import BudgetClock, ClockReading
from poolzoo.train.training_module import TrainingModule

REFRESH_SECONDS: Final = 0.5  # between two updates of the progress bar, each of which waits for the device
LONGEST_ERROR: Final = 200  # characters of an error of torch that a message quotes
EpochCallback = Callable[[int, Mapping[str, EpochMetrics]], None]


@dataclass(frozen=True)
class NonFinite:
    """Why the state must not be saved: the step of the epoch, counted from 1, and a message."""

    step: int
    message: str


class Engine:
    """Trains modules on the batches of a loader.

    Args:
        modules: By name; all train on the same batches.
        loader: Serves the batches.
        val_labels: Labels of the validation images of all processes, `int64[n]`, or `uint8[n, K]` for several labels.
        plan: The steps of the run; None where the clock fits them to a time budget.
        checkpoint: Where the state is saved.
        rank: This process; rank 0 writes.
        clock: Of a run with a time budget.
        stepper: Takes the steps of several modules at the same time; None to take them one after the other.
    """

    def __init__(
        self,
        modules: Mapping[str, TrainingModule],
        loader: Loader,
        val_labels: np.ndarray,
        plan: StepPlan | None,
        checkpoint: Checkpoint,
        rank: Rank = SINGLE_PROCESS,
        clock: BudgetClock | None = None,
        stepper: Stepper | None = None,
    ) -> None:
        self.stepper = stepper or Stepper(threads=None)
        self.modules = dict(modules)
        self.loader = loader
        self.val_labels = val_labels
        self.plan = plan
        self.checkpoint = checkpoint
        self.rank = rank
        self.clock = clock
        self.progress = Progress(history={name: [] for name in modules})

    def resume(self) -> None:
        """Loads the checkpoint, if there is one.

        Raises:
            CheckFailed: It is damaged, does not fit the modules, or is not finite.
            UsageError: The settings of the run changed.
        """
        device = next(iter(self.modules.values())).policy.device
        state = self.checkpoint.read(device)
        if state is None:
            return
        try:
            for name, module in self.modules.items():
                module.load_state_dict(state["learners"][name])
            self.progress = Progress.from_state_dict(state["progress"])
            if self.clock is not None:
                self.clock.reading = ClockReading.from_state_dict(state["progress"]["clock"])
                self.plan = self.clock.reading.plan
        except Exception as error:
            raise self.checkpoint.mismatch(error) from error
        for module in self.modules.values():
            if (part := module.non_finite_state()) is not None:
                raise self.checkpoint.non_finite(part)
        partial = f" and {self.progress.step} of {len(self.loader)} steps" if self.progress.step else ""
        output.say(f"resuming after epoch {self.progress.epoch}{partial}")

    def run(self, on_epoch_end: EpochCallback) -> Progress:
        """Trains to the last epoch.

        Args:
            on_epoch_end: Called in rank 0 after every epoch, with its number and the metrics of every module.

        Raises:
            CheckFailed: The loss, a gradient or the state is not finite; the last finite checkpoint remains.
            KeyboardInterrupt: SIGINT or SIGTERM arrived; the state is saved.
            EnvironmentProblem: Another process of the group ended.
        """
        device = next(iter(self.modules.values())).policy.device
        with self.stepper.working(device):
            return self._run(on_epoch_end)

    def _run(self, on_epoch_end: EpochCallback) -> Progress:
        plan = self._begin()
        label, length = ("training", plan.total) if self.clock is None else ("training, seconds", self.clock.seconds)
        with output.progress(label, length) as bar:
            while self.steps_done < self._plan.total and self.active:
                epoch = self.progress.epoch + 1
                with signals.defer_signals() as request:
                    self._train_epoch_in_group(epoch, request, bar)
                started = time.perf_counter()
                metrics = self._validate(epoch)
                self._require_finite(epoch)  # again, since a layer may change its buffers in validation
                self.progress.epoch = epoch
                self.progress.step = 0
                for name, own in metrics.items():
                    self.progress.history[name].append(own)
                    self.modules[name].reset_metrics()
                self._save()
                if self.rank.is_zero:
                    on_epoch_end(epoch, metrics)
                if self.clock is not None:
                    self.clock.reading.validation = time.perf_counter() - started
                for name in metrics:
                    if self.is_out_of_patience(name) and self.steps_done < self._plan.total:
                        self._say_out_of_patience(name)
        return self.progress

    def _say_out_of_patience(self, name: str) -> None:
        module = self.modules[name]
        score = module.objective.task.val_score
        output.say(
            f"{self._label(name)}stopped after epoch {self.progress.epoch}: the validation {score} of epoch "
            f"{module.best.epoch} is still the best (--patience {module.settings.patience})"
        )

    @property
    def steps_done(self) -> int:
        """Finished steps of the run."""
        return min(self.progress.epoch * len(self.loader) + self.progress.step, self._plan.total)

    @property
    def epochs(self) -> int:
        """Epochs of the run; the last one may be a part of one."""
        return -(-self._plan.total // len(self.loader))

    def ending(self, name: str) -> Ending:
        """How long a module trained, and what ended it."""
        epochs = len(self.progress.history[name])
        steps = min(epochs * len(self.loader), self._plan.total)
        if self.is_out_of_patience(name) and steps < self._plan.total:
            return Ending(epochs=epochs, steps=steps, by="patience")
        return Ending(epochs=epochs, steps=steps, by=None if self.clock is None else "time budget")

    @property
    def active(self) -> dict[str, TrainingModule]:
        """The modules that still train: those whose validation score is not older than `--patience` allows."""
        return {name: module for name, module in self.modules.items() if not self.is_out_of_patience(name)}

    def is_out_of_patience(self, name: str) -> bool:
        """Whether a module has had no better validation score for as many epochs as `--patience` says."""
        module = self.modules[name]
        patience = module.settings.patience
        return patience is not None and len(self.progress.history[name]) - module.best.epoch >= patience

    @property
    def _plan(self) -> StepPlan:
        assert self.plan is not None  # `_begin` makes one
        return self.plan

    def _begin(self) -> StepPlan:
        """The steps of the run. With a time budget the clock starts, and measures the first steps of a new run."""
        if self.clock is not None:
            self.clock.start()
            if self.plan is None:
                with signals.defer_signals() as request:
                    self.plan = self.clock.plan(self.modules, self.loader, len(self.rank.shard(self.val_labels)))
                request.raise_if_requested()
                output.say(self.clock.describe())
            self.clock.measure_from(self.steps_done, self.progress.seconds)
        for module in self.modules.values():
            module.follow(self._plan)
        return self._plan

    def _refit(self) -> None:
        """Fits the steps to the time that is left; waits for the device."""
        assert self.clock is not None
        self.plan = self.clock.refit(self.steps_done, self.progress.seconds)
        for module in self.modules.values():
            module.follow(self.plan)

    def _train_epoch_in_group(self, epoch: int, request: signals.StopRequest, bar: output.Progress) -> None:
        """Trains an epoch and explains the errors of torch when another process of the group ended."""
        try:
            self._epoch(epoch, request, bar)
        except RuntimeError as error:
            request.raise_if_requested()
            if not self.rank.is_distributed or isinstance(error, torch.OutOfMemoryError):
                raise
            text = f"a process of the group ended: {one_line(str(error), LONGEST_ERROR)}"
            raise EnvironmentProblem(text, "start it again with --resume and the run directory") from error

    def _epoch(self, epoch: int, request: signals.StopRequest, bar: output.Progress) -> None:
        modules = list(self.active.values())
        steps_before = (epoch - 1) * len(self.loader)
        for module in modules:
            module.start_epoch(epoch)
        shows_progress = output.shows_progress()
        last = started = shown = time.perf_counter()
        first_step = self.progress.step
        keys = {module.input_key for module in modules}
        for batch in self.stepper.ahead(self.loader.epoch(epoch, self.progress.step), keys):
            self.stepper.step(modules, batch, steps_before + self.progress.step)
            self.progress.step += 1
            if self.clock is not None and self.clock.is_due(self.steps_done):
                _wait_for_device(modules)
                last = self._count_seconds(last)
                self._refit()
            if request.is_pending or (self.rank.is_zero and self.checkpoint.is_due):
                last = self._count_seconds(last)
                self._save_within(epoch)
                request.raise_if_requested()
            if shows_progress and (now := time.perf_counter()) - shown > REFRESH_SECONDS:
                shown = now
                means = modules[0].training_means()
                rate = (self.progress.step - first_step) / (now - started)
                score = f"{modules[0].objective.task.train_score} {means.score:.3f}"
                text = f"loss {means.loss:.3f}  {score}  {rate:.1f} steps/s"
                bar.update(self.steps_done if self.clock is None else self.clock.read().wall, text)
            if self.steps_done == self._plan.total:
                break  # the last epoch may be a part of one
        _wait_for_device(modules)  # so that the measured time includes all steps
        self._count_seconds(last)
        self._require_finite(epoch)

    def _count_seconds(self, since: float) -> float:
        now = time.perf_counter()
        self.progress.seconds += now - since
        return now

    def _label(self, name: str) -> str:
        """The prefix of messages about one module of several."""
        return f"{name}: " if len(self.modules) > 1 else ""

    def _find_non_finite(self, epoch: int) -> NonFinite | None:
        """The first loss, gradient or state of this process that is not finite; waits for the device."""
        for name, module in self.modules.items():
            if (bad := module.first_non_finite_step()) is not None:
                step = bad.step - (epoch - 1) * len(self.loader) + 1
                text = f"{self._label(name)}the {bad.what} is NaN or infinite in epoch {epoch}, step {step}"
                return NonFinite(step=step, message=text)
            if (part := module.non_finite_state()) is not None:
                step = self.progress.step
                text = f"{self._label(name)}{part} holds NaN or infinity after epoch {epoch}, step {step}"
                return NonFinite(step=step, message=text)
        return None

    def _require_finite(self, epoch: int) -> None:
        """Stops all processes before a state that is not finite is validated or saved."""
        found = distributed.all_gather_objects(self._find_non_finite(epoch), self.rank)
        if bad := [each for each in found if each is not None]:
            self._fail(min(bad, key=lambda each: each.step).message)

    def _fail(self, text: str) -> NoReturn:
        distributed.show_in_rank_zero_only(self.rank)
        settings = next(iter(self.modules.values())).settings
        hint = f"try a smaller --lr than {settings.lr:g}" + ("" if settings.clip_grad else ", or --clip-grad 1")
        if settings.plugins:
            hint += "; poolzoo plugin check FILE tests a plugin's gradients"
        if files.has_file(self.checkpoint.path):
            hint += f"; the last finite state is kept for --resume in {self.checkpoint.path}"
        raise CheckFailed(text, hint)

    def _validate(self, epoch: int) -> dict[str, EpochMetrics]:
        """Measures every module on the validation images and keeps its weights if they are the best."""
        logits = self._validation_logits()
        history = max(self.progress.history.values(), key=len)
        seconds = self.progress.seconds - sum(each.seconds for each in history)
        metrics = {}
        for name, module in self.active.items():
            if not module.objective.is_decided(logits[name]).any():
                text = f"all logits of the validation images are NaN or infinite after epoch {epoch}"
                self._fail(self._label(name) + text)
            score = module.objective.val_score(logits[name], self.val_labels)
            module.update_best(epoch, score)
            loss, train_score, images = distributed.all_reduce_sum(module.metric_sums(), self.rank).tolist()
            val_loss = module.objective.val_loss(torch.from_numpy(logits[name]), torch.from_numpy(self.val_labels))
            metrics[name] = EpochMetrics(
                epoch=epoch,
                loss=loss / images,
                train_score=train_score / images,
                val_loss=_finite_or_none(val_loss),
                val_score=score,
                lr=module.schedule.lr_at(self.steps_done - 1),
                seconds=round(seconds, 3),
                images_per_s=round(images / seconds, 1),
                task=module.objective.task,
            )
        return metrics

    def _validation_logits(self) -> dict[str, np.ndarray]:
        """The logits of every module for the validation images of all processes, `float32[n, classes]`."""
        active = self.active
        parts: dict[str, list[Tensor]] = {name: [] for name in active}
        for module in active.values():
            distributed.broadcast_buffers(module.module, self.rank)
            if module.ema is not None:
                distributed.broadcast_buffers(module.ema.module, self.rank)
            module.eval_module.eval()
        for inputs in self.stepper.ahead(self.loader.validation(), {module.input_key for module in active.values()}):
            found = self.stepper.logits(list(active.values()), inputs)
            for name, logits in zip(active, found, strict=True):
                parts[name].append(logits)
        return {
            name: distributed.all_gather(torch.cat(shards).cpu().numpy(), len(self.val_labels), self.rank)
            for name, shards in parts.items()
        }

    def _save_within(self, epoch: int) -> None:
        """Saves between two steps. Other processes do not wait here, so a non-finite state is reported later."""
        if not self.rank.is_distributed:
            self._require_finite(epoch)
        elif self.rank.is_zero and self._find_non_finite(epoch) is not None:
            self.checkpoint.postpone()
            return
        self._save()

    def _save(self) -> None:
        if self.rank.is_zero:
            modules = {name: module.state_dict() for name, module in self.modules.items()}
            progress = self.progress.state_dict()
            if self.clock is not None:
                progress["clock"] = self.clock.read().state_dict()
            self.checkpoint.write({"progress": progress, "learners": modules})


def _wait_for_device(modules: Iterable[TrainingModule]) -> None:
    for module in modules:
        module.training_means()


def _finite_or_none(value: Tensor) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
