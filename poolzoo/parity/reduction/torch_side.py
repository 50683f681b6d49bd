"""What torch expects of a region of a graph, for its input and for others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final

import numpy as np
import torch
from torch import Tensor

from poolzoo.parity.reduction.difference import compare
from poolzoo.parity.reduction.locating import Region
from poolzoo.parity.reduction.recordings import Recordings
from poolzoo.parity.reduction.running import Arrays
from poolzoo.parity.reduction.tape import Network, Tape, record


def record_both(network: Network, inputs: Sequence[np.ndarray]) -> Recordings:
    """Records a call in both precisions; a network that requires float32 is its own reference."""
    single = record(network, inputs, torch.float32)
    try:
        double = record(network, inputs, torch.float64)
    except RuntimeError:
        return Recordings(single, None)
    same = [step.operator for step in single.steps] == [step.operator for step in double.steps]
    return Recordings(double, single if same and len(single.values) == len(double.values) else None)


# What has sizes in its arguments holds for these sizes only.
SIZED: Final = ("view", "reshape", "expand", "slice", "select", "narrow", "split", "chunk", "unfold", "pad", "index")
SIZED_NODES: Final = ("Reshape", "Slice", "Gather", "Split", "Expand", "Tile", "Resize", "Pad", "ReduceSum")


@dataclass(frozen=True)
class Replayed:
    """What torch makes of a region's inputs, computed again from the recording.

    Attributes:
        region: The region.
        tape: The recording.
        weights: Weights in the place of those that were recorded, by their numbers.
    """

    region: Region
    tape: Tape
    weights: Mapping[int, Tensor] = field(default_factory=dict)

    def __call__(self, inputs: Arrays) -> np.ndarray:
        double = any(one.dtype == torch.float64 for one in self.tape.values)
        given = dict(self.weights)
        for name, index in self.region.starts.items():
            tensor = torch.from_numpy(np.array(inputs[name]))
            given[index] = tensor.double() if double and tensor.is_floating_point() else tensor
        return np.asarray(self.tape.replay(given, self.region.end).numpy(), np.float64)

    @cached_property
    def sliceable(self) -> bool:
        """Whether it holds for inputs of other sizes."""
        steps = self.tape.steps_between(set(self.region.starts.values()), self.region.end)
        names = [self.tape.steps[step].operator for step in steps]
        sized = any(f".{word}" in name or f"_{word}" in name for word in SIZED for name in names)
        return not sized and all(node.op_type not in SIZED_NODES for node in self.region.graph.graph.node)

    def sliced(self, length: int, rows: Sequence[int]) -> Replayed:
        """The same with all axes of its weights that are so long sliced."""
        found = dict(self.weights)
        for index in self.tape.leaves(set(self.region.starts.values()), self.region.end):
            value = found.get(index, self.tape.values[index])
            for axis in [axis for axis, side in enumerate(value.shape) if side == length]:
                value = value.index_select(axis, torch.tensor(rows))
            found[index] = value
        return replace(self, weights=found)


@dataclass(frozen=True)
class Recorded:
    """What torch made of a region's inputs, where it cannot be computed again; no other inputs are asked for."""

    value: np.ndarray
    sliceable: bool = False

    def __call__(self, inputs: Arrays) -> np.ndarray:
        return self.value

    def sliced(self, length: int, rows: Sequence[int]) -> Recorded:
        """Nothing else than itself, which fits no other inputs."""
        return self


@dataclass(frozen=True)
class TorchSide:
    """A region of a graph, and what torch computes there."""

    region: Region
    recordings: Recordings

    @property
    def tolerance(self) -> float:
        """How far the region's output may be from torch's in float64."""
        return 2 * self.recordings.tolerance(self.region.end)

    @property
    def replays(self) -> bool:
        """Whether torch can compute the output of other inputs too."""
        return isinstance(self.expected, Replayed)

    @cached_property
    def expected(self) -> Replayed | Recorded:
        """What torch makes of inputs, in float64."""
        tape, region = self.recordings.double, self.region
        replayed, recorded = Replayed(region, tape), Recorded(tape.array(region.end))
        if tape.leaves(set(region.starts.values()), region.end) & set(tape.inputs):
            return recorded  # it depends on an input of the network that is not one of the region's
        try:
            same = close(replayed(region.inputs), recorded.value, self.tolerance)
        except Exception:  # an operation that changes its input, of which another part is outside of the region
            return recorded
        return replayed if same else recorded


def close(found: np.ndarray, expected: np.ndarray, allowed: float) -> bool:
    """Whether an array is another one within a tolerance, with NaN and infinity in the same places."""
    difference = compare(found, expected)
    return difference.max_abs is not None and not difference.non_finite and difference.max_abs <= allowed
