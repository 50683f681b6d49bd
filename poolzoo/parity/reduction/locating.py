"""Finds the part of a graph that differs from torch, by the values inside both. No names are needed.

A value of the graph agrees where torch computes one of the same shape that is equal within rounding. The graph is cut
behind the last values that agree. Then an earlier end is searched for. A value of the graph stands for a value of torch
where the graph agrees behind it once torch's is put in its place (interchange intervention; Geiger et al., Causal
Abstractions of Neural Networks, 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx

from poolzoo.parity.layers import with_outputs
from poolzoo.parity.reduction import graphs, running
from poolzoo.parity.reduction.case import TimeIsUp
from poolzoo.parity.reduction.difference import compare
from poolzoo.parity.reduction.running import Arrays
from poolzoo.parity.reduction.tape import Tape

NOISE_FACTOR: Final = 8.0  # of the distance between torch in float32 and in float64
RELATIVE: Final = 4e-6  # of the largest magnitude of the value
SAMPLES: Final = 16  # numbers that are compared before all are
# Their result has the numbers of what they read, so that it agreeing says nothing about what computes.
MOVES: Final = (
    "Reshape",
    "Transpose",
    "Squeeze",
    "Unsqueeze",
    "Flatten",
    "Identity",
    "Cast",
    "Slice",
    "Gather",
    "Split",
)


@dataclass(frozen=True)
class Recordings:
    """The same call of a network in float32 and in float64; `single` is None where the two have other steps."""

    double: Tape
    single: Tape | None

    def tolerance(self, index: int) -> float:
        """How far a faithful value may be from torch's in float64."""
        expected = self.double.array(index)
        finite = np.isfinite(expected)
        scale = float(np.abs(expected[finite]).max(initial=0))
        noise = 0.0
        if self.single is not None:
            with np.errstate(invalid="ignore"):
                distance = np.abs(self.single.array(index) - expected)
            noise = float(distance[np.isfinite(distance)].max(initial=0))
        return NOISE_FACTOR * noise + RELATIVE * scale

    def agrees(self, found: np.ndarray, index: int) -> bool:
        """Whether an array is one of torch's values."""
        expected = self.double.array(index)
        if found.shape != expected.shape:
            return False
        allowed = self.tolerance(index)
        few = np.linspace(0, found.size - 1, min(found.size, SAMPLES)).astype(int)
        with np.errstate(invalid="ignore"):
            far = np.abs(found.reshape(-1)[few] - expected.reshape(-1)[few]) > allowed
        if far.any():
            return False
        difference = compare(found, expected)
        return not difference.non_finite and (difference.max_abs or 0.0) <= allowed


@dataclass(frozen=True)
class Region:
    """A part of a graph, and the same in torch.

    Attributes:
        graph: The part, with one output.
        inputs: Torch's values for its inputs, in float32.
        starts: The number on the tape of each input.
        end: The number on the tape of what the output should be.
    """

    graph: onnx.ModelProto
    inputs: Arrays
    starts: Mapping[str, int]
    end: int

    @property
    def output(self) -> str:
        """The name of the output."""
        return str(self.graph.graph.output[0].name)


def locate(
    proto: onnx.ModelProto,
    inputs: Arrays,
    recordings: Recordings,
    *,
    output: int,
    layers: Mapping[str, str],
    alive: Callable[[], None],
) -> Region:
    """The first region of a graph that differs from torch.

    Args:
        proto: The graph.
        inputs: Its inputs.
        recordings: The same call in torch.
        output: Which output differs.
        layers: The graph's value for the output of modules, by path, where they are known: these are tried first.
        alive: Called now and then. It raises TimeIsUp to end the search with the region that was found so far.
    """
    found = running.values(proto, inputs, graphs.computed(proto))
    names = [value.name for value in proto.graph.input]
    given = dict(zip(names, recordings.double.inputs, strict=False))
    matched = _matches(proto, found, recordings, given)
    end, target = proto.graph.output[output].name, recordings.double.outputs[output]
    matched.pop(end, None)
    while True:
        region = _region(proto, {**found, **inputs}, recordings, matched, end, target)
        try:
            earlier = _earlier_end(region, matched, recordings, layers, alive)
        except (TimeIsUp, KeyboardInterrupt):
            return region
        if earlier is None:
            return region
        end, target = earlier


