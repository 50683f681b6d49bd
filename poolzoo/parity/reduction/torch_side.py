"""What torch expects of a region of a graph, for its input and for others, and the repair that agrees with all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import onnx
import torch

from poolzoo.parity.reduction import graphs, repairs, running
from poolzoo.parity.reduction.case import Oracle
from poolzoo.parity.reduction.difference import compare
from poolzoo.parity.reduction.locating import Region
from poolzoo.parity.reduction.recordings import Recordings
from poolzoo.parity.reduction.repairs import Repair
from poolzoo.parity.reduction.running import Arrays, attempt
from poolzoo.parity.reduction.tape import Network, record

PERTURBATIONS: Final = 2  # other inputs that a repair has to agree on
SPREAD: Final = 0.3  # of their values
ROUNDING: Final = 2e-5  # of the largest output there
LEFT: Final = 0.2  # of the difference, at most, after a repair


def record_both(network: Network, inputs: Sequence[np.ndarray]) -> Recordings:
    """Records a call in both precisions; a network that requires float32 is its own reference."""
    single = record(network, inputs, torch.float32)
    try:
        double = record(network, inputs, torch.float64)
    except RuntimeError:
        return Recordings(single, None)
    same = [step.operator for step in single.steps] == [step.operator for step in double.steps]
    return Recordings(double, single if same and len(single.values) == len(double.values) else None)


@dataclass(frozen=True)
class TorchSide:
    """A region of a graph, and what torch computes there."""

    region: Region
    recordings: Recordings

    @property
    def tolerance(self) -> float:
        """How far the region's output may be from torch's in float64."""
        return 2 * self.recordings.tolerance(self.region.end)

    @cached_property
    def replays(self) -> bool:
        """Whether torch can compute the output of other inputs too."""
        tape, region = self.recordings.double, self.region
        leaves = tape.leaves(set(region.starts.values()), region.end)
        if leaves & set(tape.inputs):
            return False  # it depends on an input of the network that is not one of the region's
        try:
            return close(self._replay(region.inputs), tape.array(region.end), self.tolerance)
        except Exception:  # an operation that changes its input, of which another part is outside of the region
            return False

    def expected(self, inputs: Arrays) -> np.ndarray:
        """What torch makes of inputs, in float64; of any inputs what was recorded where it cannot compute them."""
        return self._replay(inputs) if self.replays else self.recordings.double.array(self.region.end)

    def _replay(self, inputs: Arrays) -> np.ndarray:
        tape = self.recordings.double
        dtype = torch.float64 if any(one.dtype == torch.float64 for one in tape.values) else torch.float32
        given = {}
        for name, index in self.region.starts.items():
            tensor = torch.from_numpy(np.array(inputs[name]))
            given[index] = tensor.to(dtype) if tensor.is_floating_point() else tensor
        return np.asarray(tape.replay(given, self.region.end).numpy(), np.float64)

    def find_repair(self, oracle: Oracle) -> Repair | None:
        """A change of one node with which the region agrees with torch, on its input and on perturbed ones.

        Args:
            oracle: Its best case is the region.
        """
        region, tape = self.region, self.recordings.double
        tests = [(region.inputs, self.expected(region.inputs), self.tolerance)]
        for seed in range(PERTURBATIONS if self.replays else 0):
            perturbed = _perturbed(region.inputs, seed)
            wanted = attempt(lambda _, given: [self.expected(given)], region.graph, perturbed)
            if wanted is not None and np.isfinite(wanted).all():
                tests.append((perturbed, wanted, ROUNDING * float(np.abs(wanted).max(initial=0))))
        original = oracle.difference(oracle.best).max_abs
        if original is not None and not oracle.non_finite:
            tests[0] = *tests[0][:2], min(self.tolerance, LEFT * original)

        def agrees(graph: onnx.ModelProto) -> bool:
            oracle.alive()
            for inputs, wanted, allowed in tests:
                found = attempt(running.unoptimized, graph, inputs)
                if found is None or not close(found, wanted, allowed):
                    return False
            return True

        leaves = sorted(tape.leaves(set(region.starts.values()), region.end))
        weights = [tape.array(one).astype(np.float32) for one in leaves if tape.values[one].is_floating_point()]
        values = running.values(region.graph, region.inputs, graphs.computed(region.graph))
        ranks = {name: one.ndim for name, one in {**region.inputs, **values}.items()}
        return repairs.find_repair(region.graph, weights, agrees, lambda name: ranks.get(name, 4))


def close(found: np.ndarray, expected: np.ndarray, allowed: float) -> bool:
    """Whether an array is another one within a tolerance, with NaN and infinity in the same places."""
    difference = compare(found, expected)
    return difference.max_abs is not None and not difference.non_finite and difference.max_abs <= allowed


def _perturbed(inputs: Arrays, seed: int) -> Arrays:
    random = np.random.default_rng(seed)
    found: dict[str, np.ndarray] = {}
    for name, one in inputs.items():
        noise = random.standard_normal(one.shape) * SPREAD * (float(np.abs(one).max(initial=0)) or 1.0)
        found[name] = (one + noise).astype(one.dtype) if one.dtype.kind == "f" else one
    return found
