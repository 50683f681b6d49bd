"""Work on several cores: in order, bitwise the same as alone, and nothing is left running."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from poolzoo.data.batches import SINGLE_PROCESS
from poolzoo.train import device, inference
from poolzoo.train.cores import Cores, cores
from poolzoo.train.loaders import TrainingBatch
from poolzoo.train.losses import CrossEntropy
from poolzoo.train.settings import Settings
from poolzoo.train.step_plan import StepPlan
from poolzoo.train.stepper import Stepper
from poolzoo.train.training_module import TrainingModule

CPU = torch.device("cpu")
PLAN = StepPlan.of(8)


@pytest.mark.parametrize("threads", [1, 3])
def test_results_come_in_the_order_of_their_items(threads):
    taken = []

    def items():
        for number in range(20):
            taken.append(number)
            yield number

    with cores(CPU, threads) as pool:
        found = pool.stream(lambda number: (number**2, torch.get_num_threads()), items())
        assert next(found) == (0, 1)
        assert len(taken) <= threads + 1
        assert [square for square, _ in found] == [number**2 for number in range(1, 20)]
        assert pool.each(str, range(5)) == list("01234")


def test_an_error_ends_the_work_that_still_runs():
    running, release = threading.Event(), threading.Event()
    ended = []

    def work(number: int) -> None:
        if number == 0:
            assert running.wait(30)
            release.set()
            raise ValueError("no more")
        running.set()
        assert release.wait(30)
        ended.append(number)

    before = torch.get_num_threads()
    with pytest.raises(ValueError, match="no more"), cores(CPU, 2) as pool:
        pool.each(work, range(20))
    assert 0 < len(ended) <= 19
    assert torch.get_num_threads() == before
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("core")]


class Rarely(nn.Module):
    """Draws random numbers in its third step and later."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.steps += 1
        return x + torch.rand(1) if self.steps > 2 else x


HEADS: dict[str, Callable[[], nn.Module]] = {
    "dropout": lambda: nn.Dropout(0.5),
    "tanh": nn.Tanh,
    "noisy": lambda: nn.RReLU(),
    "norm": lambda: nn.BatchNorm1d(32),
}


def head(kind: Callable[[], nn.Module]) -> TrainingModule:
    torch.manual_seed(1)
    return TrainingModule(
        module=nn.Sequential(nn.Linear(32, 32), kind(), nn.Linear(32, 5)),
        input_key="map",
        objective=CrossEntropy(),
        settings=Settings(data="digits", backbone="nano/plain", lr=0.1, weight_decay=0.0),
        plan=PLAN,
        policy=device.policy("cpu"),
        rank=SINGLE_PROCESS,
    )


def trained(modules: list[TrainingModule], threads: int) -> list[dict[str, torch.Tensor]]:
    """The weights of modules after some steps together."""
    stepper = Stepper(threads)
    for module in modules:
        module.start_epoch(1)
    with stepper.working(CPU):
        for number in range(PLAN.total):
            generator = torch.Generator().manual_seed(number)
            x, labels = torch.randn(64, 32, generator=generator), torch.arange(64) % 5
            stepper.step(modules, TrainingBatch(inputs={"map": x}, labels=labels), number)
    return [module.module.state_dict() for module in modules]


def test_modules_on_several_threads_learn_what_each_learns_alone():
    together = trained([head(kind) for kind in HEADS.values()], threads=3)
    for name, kind, found in zip(HEADS, HEADS.values(), together, strict=True):
        (alone,) = trained([head(kind)], threads=1)
        assert all(torch.equal(alone[key], found[key]) for key in alone), name


def test_random_numbers_that_nobody_declared_are_noticed(capsys):
    trained([head(HEADS["tanh"]), head(Rarely)], threads=2)
    assert "draws random numbers in some steps only" in capsys.readouterr().err


class Keeper(nn.Module):
    """Keeps its input while it computes, as modules of plugins may."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = torch.zeros(())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.kept = x
        for _ in range(20):
            x = x.sin().sin()
        return self.kept.mean((2, 3)) + 0 * x.mean((2, 3))


TWO_WROTE = threading.Barrier(2)


class BufferKeeper(nn.Module):
    """Keeps it in a registered buffer, and reads it when another thread has written too."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kept", torch.zeros(32, 3, 16, 16), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.kept.copy_(x)
        TWO_WROTE.wait(30)
        return self.kept.mean((2, 3))


class Plain(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.permute(0, 3, 1, 2).float()


@pytest.mark.parametrize(("keeper", "batch_size"), [(Keeper, 2), (BufferKeeper, 32)])
def test_a_module_may_keep_something_while_it_computes(keeper, batch_size):
    images = np.random.default_rng(0).integers(0, 256, (64, 16, 16, 3), np.uint8)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        found = inference.predict_logits(keeper(), Plain(), images, device.policy("cpu"), batch_size=batch_size)
    finally:
        torch.set_num_threads(before)
    np.testing.assert_allclose(found, images.mean((1, 2)), rtol=1e-5)


def test_one_core_works_in_the_calling_thread():
    assert Cores(1).each(lambda _: threading.current_thread(), [0]) == [threading.current_thread()]
