"""One module that learns: its optimizer, schedule, average and best weights, and the step that it takes.

A run has one learner. Several heads on one frozen backbone are several learners that get the same batches; none of them
can tell whether it is alone.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from poolzoo.data.batches import Rank
from poolzoo.model.accounting import fill_exactly
from poolzoo.train import finite, optimizer, stages
from poolzoo.train.device import DevicePolicy
from poolzoo.train.ema import Average
from poolzoo.train.loaders import Step
from poolzoo.train.settings import Settings

Weights = dict[str, Tensor]


@dataclass
class Best:
    """The weights with the highest validation accuracy so far; of equal ones the earliest."""

    epoch: int = 0
    accuracy: float = -1.0
    weights: Weights = field(default_factory=dict)


@dataclass(frozen=True)
class Totals:
    """Means over the training images that one process has seen in an epoch."""

    loss: float
    accuracy: float
    images: int


class TrainingModule:
    """A network, or a head on features, that learns.

    Args:
        module: What learns, on its device; it maps `inputs[reads]` of a step to logits.
        reads: Which of a step's inputs it takes.
        settings: With every default filled in.
        steps: Steps an epoch.
        policy: The device's.
        share: Which part of the batches this process sees.
    """

    def __init__(
        self, module: nn.Module, reads: str, settings: Settings, steps: int, policy: DevicePolicy, share: Rank
    ) -> None:
        assert settings.epochs is not None  # `prepare` has filled in every default
        assert settings.lr is not None
        assert settings.weight_decay is not None
        self.module, self.reads, self.settings, self.policy, self.share = module, reads, settings, policy, share
        rates = optimizer.Rates(settings.lr, settings.weight_decay, settings.head_lr_mult, settings.layer_decay)
        self.optimizer = optimizer.build(settings.optimizer, module, rates)
        total = settings.epochs * steps
        warmup = max(1, round(settings.warmup * total))
        self.schedule = optimizer.Schedule(settings.lr, total, warmup, settings.lr_schedule)
        self.average = Average(module, settings.ema) if settings.ema else None
        self.best = Best()
        self._infinite = finite.meant_infinite(module)
        self._wrapped: nn.Module | None = None
        self._frozen = settings.freeze_stages or 0
        self.forget()

    @property
    def judged(self) -> nn.Module:
        """The module whose accuracy counts: the average where there is one."""
        return self.average.module if self.average is not None else self.module

    def forget(self) -> None:
        """Sets the sums of the epoch to nothing."""
        device = self.policy.device
        self._loss, self._right = torch.zeros((), device=device), torch.zeros((), device=device, dtype=torch.int64)
        self._first_bad = torch.full((2,), -1, device=device, dtype=torch.int64)  # of the loss and of the gradient
        self._seen = 0

    def begin(self, epoch: int) -> None:
        """Gets ready for an epoch, counted from 1: frees what is due, sets training and eval modes."""
        stages_frozen, every = self.settings.freeze_stages, self.settings.unfreeze_every
        if stages_frozen is not None:
            count = max(0, stages_frozen - (epoch - 1) // every) if every else stages_frozen
            stages.freeze(self.module.backbone, count)  # type: ignore[arg-type]
            if count != self._frozen:
                self._frozen, self._wrapped = count, None
        stages.set_training_mode(self.module)
        self._probe = next(parameter for parameter in self.module.parameters() if parameter.requires_grad)

    def step(self, step: Step, number: int) -> None:
        """Forward, loss, backward, update; nothing in it waits for the device.

        Args:
            step: The images or features, and their labels.
            number: Steps of the whole run before this one.
        """
        # What is random in a module depends on the seed, the step and the process only: nothing to save or to restore.
        self.policy.seed((self.settings.seed * 0x9E3779B1 + number * 0x85EBCA77 + self.share.rank) & 0xFFFFFFFF)
        self.schedule.set(self.optimizer, number)
        called, parts = self._called(), min(self.settings.grad_accum, len(step.labels))
        count, losses = len(step.labels), []
        for index, part in enumerate(step.split(self.reads, parts)):
            last = index == parts - 1
            with nullcontext() if last or self.share.size == 1 else called.no_sync():  # type: ignore[operator]
                with self.policy.context():
                    logits = called(part.x)
                loss = part.loss(logits.float(), self.settings.label_smoothing) * (len(part.labels) / count)
                loss.backward()
            self._note(loss.detach() * count, logits.detach(), part.labels)
            losses.append(loss.detach())
        self._watch(torch.stack(losses).sum(), number)
        if self.settings.clip_grad is not None:
            nn.utils.clip_grad_norm_(self.module.parameters(), self.settings.clip_grad, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._seen += count
        if self.average is not None:
            self.average.update()

    def _note(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        self._loss += loss
        self._right += (logits.argmax(1) == labels).sum()  # a NaN among the logits makes the loss one, which stops all

    def _watch(self, loss: Tensor, number: int) -> None:
        """Remembers, on the device, the first step whose loss or gradient is not finite.

        A NaN in a gradient spreads to all layers before it, so that the first parameter's own tells of nearly all.
        `broken` finds the rest.
        """
        grad = self._probe.grad
        reach = torch.linalg.vector_norm(grad, torch.inf).to(loss.dtype) if grad is not None else loss
        bad = ~torch.stack((loss, reach)).isfinite()
        self._first_bad = torch.where((self._first_bad < 0) & bad, number, self._first_bad)

    def _called(self) -> nn.Module:
        """The module as it is called: in several processes wrapped for the exchange of gradients, perhaps compiled."""
        if self._wrapped is None:
            wrapped = self.module
            if self.share.size > 1:
                gpu = self.policy.device.type == "cuda"
                wrapped = nn.parallel.DistributedDataParallel(
                    wrapped, device_ids=[self.policy.device] if gpu else None, find_unused_parameters=False
                )
            if self.policy.compiled:
                wrapped = torch.compile(wrapped)  # type: ignore[assignment]
            self._wrapped = wrapped
        return self._wrapped

    def totals(self) -> Totals:
        """Means of the epoch so far; reads them from the device."""
        seen = max(1, self._seen)
        return Totals(float(self._loss) / seen, int(self._right) / seen, self._seen)

    def sums(self) -> Tensor:
        """Loss, right answers and images of the epoch so far, `float64[3]` on the host; processes add them up."""
        return torch.tensor([float(self._loss), int(self._right), self._seen], dtype=torch.float64)

    def first_bad(self) -> tuple[int, str] | None:
        """The first step of the epoch that was not finite, and what in it; reads it from the device."""
        steps = zip(self._first_bad.tolist(), ("loss", "gradient"), strict=True)
        return min((found for found in steps if found[0] >= 0), key=lambda found: found[0], default=None)

    def broken(self) -> str | None:
        """The first part of the state that holds NaN or infinity, by name; None where all of it can be kept."""
        state = [*self.module.state_dict().items(), *finite.optimizer_tensors(self.optimizer, self.module)]
        if self.average is not None:
            state += [(f"the average of {name}", tensor) for name, tensor in self.average.module.state_dict().items()]
        allowed = self._infinite | {f"the average of {name}" for name in self._infinite}
        return finite.first_broken([*state, ("the sum of the losses", self._loss)], frozenset(allowed))

    @torch.inference_mode()
    def logits(self, x: Tensor) -> Tensor:
        """In eval mode, `float32[n, classes]`; the caller sets the mode."""
        with self.policy.context():
            return self.judged(x).float()

    def judge(self, epoch: int, accuracy: float) -> None:
        """Keeps the weights if they are the best so far."""
        if accuracy > self.best.accuracy:
            weights = {name: tensor.detach().clone() for name, tensor in self.judged.state_dict().items()}
            self.best = Best(epoch, accuracy, weights)

    def state(self) -> dict[str, Any]:
        """All that a checkpoint needs of it."""
        return {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state() if self.average is not None else None,
            "best": dict(vars(self.best)),
            "sums": (self._loss, self._right, self._seen),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes everything from a checkpoint; the sums of an epoch only in the process that wrote them."""
        dropped = getattr(self.module, "dropped", frozenset())
        fill_exactly(self.module, state["module"], "its module", "", dropped=dropped)
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.restore(state["average"])
        best = {name: value for name, value in state["best"]["weights"].items() if name not in dropped}
        self.best = Best(**{**state["best"], "weights": best})
        if self.share.rank == 0:
            self._loss, self._right, self._seen = state["sums"]
