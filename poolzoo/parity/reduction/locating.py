"""Finds the part of a graph that differs from torch, by the values inside both. No names are needed.

A value of the graph agrees where torch computes one of the same shape that is equal within rounding. The graph is cut
behind the last values that agree. Then an earlier end is searched for. A value of the graph stands for a value of torch
where the graph agrees behind it once torch's is put in its place (interchange intervention; Geiger et al., Causal
Abstractions of Neural Networks, 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import onnx

from poolzoo.common.errors import Terminated
from poolzoo.parity.reduction import graphs, running
from poolzoo.parity.reduction.case import TimeIsUp
from poolzoo.parity.reduction.recordings import Recordings
from poolzoo.parity.reduction.running import Arrays
from poolzoo.parity.reduction.tape import Tape

HORIZON: Final = 24  # nodes behind a value in which torch's has to explain another one
WINDOW: Final = 12  # of torch's values of a shape that are tried first: those that belong together are near
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
class Region:
    """A part of a graph, and the same in torch.

    Attributes:
        graph: The part, with one output.
        inputs: Torch's values for its inputs, in float32.
        own: The graph's values for its inputs.
        starts: The number on the tape of each input.
        end: The number on the tape of what the output should be.
    """

    graph: onnx.ModelProto
    inputs: Arrays
    own: Arrays
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
        except Terminated:
            raise
        except (TimeIsUp, KeyboardInterrupt):
            return region
        if earlier is None:
            return region
        end, target = earlier


def _matches(proto: onnx.ModelProto, found: Arrays, recordings: Recordings, given: Mapping[str, int]) -> dict[str, int]:
    """Torch's value for each value of the graph that agrees.

    Where several do, that is one computed from values that the node reads too, with the most numbers to the bit, and
    the latest of these.
    """
    tape = recordings.double
    result = dict(given)
    for node in proto.graph.node:
        read = {result[name] for name in node.input if name in result}
        for name in node.output:
            value = found.get(name)
            if value is None or value.dtype.kind != "f" or value.size < 2:
                continue
            fitting = [one for one in recordings.equal(value) if one in tape.makers]
            if fitting:
                result[name] = max(fitting, key=partial(_closeness, tape, value, read))
    return result


def _closeness(tape: Tape, value: np.ndarray, read: set[int], index: int) -> tuple[int, int, int]:
    """How well one of torch's values fits one of the graph's; an eps that is added to it shows at its zeros alone."""
    same = int((tape.array(index).astype(value.dtype) == value).sum())
    return len(read.intersection(tape.reads(index))), same, index


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
    return Region(graph, kept, {name: found[name] for name in kept}, {name: stops[name] for name in kept}, target)


def _earlier_end(
    region: Region,
    matched: Mapping[str, int],
    recordings: Recordings,
    layers: Mapping[str, str],
    alive: Callable[[], None],
) -> tuple[str, int] | None:
    """An earlier value of the graph, and torch's in whose place it stands; None where there is none."""
    tape = recordings.double
    steps = tape.steps_between(set(region.starts.values()), region.end)
    inside = [index for step in steps for index in tape.steps[step].outputs]
    free = [index for index in inside if index != region.end and index not in set(matched.values())]
    names = graphs.computed(region.graph)
    before = running.values(region.graph, region.inputs, names)
    hints = {one: tape.modules[path] for path, one in layers.items() if tape.modules.get(path) in free}
    for window in (slice(WINDOW), slice(WINDOW, None)):
        for name in names[:-1]:
            if name not in before or before[name].dtype.kind != "f" or name == region.output:
                continue
            fitting = [one for one in free if tuple(tape.values[one].shape) == before[name].shape][window]
            if window.start is None and name in hints:
                fitting = list(dict.fromkeys([hints[name], *fitting]))
            index = _stands_for(name, fitting, before, region, recordings, set(inside), alive)
            if index is not None:
                return name, index
    return None


def _stands_for(
    name: str,
    candidates: Sequence[int],
    before: Arrays,
    region: Region,
    recordings: Recordings,
    inside: set[int],
    alive: Callable[[], None],
) -> int | None:
    """The first of torch's values with which, in the place of the graph's, other values agree with torch."""
    if not candidates:
        return None
    after_it = behind(region.graph, name)
    given = {**before, **region.inputs}
    for other in after_it:
        given.pop(other, None)
    tail = graphs.cut(region.graph, given, after_it)
    if name not in {value.name for value in tail.graph.input}:
        return None
    opened = running.session(tail, optimized=False)
    wanted = {one.name for one in opened.get_inputs()}
    makers = {node.output[0]: node.op_type for node in tail.graph.node}
    readers = [node.output[0] for node in tail.graph.node if name in node.input and node.op_type not in MOVES]
    for index in candidates:
        alive()
        given[name] = recordings.double.array(index).astype(before[name].dtype)
        after = dict(zip(after_it, opened.run(after_it, {key: given[key] for key in wanted}), strict=True))
        if any(one in after and np.array_equal(after[one], given[name]) for one in readers):
            continue  # a relu of what a relu gave: it may stand for what is behind the next node
        if region.output in after and recordings.agrees(after[region.output], region.end):
            return index
        others = inside.difference(recordings.equal(given[name]))  # a relu of what a relu gave says nothing
        for other, value in after.items():
            moved = makers.get(other) in MOVES or value.dtype.kind != "f" or value.size < 2
            if not moved and not np.array_equal(value, before[other]) and others.intersection(recordings.equal(value)):
                return index
    return None


def behind(graph: onnx.ModelProto, name: str) -> list[str]:
    """The next values that depend on one, in the graph's order."""
    found = {name: True}
    for node in graph.graph.node:
        if any(one in found for one in graphs.reads(node)) and len(found) <= HORIZON:
            found.update(dict.fromkeys((one for one in node.output if one), True))
    return [one for one in found if one != name]
