"""What the trials of a comparison cost on this machine, from a few real steps: the one place that estimates time.

Two parts add up: what is computed once, and what every trial adds. Networks train one after the other. A frozen
backbone sees every image once for all heads and seeds, and its heads share the cores.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from poolzoo.train.cores import cores
from poolzoo.train.feature_entries import input_key
from poolzoo.train.loaders import FEATURE_MAP
from poolzoo.train.prepare import PreparedRun
from poolzoo.train.step_plan import StepPlan

STEPS: Final = 3  # that are timed, after one that is not
FINISH: Final = 0.5  # seconds that a trial needs to write its run directory and draw its curves


@dataclass(frozen=True)
class Cost:
    """Seconds on this machine: once for all seeds, and for every trial."""

    once: float = 0.0
    trial: float = 0.0


@dataclass(frozen=True)
class Workload:
    """How many images a run trains on, validates on and tests on.

    Attributes:
        train, val, test: Number of images.
        epochs: Passes over the training images, with a validation after each.
        mirrored: Whether test images are tested as mirror images too.
        views: Augmented copies of every image whose features are cached.
    """

    train: int
    val: int
    test: int
    epochs: float
    mirrored: bool = False
    views: int = 0

    @classmethod
    def of(cls, prepared: PreparedRun) -> Workload:
        """That of a run without a time budget."""
        settings, data = prepared.settings, prepared.data
        assert settings.batch_size is not None
        steps_per_epoch = max(1, len(data.train_indices) // settings.batch_size)
        epochs = settings.epochs or StepPlan.parse(settings.steps or "").total / steps_per_epoch
        return cls(
            train=len(data.train_indices),
            val=len(data.val_indices),
            test=len(data.test.labels),
            epochs=epochs,
            mirrored=data.flip,
            views=settings.views,
        )

    @property
    def tested(self) -> int:
        """Images that the best weights run on: the validation images, and the test images once or twice."""
        return self.val + (1 + self.mirrored) * self.test


@dataclass(frozen=True)
class StepTimes:
    """Seconds for one image on this machine.

    Attributes:
        train: Of a training step of what is trained.
        forward: Of the same in evaluation.
        backbone: Of a frozen backbone whose features are cached; 0 where the backbone is a part of the above.
        pools_once: Whether the pooled vectors are cached too.
        cores: How many heads train and are tested at the same time.
    """

    train: float
    forward: float
    backbone: float = 0.0
    pools_once: bool = False
    cores: int = 1

    def cost(self, work: Workload) -> tuple[Cost, Cost]:
        """What a run costs: the part that all heads on the same frozen backbone share, and its own."""
        images = work.train + work.val
        validated = work.val * work.epochs
        training = self.train * work.train * work.epochs
        if not self.backbone:
            return Cost(), Cost(trial=training + self.forward * (validated + work.tested))
        mirrored_test = work.tested - work.val
        shared = Cost(once=self.backbone * ((1 + work.views) * images + mirrored_test))
        if self.pools_once:
            return shared, Cost(once=self.forward * (images + mirrored_test), trial=training / self.cores)
        evaluation = self.forward * (validated + work.tested)
        return shared, Cost(trial=(training + evaluation) / self.cores)


def costs(prepared: PreparedRun, heads: int) -> tuple[Cost, Cost]:
    """What a run costs on this machine, from a few steps of it; see `StepTimes.cost`.

    Args:
        prepared: The run.
        heads: How many train on the same frozen backbone.
    """
    if (budget := prepared.settings.budget_seconds) is not None:
        return Cost(), Cost(trial=budget)
    return step_times(prepared, heads).cost(Workload.of(prepared))


def step_times(prepared: PreparedRun, heads: int) -> StepTimes:
    """Measures a few steps of a run; its weights stay as they are. Arguments as for `costs`."""
    settings, data, policy = prepared.settings, prepared.data, prepared.policy
    network = prepared.assembly.network
    chosen = data.train_indices[: settings.batch_size]
    images = torch.from_numpy(data.images[chosen]).to(policy.device)
    labels = torch.from_numpy(data.labels[chosen]).to(policy.device)
    count = len(images)
    network.train()
    with policy.context():
        x = prepared.preprocess(images)
        if not settings.caches_features:
            forward, train = _seconds(_inference(network, x)), _seconds(_training(network, x, labels))
            return StepTimes(train=train / count, forward=forward / count)
        backbone = _seconds(_inference(prepared.inference_network.forward_map, x)) / count
        with torch.no_grad():
            maps = network.forward_map(x)
            pooled = network.pool(maps)
        pools_once = input_key(prepared) != FEATURE_MAP
        trained, given = (network.behind_pool, pooled) if pools_once else (network.head, maps)
        with cores(policy.device) as threads:  # within it, a step has one thread
            forward = _seconds(_inference(network.head, maps)) / count
            train = _seconds(_training(trained, given, labels)) / count
            shared = min(threads.count, heads)
        return StepTimes(train=train, forward=forward, backbone=backbone, pools_once=pools_once, cores=shared)


def _training(network: nn.Module, x: Tensor, labels: Tensor) -> Callable[[], object]:
    """A training step that leaves the weights as they are: its learning rate is zero."""
    parameters = [one for one in network.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=0.0) if parameters else None

    def step() -> None:
        loss: Tensor = torch.nn.functional.cross_entropy(network(x), labels)
        torch.autograd.backward(loss)
        if optimizer is not None:
            optimizer.step()
            optimizer.zero_grad()

    return step


def _inference(call: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], object]:
    def forward() -> None:
        with torch.no_grad():
            call(x)

    return forward


def _seconds(call: Callable[[], object]) -> float:
    call()
    times = []
    for _ in range(STEPS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
