"""One module in training: its optimizer, schedule, moving average, best weights, and the training step.

A run trains one module. On a frozen backbone it can train several heads with the same batches; each of them trains as
if it were alone.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import NotRequired, Protocol, TypedDict, cast

import torch
from torch import Tensor, nn

from poolzoo.data.batches import Rank
from poolzoo.model.accounting import fill_exactly
from poolzoo.model.compiled import compiled
from poolzoo.train import finite, optimizer, stages
from poolzoo.train.device import DevicePolicy
from poolzoo.train.ema import EmaState, ModelEma
from poolzoo.train.loaders import TrainingBatch
from poolzoo.train.losses import Objective
from poolzoo.train.settings import Settings
from poolzoo.train.step_plan import StepPlan

Weights = dict[str, Tensor]


class BestState(TypedDict):
    """What a checkpoint keeps of `BestWeights`."""

    epoch: int
    score: NotRequired[float]
    accuracy: NotRequired[float]  # the score in earlier versions
    weights: Weights


class ModuleState(TypedDict):
    """What a checkpoint keeps of a `TrainingModule`."""

    module: Weights
    optimizer: dict[str, object]
    average: EmaState | None
    best: BestState
    sums: tuple[Tensor, Tensor, int]


@dataclass(frozen=True)
class BestWeights:
    """The weights with the highest validation score; of equal ones the earliest.

    Attributes:
        epoch: Counted from 1; 0 before the first validation.
        score: Of the objective, on the validation images.
        weights: A copy of the state dict.
    """

    epoch: int = 0
    score: float = -1.0
    weights: Weights = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingMeans:
    """Mean loss and score over the training images that this process has seen in an epoch."""

    loss: float
    score: float


@dataclass(frozen=True)
class NonFiniteStep:
    """A step of the run, counted from 0, in which the loss or a gradient was NaN or infinite."""

    step: int
    what: str


class _Wrapped(Protocol):
    """What `DistributedDataParallel` adds to a module."""

    def no_sync(self) -> AbstractContextManager[object]: ...


class TrainingModule:
    """A network, or a head on features, in training.

    Args:
        module: The module on its device; it maps the inputs of `input_key` to logits.
        input_key: The key of its inputs in a batch.
        objective: The loss and the scores.
        settings: With every default filled in.
        plan: The steps of the run.
        policy: The device.
        rank: This process.
        draws: Whether a step draws random numbers; None if that is not known, until `step_observed` finds out.
    """

    def __init__(
        self,
        module: nn.Module,
        input_key: str,
        objective: Objective,
        settings: Settings,
        plan: StepPlan,
        policy: DevicePolicy,
        rank: Rank,
        draws: bool | None = None,
    ) -> None:
        assert settings.lr is not None  # `prepare` fills in every default
        assert settings.weight_decay is not None
        self.module = module
        self.input_key = input_key
        self.objective = objective
        self.settings = settings
        self.policy = policy
        self.rank = rank
        self.draws = draws
        rates = optimizer.LearningRates(
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            head_mult=settings.head_lr_mult,
            layer_decay=settings.layer_decay,
        )
        self.optimizer = optimizer.create_optimizer(settings.optimizer, module, rates)
        self.follow(plan)
        self.ema = ModelEma(module, settings.ema) if settings.ema else None
        self.best = BestWeights()
        self._infinite_buffers = finite.infinite_buffers(module)
        self._wrapped: nn.Module | None = None
        self._frozen_stages = settings.freeze_stages or 0
        self.reset_metrics()

    def follow(self, plan: StepPlan) -> None:
        """Fits the learning rates to the steps of the run.

        Args:
            plan: The steps.
        """
        assert self.settings.lr is not None
        self.schedule: optimizer.Schedule = optimizer.LrSchedule(
            lr=self.settings.lr, plan=plan, warmup=self.settings.warmup, decay=self.settings.lr_schedule
        )

    @property
    def eval_module(self) -> nn.Module:
        """The module that is validated and kept: the moving average if there is one."""
        return self.ema.module if self.ema is not None else self.module

    def reset_metrics(self) -> None:
        """Sets loss and score of the epoch to zero."""
        device = self.policy.device
        self._loss_sum = torch.zeros((), device=device)
        self._score_sum = torch.zeros((), device=device, dtype=self.objective.score_dtype)
        self._images = 0
        # Steps of the first loss and of the first gradient that were not finite; −1 for none.
        self._non_finite_steps = torch.full((2,), -1, device=device, dtype=torch.int64)

    def start_epoch(self, epoch: int) -> None:
        """Unfreezes the stages that are due and sets training and eval modes.

        Args:
            epoch: Counted from 1.
        """
        initial, every = self.settings.freeze_stages, self.settings.unfreeze_every
        if initial is not None:
            count = max(0, initial - (epoch - 1) // every) if every else initial
            stages.freeze_stages(cast(nn.Module, self.module.backbone), count)
            if count != self._frozen_stages:
                self._frozen_stages = count
                self._wrapped = None
        stages.set_training_mode(self.module)
        self._first_trainable = next(parameter for parameter in self.module.parameters() if parameter.requires_grad)

    def step(self, batch: TrainingBatch, number: int) -> None:
        """Forward pass, loss, backward pass and update; nothing waits for the device.

        Args:
            batch: Inputs and labels.
            number: Steps of the whole run before this one.
        """
        self.seed(number)
        self.step_unseeded(batch, number)

    def seed(self, number: int) -> None:
        """Seeds a step.

        Random layers depend on the seed, the step and the rank only, so that a checkpoint needs no random state.
        """
        self.policy.seed((self.settings.seed * 0x9E3779B1 + number * 0x85EBCA77 + self.rank.rank) & 0xFFFFFFFF)

    def step_observed(self, batch: TrainingBatch, number: int) -> None:
        """A step that finds out whether it draws from torch's generator of the CPU."""
        self.seed(number)
        before = torch.default_generator.get_state()
        self.step_unseeded(batch, number)
        self.draws = self.draws or not torch.equal(before, torch.default_generator.get_state())

    def step_unseeded(self, batch: TrainingBatch, number: int) -> None:
        """A step of a module that draws no random numbers; it may run beside others."""
        self.schedule.apply(self.optimizer, number)
        wrapped = self._wrap()
        count = len(batch.labels)
        parts = min(self.settings.grad_accum, count)
        losses = []
        for index, part in enumerate(batch.split(self.input_key, parts)):
            with self._synchronize_gradients(wrapped, last=index == parts - 1):
                with self.policy.context():
                    logits = wrapped(part.x)
                loss = self.objective.loss(logits.float(), part) * (len(part.labels) / count)
                loss.backward()  # type: ignore[no-untyped-call]
            self._loss_sum += loss.detach() * count
            self._score_sum += self.objective.train_score(logits.detach(), part.labels)
            losses.append(loss.detach())
        self.last_loss = torch.stack(losses).sum()
        self._record_non_finite(self.last_loss, number)
        if self.settings.clip_grad is not None:
            nn.utils.clip_grad_norm_(self.module.parameters(), self.settings.clip_grad, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._images += count
        if self.ema is not None:
            self.ema.update()

    def _synchronize_gradients(self, wrapped: nn.Module, *, last: bool) -> AbstractContextManager[object]:
        """Processes exchange gradients in the last backward pass of a step only."""
        if last or not self.rank.is_distributed:
            return nullcontext()
        return cast(_Wrapped, wrapped).no_sync()

    def _record_non_finite(self, loss: Tensor, number: int) -> None:
        """Records on the device the first step whose loss or gradient is not finite.

        A NaN in a gradient spreads to all earlier layers, so that the first trainable parameter shows nearly all of
        them. `non_finite_state` finds the rest.
        """
        grad = self._first_trainable.grad
        largest = torch.linalg.vector_norm(grad, torch.inf).to(loss.dtype) if grad is not None else loss
        bad = ~torch.stack((loss, largest)).isfinite()
        self._non_finite_steps = torch.where((self._non_finite_steps < 0) & bad, number, self._non_finite_steps)

    def _wrap(self) -> nn.Module:
        """The module in `DistributedDataParallel` if there are several processes, and compiled if asked for."""
        if self._wrapped is None:
            wrapped = self.module
            if self.rank.is_distributed:
                on_gpu = self.policy.device.type == "cuda"
                wrapped = nn.parallel.DistributedDataParallel(
                    wrapped, device_ids=[self.policy.device] if on_gpu else None, find_unused_parameters=False
                )
            if self.policy.compiled:
                wrapped = compiled(wrapped)
            self._wrapped = wrapped
        return self._wrapped

    def training_means(self) -> TrainingMeans:
        """Means of the epoch so far in this process; waits for the device."""
        images = max(1, self._images)
        return TrainingMeans(loss=float(self._loss_sum) / images, score=float(self._score_sum) / images)

    def metric_sums(self) -> Tensor:
        """Loss, score and images of the epoch so far, `float64[3]` on the host, to add over processes."""
        return torch.tensor([float(self._loss_sum), float(self._score_sum), self._images], dtype=torch.float64)

    def first_non_finite_step(self) -> NonFiniteStep | None:
        """The first step of the epoch whose loss or gradient was not finite; waits for the device."""
        loss_step, gradient_step = self._non_finite_steps.tolist()
        found = [
            NonFiniteStep(step=step, what=what)
            for step, what in ((loss_step, "loss"), (gradient_step, "gradient"))
            if step >= 0
        ]
        return min(found, key=lambda each: each.step, default=None)

    def non_finite_state(self) -> str | None:
        """The first part of the state that holds NaN or infinity, by name; None if all of it can be saved."""
        state = [*self.module.state_dict().items(), *finite.named_optimizer_state(self.optimizer, self.module)]
        if self.ema is not None:
            state += [(f"the average of {name}", tensor) for name, tensor in self.ema.module.state_dict().items()]
        allowed = self._infinite_buffers | {f"the average of {name}" for name in self._infinite_buffers}
        return finite.first_non_finite([*state, ("the sum of the losses", self._loss_sum)], frozenset(allowed))

    @torch.inference_mode()
    def logits(self, x: Tensor) -> Tensor:
        """`float32[n, classes]` of `eval_module`, which the caller puts into eval mode."""
        with self.policy.context():
            logits: Tensor = self.eval_module(x)
        return logits.float()

    def update_best(self, epoch: int, score: float) -> None:
        """Keeps a copy of the weights if they are the best so far.

        Args:
            epoch: Counted from 1.
            score: Of the objective, on the validation images.
        """
        if score > self.best.score:
            weights = {name: tensor.detach().clone() for name, tensor in self.eval_module.state_dict().items()}
            self.best = BestWeights(epoch=epoch, score=score, weights=weights)

    def state_dict(self) -> ModuleState:
        """The state for a checkpoint."""
        return {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.ema.state_dict() if self.ema is not None else None,
            "best": {"epoch": self.best.epoch, "score": self.best.score, "weights": self.best.weights},
            "sums": (self._loss_sum, self._score_sum, self._images),
        }

    def load_state_dict(self, state: ModuleState) -> None:
        """Restores the state of a checkpoint; loss and score of the epoch only in the process that wrote them.

        Raises:
            CheckFailed: Its tensors do not fit the module.
        """
        dropped: frozenset[str] = getattr(self.module, "dropped", frozenset())
        fill_exactly(self.module, state["module"], "its module", "", dropped=dropped)
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema is not None:
            assert state["average"] is not None
            self.ema.load_state_dict(state["average"])
        best = state["best"]
        self.best = BestWeights(
            epoch=best["epoch"],
            score=best["score"] if "score" in best else best["accuracy"],
            weights={name: value for name, value in best["weights"].items() if name not in dropped},
        )
        if self.rank.is_zero:
            loss_sum, score_sum, images = state["sums"]
            self._loss_sum = loss_sum
            self._score_sum = score_sum
            self._images = images
