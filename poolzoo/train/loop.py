"""The training loop: forward, loss, backward, step. Nothing in it waits for the device."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poolzoo import output
from poolzoo.assemble import Network, Preprocess
from poolzoo.data.batches import Batches
from poolzoo.train import optimiser
from poolzoo.train.device import DevicePolicy

SHOW_EVERY = 0.5  # seconds between two readings of loss and accuracy for a progress bar that somebody watches


@dataclass(frozen=True)
class Schedule:
    """How the learning rate goes over the whole run."""

    lr: float
    total_steps: int
    warmup_steps: int
    decay: str

    def at(self, step: int) -> float:
        return self.lr * optimiser.scale(step, self.total_steps, self.warmup_steps, self.decay)


@dataclass(frozen=True)
class EpochResult:
    """Means over the training images of one epoch."""

    loss: float
    accuracy: float
    images: int
    seconds: float


def set_training_mode(network: Network, frozen: bool) -> None:
    """Training mode; a frozen backbone stays in eval mode, so that its batch norms keep their statistics."""
    network.train()
    if frozen:
        network.backbone.eval()


def train_epoch(
    network: Network,
    preprocess: Preprocess,
    batches: Batches,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    epoch: int,
    policy: DevicePolicy,
    label_smoothing: float,
    bar: output.Progress,
) -> EpochResult:
    """One pass over the training images; epochs count from 1, and the bar's steps run over all of them."""
    step = (epoch - 1) * len(batches)
    loss_sum = torch.zeros((), device=policy.device)
    right = torch.zeros((), device=policy.device, dtype=torch.int64)
    started = shown = time.perf_counter()
    seen = 0
    watched = output.watched()
    for images, labels in batches.epoch(epoch):
        for group in optimizer.param_groups:
            group["lr"] = schedule.at(step)
        loss, logits = _step(network, preprocess, images, labels, policy, label_smoothing)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        step += 1
        seen += len(images)
        loss_sum += loss.detach() * len(images)
        right += (logits.detach().argmax(1) == labels).sum()
        if watched and (now := time.perf_counter()) - shown > SHOW_EVERY:
            shown = now
            figures = f"loss {float(loss_sum) / seen:.3f}  acc {int(right) / seen:.3f}"
            bar.update(step, f"{figures}  {seen / (now - started):.0f} images/s")
    loss_mean, accuracy = float(loss_sum) / seen, int(right) / seen
    return EpochResult(loss_mean, accuracy, seen, time.perf_counter() - started)


def _step(
    network: nn.Module, preprocess: nn.Module, images: Tensor, labels: Tensor, policy: DevicePolicy, smoothing: float
) -> tuple[Tensor, Tensor]:
    x = preprocess(images).contiguous(memory_format=policy.memory_format)
    with policy.context():
        logits = network(x)
    return F.cross_entropy(logits.float(), labels, label_smoothing=smoothing), logits
