"""The change of one node with which a region agrees with torch, on its input and on others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import onnx

from poolzoo.parity.reduction import fitting, graphs, repairs, running
from poolzoo.parity.reduction.case import Case, Oracle
from poolzoo.parity.reduction.fitting import Trial
from poolzoo.parity.reduction.repair import Hints, Repair
from poolzoo.parity.reduction.running import Arrays, attempt
from poolzoo.parity.reduction.torch_side import TorchSide, close

PERTURBATIONS: Final = 2  # other inputs that a repair has to agree on
SPREAD: Final = 0.3  # of their values
ROUNDING: Final = 2e-5  # of the largest output there
LEFT: Final = 0.2  # of the difference, at most, after a repair


def find_culprit(side: TorchSide, oracle: Oracle) -> Repair | None:
    """The first repair that agrees in all trials: of known values first, and then a fitted one.

    Args:
        side: The region.
        oracle: Its best case is that region.
    """
    region, tape = side.region, side.recordings.double
    trials = _trials(side, oracle)
    starts = set(region.starts.values())
    leaves = sorted(tape.leaves(starts, region.end))
    values = running.values(region.graph, region.inputs, graphs.computed(region.graph))
    hints = Hints(
        weights=[tape.array(one).astype(np.float32) for one in leaves if tape.values[one].is_floating_point()],
        arguments=[one for step in tape.steps_between(starts, region.end) for one in tape.steps[step].arguments()],
        ranks={name: one.ndim for name, one in {**region.inputs, **values}.items()},
    )

    def agrees(graph: onnx.ModelProto) -> bool:
        oracle.alive()
        return all(_passes(graph, trial) for trial in trials)

    known = repairs.find_repair(region.graph, hints, agrees)
    if known is not None or oracle.non_finite:
        return known
    return next((one for one in fitting.fits(region.graph, trials) if agrees(one.applied(region.graph))), None)


def fit_small(oracle: Oracle) -> Repair | None:
    """A repair of the weights of the smallest case, as long as torch computes what is expected of it."""
    case = oracle.best
    if isinstance(case.reference, onnx.ModelProto):
        return None
    trials = [Trial(case.inputs, oracle.expected(case), 0.0)]
    trials += [Trial(one, case.reference(one), 0.0) for one in (perturbed(case.inputs, seed) for seed in range(8))]
    trials = [Trial(one.inputs, one.expected, ROUNDING * float(np.abs(one.expected).max(initial=0))) for one in trials]
    for repair in fitting.weight_fits(case.graph, trials):
        oracle.alive()
        if all(_passes(repair.applied(case.graph), trial) for trial in trials):
            return repair
    return None


def _trials(side: TorchSide, oracle: Oracle) -> Sequence[Trial]:
    region, expected = side.region, side.expected
    wanted = expected(region.inputs)
    original = oracle.difference(Case(region.graph, region.inputs, expected)).max_abs
    allowed = side.tolerance
    if original is not None and not oracle.non_finite:
        allowed = min(allowed, LEFT * original)
    found = [Trial(region.inputs, wanted, allowed)]
    for seed in range(PERTURBATIONS if side.replays else 0):
        inputs = perturbed(region.inputs, seed)
        other = attempt(lambda _, given: [expected(given)], region.graph, inputs)
        if other is not None and np.isfinite(other).all():
            found.append(Trial(inputs, other, ROUNDING * float(np.abs(other).max(initial=0))))
    return found


def _passes(graph: onnx.ModelProto, trial: Trial) -> bool:
    found = attempt(running.unoptimized, graph, trial.inputs)
    return found is not None and close(found, trial.expected, trial.allowed)


def perturbed(inputs: Arrays, seed: int) -> Arrays:
    """Inputs with noise, by which a repair that agrees by accident is recognized."""
    random = np.random.default_rng(seed)
    found: dict[str, np.ndarray] = {}
    for name, one in inputs.items():
        noise = random.standard_normal(one.shape) * SPREAD * (float(np.abs(one).max(initial=0)) or 1.0)
        found[name] = (one + noise).astype(one.dtype) if one.dtype.kind == "f" else one
    return found