def _matches(proto: onnx.ModelProto, found: Arrays, recordings: Recordings, given: Mapping[str, int]) -> dict[str, int]:
    """Torch's value for each value of the graph that agrees.

    Where several do, that is one computed from values that the node reads too, and the latest of these.
    """
    tape = recordings.double
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for index in tape.makers:
        made = tape.values[index]
        if made.is_floating_point():
            by_shape.setdefault(tuple(made.shape), []).append(index)
    result = dict(given)
    for node in proto.graph.node:
        read = {result[name] for name in node.input if name in result}
        for name in node.output:
            value = found.get(name)
            if value is None or value.dtype.kind != "f" or value.size < 2:
                continue
            fitting = [one for one in by_shape.get(value.shape, ()) if recordings.agrees(value, one)]
            if fitting:
                result[name] = max(fitting, key=lambda one: (len(read.intersection(tape.reads(one))), one))
    return result


def _region(
    proto: onnx.ModelProto,
    found: Arrays,
    recordings: Recordings,
    matched: Mapping[str, int],
    end: str,
    target: int,
) -> Region:
    """The nodes from the last values that agree to `end`, which should be the value `target` of torch."""
    stops = {name: index for name, index in matched.items() if name != end}
    nodes = graphs.nodes_behind(proto, set(stops), end)
    used = {name for node in nodes for name in graphs.reads(node)}
    # What is made of shapes alone is a constant of this region, whose inputs have these shapes.
    values = {name: found[name] for name in stops if name in used}
    for name, index in stops.items():
        if name in values and values[name].dtype.kind == "f":
            values[name] = recordings.double.array(index).astype(values[name].dtype)
    graph = graphs.cut(proto, values, end)
    kept = {value.name: values[value.name] for value in graph.graph.input}
    return Region(graph, kept, {name: stops[name] for name in kept}, target)


def _earlier_end(
    region: Region,
    matched: Mapping[str, int],
    recordings: Recordings,
    layers: Mapping[str, str],
    alive: Callable[[], None],
) -> tuple[str, int] | None:
    """An earlier value of the graph, and torch's in whose place it stands; None where there is none."""
    names = [name for name in graphs.computed(region.graph) if name != region.output]
    before = running.values(region.graph, region.inputs, names)
    taken = set(matched.values())
    for name in names:
        if before[name].dtype.kind != "f":
            continue
        tail = graphs.cut(region.graph, {**region.inputs, name: before[name]}, region.output)
        if name not in {value.name for value in tail.graph.input}:
            continue
        behind = graphs.computed(tail)
        opened = None
        for index in _candidates(name, before[name], region, recordings, layers):
            if index in taken:
                continue
            alive()
            if opened is None:
                opened = _Tail(tail, behind)
            after = opened.run({**region.inputs, name: recordings.double.array(index).astype(before[name].dtype)})
            if _explains(after, before, tail, region, recordings):
                return name, index
    return None


def _candidates(
    name: str, value: np.ndarray, region: Region, recordings: Recordings, layers: Mapping[str, str]
) -> Iterator[int]:
    """Torch's values in the region that have the shape of one of the graph's, those of the same layer first."""
    tape = recordings.double
    known = [tape.modules[path] for path, one in layers.items() if one == name and path in tape.modules]
    steps = tape.steps_between(set(region.starts.values()), region.end)
    inside = [index for step in steps for index in tape.steps[step].outputs]
    for index in dict.fromkeys([one for one in known if one in inside] + inside):
        fits = index != region.end and tuple(tape.values[index].shape) == value.shape
        if fits and tape.values[index].is_floating_point():
            yield index


class _Tail:
    """The rest of a region, opened once for many values."""

    def __init__(self, graph: onnx.ModelProto, names: Sequence[str]) -> None:
        self._opened = running.session(with_outputs(graph, names), optimized=False)

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        wanted = {one.name for one in self._opened.get_inputs()}
        outputs = [one.name for one in self._opened.get_outputs()]
        given = {key: value for key, value in inputs.items() if key in wanted}
        return dict(zip(outputs, self._opened.run(outputs, given), strict=True))


def _explains(after: Arrays, before: Arrays, tail: onnx.ModelProto, region: Region, recordings: Recordings) -> bool:
    """Whether the end agrees now, or another value that a node computes from the changed one."""
    if recordings.agrees(after[region.output], region.end):
        return True
    makers = {node.output[0]: node.op_type for node in tail.graph.node}
    tape = recordings.double
    steps = tape.steps_between(set(region.starts.values()), region.end)
    inside = [index for step in steps for index in tape.steps[step].outputs]
    for name, value in after.items():
        if makers.get(name) in MOVES or name not in before or value.dtype.kind != "f" or value.size < 2:
            continue
        if np.array_equal(value, before[name]):
            continue
        if any(recordings.agrees(value, index) for index in inside):
            return True
    return False
