"""Repairs whose numbers are fitted: a constant or attribute of a node, a scale or shift by channel, small weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
from onnx import NodeProto, helper

from poolzoo.parity.reduction import graphs, running
from poolzoo.parity.reduction.repair import Repair, missing_node
from poolzoo.parity.reduction.running import Arrays, attempt

STEPS: Final = 8  # of Newton's method
MOST_NUMBERS: Final = 8  # of a short constant, such as a mean by channel
MOST_WEIGHTS: Final = 64  # that are fitted together in a reduced graph


@dataclass(frozen=True)
class Trial:
    """An input of a region, what torch makes of it, and how far a repaired graph may be from that."""

    inputs: Arrays
    expected: np.ndarray
    allowed: float


def fits(proto: onnx.ModelProto, trials: Sequence[Trial]) -> Iterator[Repair]:
    """Other values of single numbers, of short constants and of a bias, then a scale and a shift by channel."""
    constants = graphs.constants(proto)
    first = trials[0]
    for node in list(proto.graph.node)[::-1]:
        for name in dict.fromkeys(node.input):
            value = constants.get(name)
            if value is not None and value.dtype == np.float32 and value.size == 1:
                yield from _number(proto, node, name, value, first)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.FLOAT:
                yield from _attribute(proto, node, attribute.name, attribute.f, first)
    yield from weight_fits(proto, trials, most=MOST_NUMBERS)
    found = attempt(running.unoptimized, proto, first.inputs)
    if found is not None and found.shape == first.expected.shape:
        yield from _bias(proto, proto.graph.node[-1], first.expected - found)
        yield from _by_channel(proto.graph.node[-1], np.asarray(found, np.float64), first.expected)


def _number(proto: onnx.ModelProto, node: NodeProto, name: str, value: np.ndarray, trial: Trial) -> Iterator[Repair]:
    def repair(number: float) -> Repair:
        return Repair(
            node=node.output[0],
            operator=node.op_type,
            part="constant",
            name=name,
            found=f"{value.item():.6g}",
            expected=f"{number:.6g}",
            nodes=(node,),
            constants={name: np.full(value.shape, number, np.float32)},
        )

    yield from _newton(proto, repair, value.item(), trial)


def _attribute(proto: onnx.ModelProto, node: NodeProto, name: str, value: float, trial: Trial) -> Iterator[Repair]:
    def repair(number: float) -> Repair:
        changed = NodeProto()
        changed.CopyFrom(node)
        next(one for one in changed.attribute if one.name == name).f = number
        return Repair(
            node=node.output[0],
            operator=node.op_type,
            part="attribute",
            name=name,
            found=f"{value:.6g}",
            expected=f"{number:.6g}",
            nodes=(changed,),
        )

    yield from _newton(proto, repair, value, trial)


def _newton(proto: onnx.ModelProto, repair: Callable[[float], Repair], start: float, trial: Trial) -> Iterator[Repair]:
    """The number with which the graph is closest to what is expected, by Gauss and Newton."""
    number = start
    for _ in range(STEPS):
        step = 1e-3 * (abs(number) or 1.0)
        here, there = (_distance(repair(one).applied(proto), trial) for one in (number, number + step))
        if here is None or there is None:
            return
        slope = (there - here) / step
        square = float((slope * slope).sum())
        if not np.isfinite(square) or square == 0:
            return
        number -= float((slope * here).sum()) / square
    yield repair(float(f"{number:.4g}"))
    yield repair(number)


def _distance(proto: onnx.ModelProto, trial: Trial) -> np.ndarray | None:
    found = attempt(running.unoptimized, proto, trial.inputs)
    if found is None or found.shape != trial.expected.shape:
        return None
    return np.asarray(found - trial.expected, np.float64)


def _bias(proto: onnx.ModelProto, node: NodeProto, missing: np.ndarray) -> Iterator[Repair]:
    """Another bias of a convolution or product that has one."""
    value = graphs.constants(proto).get(node.input[2]) if len(node.input) > 2 else None
    if value is None or node.op_type not in ("Conv", "ConvTranspose", "Gemm") or missing.ndim < 2:
        return
    shift = missing.mean(tuple(axis for axis in range(missing.ndim) if axis != 1))
    if value.size == shift.size:
        fitted = (value + shift.reshape(value.shape)).astype(np.float32)
        yield _weights(node, node.input[2], value, fitted)


def _by_channel(node: NodeProto, found: np.ndarray, expected: np.ndarray) -> Iterator[Repair]:
    """A shift, a scale, or both, along one axis or of all values."""
    axes = [axis for axis in range(found.ndim) if 1 < found.shape[axis] < found.size]
    for kept in (None, *axes):
        over = tuple(axis for axis in range(found.ndim) if axis != kept)
        shift = (expected - found).mean(over, keepdims=True)
        square = (found * found).sum(over, keepdims=True)
        scale = (found * expected).sum(over, keepdims=True) / np.where(square == 0, 1, square)
        where = "" if kept is None else f" along axis {kept}"
        yield _behind(node, f"Add of {_shown(shift)}{where}", shift=shift)
        yield _behind(node, f"Mul by {_shown(scale)}{where}", scale=scale)
        centered = found - found.mean(over, keepdims=True)
        spread = (centered * centered).sum(over, keepdims=True)
        slope = (centered * expected).sum(over, keepdims=True) / np.where(spread == 0, 1, spread)
        rest = (expected - slope * found).mean(over, keepdims=True)
        yield _behind(node, f"Mul by {_shown(slope)} and Add of {_shown(rest)}{where}", scale=slope, shift=rest)


def _behind(node: NodeProto, text: str, **vectors: np.ndarray) -> Repair:
    before = NodeProto()
    before.CopyFrom(node)
    last, nodes = f"{node.output[0]}_before", [before]
    before.output[0] = last
    for name, operator in (("scale", "Mul"), ("shift", "Add")):
        if name in vectors:
            made = f"{node.output[0]}_{name}d"
            nodes.append(helper.make_node(operator, [last, f"fitted_{name}"], [made]))
            last = made
    nodes[-1].output[0] = node.output[0]
    constants = [(f"fitted_{name}", one.astype(np.float32)) for name, one in vectors.items()]
    return missing_node(node, nodes, text, constants)


def weight_fits(proto: onnx.ModelProto, trials: Sequence[Trial], most: int = MOST_WEIGHTS) -> Iterator[Repair]:
    """Other small weights, by least squares; the output is linear in the weights of a convolution or a product."""
    for node in proto.graph.node:
        for name in dict.fromkeys(node.input):
            value = graphs.constants(proto).get(name)
            if value is None or value.dtype != np.float32 or not 0 < value.size <= most:
                continue
            fitted = _least_squares(proto, node, name, value, trials)
            if fitted is not None:
                yield _weights(node, name, value, fitted)


def _weights(node: NodeProto, name: str, value: np.ndarray, fitted: np.ndarray) -> Repair:
    """Other numbers in a weight, told by the one that is furthest away."""
    worst = np.unravel_index(int(np.abs(fitted - value).argmax()), value.shape)
    return Repair(
        node=node.output[0],
        operator=node.op_type,
        part="weights",
        name=f"{name}{[int(one) for one in worst]}",
        found=f"{value[worst]:.6g}",
        expected=f"{fitted[worst]:.6g}",
        nodes=(node,),
        constants={name: fitted},
    )


def _least_squares(
    proto: onnx.ModelProto, node: NodeProto, name: str, value: np.ndarray, trials: Sequence[Trial]
) -> np.ndarray | None:
    def outputs(weights: np.ndarray) -> np.ndarray | None:
        changed = graphs.with_constant_values(proto, name, weights)
        parts: list[np.ndarray] = []
        for trial in trials:
            found = attempt(running.reference, changed, trial.inputs)
            if found is None or found.shape != trial.expected.shape:
                return None
            parts.append(np.asarray(found - trial.expected, np.float64).ravel())
        return np.concatenate(parts)

    start = outputs(value)
    if start is None or not np.isfinite(start).all():
        return None
    columns = []
    for index in range(value.size):
        moved = value.copy()
        moved.flat[index] += 1
        there = outputs(moved)
        if there is None:
            return None
        columns.append(there - start)
    change, *_ = np.linalg.lstsq(np.stack(columns, 1), -start, rcond=None)
    return np.asarray((value + change.reshape(value.shape)).astype(np.float32))


def _shown(vector: np.ndarray) -> str:
    return f"{vector.item():.6g}" if vector.size == 1 else f"{vector.size} numbers"
