"""`finetune --find-lr`: the learning rate range test (Smith, 2017, arXiv 1506.01186). Nothing is trained."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
import torch

from poolzoo.artifacts import run
from poolzoo.common import files, output
from poolzoo.common.errors import CheckFailed, EnvironmentProblem, UsageError
from poolzoo.common.text import data_title
from poolzoo.report import lr_curve
from poolzoo.train import distributed, optimizer
from poolzoo.train.build import build_engine
from poolzoo.train.checkpoint import Checkpoint, RunIdentity
from poolzoo.train.engine import Engine
from poolzoo.train.loaders import endless
from poolzoo.train.prepare import prepare
from poolzoo.train.settings import Settings
from poolzoo.train.snapshot import restored

STEPS: Final = 120
BELOW: Final = 1e-3  # the first rate, as a multiple of --lr …
ABOVE: Final = 1e3  # … and the last one, which is rarely reached
LOOK_EVERY: Final = 10  # steps between two looks at the loss, each of which waits for the device
SMOOTHING: Final = 3.0  # standard deviation in steps of the Gaussian that smooths the losses
DIVERGED: Final = 2.0  # times the loss at the start, at which the ramp ends
NOISE: Final = 2.0  # standard deviations of the losses around their smooth line, which a fall must exceed
FEWEST_BATCHES: Final = 4  # an epoch
JSON: Final = "lr.json"
PLOT: Final = "lr.svg"


@dataclass(frozen=True)
class LrRange:
    """The result of a range test.

    Attributes:
        suggestion: Peak learning rate to train with; None where the losses allow none.
        problem: Why there is none.
        rates: The rate of each step.
        losses: The training loss before each step.
        smooth: The same, smoothed over neighboring steps.
        diverged: Whether the loss rose to a multiple of its start, or was not finite.
        path: The directory with the plot and this result as JSON.
    """

    suggestion: float | None
    problem: str | None
    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smooth: tuple[float, ...]
    diverged: bool
    path: Path

    def to_json(self) -> dict[str, object]:
        """The object in `lr.json`, which `poolzoo finetune --find-lr --json` prints."""
        return {**asdict(self), "path": str(self.path), "rule": RULE}


@dataclass(frozen=True)
class Ramp:
    """A rate that grows by the same factor in every step."""

    first: float
    last: float
    steps: int

    def lr_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        return float(self.first * (self.last / self.first) ** (step / (self.steps - 1)))

    def apply(self, built: torch.optim.Optimizer, step: int) -> None:
        """Sets the learning rate of every parameter group for a step."""
        optimizer.set_lr(built, self.lr_at(step))


RULE: Final = "geometric mean of the rate of the steepest fall and the rate of the lowest loss"


def suggest(rates: np.ndarray, losses: np.ndarray, smooth: np.ndarray) -> float | str:
    """The rate that the rule gives; or why there is none.

    Args:
        rates: Of each step, `float64[n]`, growing.
        losses: Of each step, `float64[n]`.
        smooth: The same, smoothed, `float64[n]`.
    """
    lowest = int(smooth.argmin())
    noise = float((losses - smooth)[: lowest + 1].std())  # without what follows a divergence
    if smooth[:LOOK_EVERY].mean() - smooth[lowest] < NOISE * noise or lowest < LOOK_EVERY:
        return f"the loss does not fall clearly at any rate from {rates[0]:.2g} to {rates[-1]:.2g}"
    if lowest == len(smooth) - 1:
        return f"the loss still falls at a rate of {rates[-1]:.2g}"
    steepest = int(np.gradient(smooth[: lowest + 1]).argmin())
    return float(math.sqrt(rates[steepest] * rates[lowest]))


def smoothed(losses: np.ndarray) -> np.ndarray:
    """Losses averaged over neighboring steps with Gaussian weights, `float64[n] → float64[n]`."""
    distance = np.arange(len(losses))[:, None] - np.arange(len(losses))[None]
    weights = np.exp(-0.5 * (distance / SMOOTHING) ** 2)
    averaged: np.ndarray = weights @ losses / weights.sum(1)
    return averaged


def find_lr(settings: Settings, out: Path | None) -> LrRange | None:
    """Runs the test and writes its plot and its result.

    Args:
        settings: As for training; its learning rate, or the default one, is the middle of the range.
        out: A directory that must not exist; None for a new one in `runs/`.

    Returns:
        The result, in rank 0; None in the other processes of a run.

    Raises:
        UsageError: There are too few images.
        CheckFailed: The loss is not finite from the start.
        PoolzooError: The settings cannot be fulfilled.
    """
    if out is not None and distributed.is_rank_zero():
        files.require_free(out)
    prepared = prepare(settings)
    engine = build_engine([prepared], Checkpoint(Path(), RunIdentity({}, "")))
    if len(engine.loader) < FEWEST_BATCHES:
        text = f"--find-lr needs {FEWEST_BATCHES} batches of images, and there are {len(engine.loader)}"
        raise UsageError(text, f"a smaller --batch-size than {prepared.settings.batch_size}")
    assert prepared.settings.lr is not None  # `prepare` fills in every default
    ramp = Ramp(first=BELOW * prepared.settings.lr, last=ABOVE * prepared.settings.lr, steps=STEPS)
    losses = _losses(engine, ramp)
    distributed.destroy_process_group()
    if not prepared.rank.is_zero:
        return None
    place = out or run.new_path(Path("runs"), prepared.settings.backbone, "find-lr")
    title = f"{prepared.settings.backbone} with {prepared.settings.pool} on {data_title(prepared.settings.data)}"
    result = _result_of(ramp, losses, place)
    _write(result, title)
    return result


def _losses(engine: Engine, ramp: Ramp) -> np.ndarray:
    """The loss of each step until it diverges, `float64[n]`; the modules are as before."""
    (module,) = engine.modules.values()
    found: list[torch.Tensor] = []
    with restored([module]), output.progress("finding a learning rate", ramp.steps) as bar:
        module.schedule = ramp
        module.start_epoch(1)
        for number, batch in enumerate(islice(endless(engine.loader), ramp.steps)):
            module.step(batch, number)
            found.append(module.last_loss)
            if (number + 1) % LOOK_EVERY == 0:
                bar.update(number + 1)
                if _diverged(_mean(found, engine)):
                    break
        return _mean(found, engine)


def _mean(losses: list[torch.Tensor], engine: Engine) -> np.ndarray:
    """The mean over the processes, on the host; waits for the device."""
    total = distributed.all_reduce_sum(torch.stack(losses).double().cpu(), engine.rank)
    mean: np.ndarray = (total / engine.rank.world_size).numpy()
    return mean


def _diverged(losses: np.ndarray) -> bool:
    return not np.isfinite(losses).all() or bool(losses[-1] > DIVERGED * losses[:LOOK_EVERY].mean())


def _result_of(ramp: Ramp, losses: np.ndarray, place: Path) -> LrRange:
    """The result for some losses.

    Raises:
        CheckFailed: They are not finite from the start.
    """
    finite = int(np.isfinite(losses).argmin()) if not np.isfinite(losses).all() else len(losses)
    if finite <= LOOK_EVERY:
        text = f"the loss is NaN or infinite in step {finite + 1}, at a learning rate of {ramp.lr_at(finite):.2g}"
        raise CheckFailed(text, f"a smaller --lr than {ramp.first / BELOW:g} moves the range")
    rates = np.array([ramp.lr_at(step) for step in range(finite)])
    smooth = smoothed(losses[:finite])
    found = suggest(rates, losses[:finite], smooth)
    return LrRange(
        suggestion=None if isinstance(found, str) else found,
        problem=found if isinstance(found, str) else None,
        rates=tuple(rates.tolist()),
        losses=tuple(losses[:finite].tolist()),
        smooth=tuple(smooth.tolist()),
        diverged=_diverged(losses),
        path=place,
    )


def _write(result: LrRange, title: str) -> None:
    with files.appearing(result.path) as folder:
        files.write_json(folder / JSON, result.to_json())
        try:
            curve = lr_curve.LrCurve(result.rates, result.losses, result.smooth, result.suggestion)
            lr_curve.draw(curve, folder / PLOT, title)
        except EnvironmentProblem as problem:  # a missing picture must not lose the result
            output.warn(f"no plot: {problem}", problem.hint)
