"""Repairs of a node by its constants, inputs, operator and weights, and by nodes that are missing or surplus."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import onnx
from onnx import NodeProto, helper

from poolzoo.parity.reduction import alternatives, graphs
from poolzoo.parity.reduction.attribute_repairs import schema_of
from poolzoo.parity.reduction.repair import Hints, Repair, missing_node, shown

EPSILONS: Final = (1e-12, 1e-10, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3)
# Operators of the same inputs, of which one may stand where another should.
FAMILIES: Final = tuple(
    tuple(names.split())
    for names in (
        "Relu Sigmoid Tanh LeakyRelu Elu Selu Softplus Softsign HardSigmoid HardSwish Gelu Mish Erf Abs Neg Exp Log "
        "Sqrt Reciprocal Floor Ceil Round Sign Identity Sin Cos Not",
        "Add Sub Mul Div Pow Max Min PRelu Mod",
        "Less LessOrEqual Greater GreaterOrEqual Equal",
        "ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceSumSquare ReduceLogSumExp "
        "ReduceLogSum",
        "MaxPool AveragePool",
        "GlobalMaxPool GlobalAveragePool",
        "Softmax LogSoftmax Hardmax",
        "ArgMax ArgMin",
        "And Or Xor",
    )
)
MISSING: Final = (
    "Relu",
    "Sigmoid",
    "Tanh",
    "Neg",
    "Abs",
    "Sqrt",
    "Exp",
    "Log",
    "Reciprocal",
    "Softplus",
    "HardSigmoid",
)
MISSING_MORE: Final = ("HardSwish", "Gelu", "Erf", "Floor", "Round", "Softmax")


def constants(node: NodeProto, known: dict[str, np.ndarray], hints: Hints, *, guessed: bool) -> Iterator[Repair]:
    """Small constants that a node reads: axes, paddings, bounds, exponents, an eps.

    Args:
        node: The node.
        known: The constants of the graph.
        hints: What torch has there.
        guessed: Whether to try numbers near those in the graph, and not torch's.
    """
    for position, name in enumerate(node.input):
        value = known.get(name)
        if value is None or value.size > alternatives.MOST_INTEGERS:
            continue
        if value.dtype.kind == "i":
            given = value.ravel().tolist()
            near = list(_near(node, given)) if guessed else hints.lists(len(given))
            others = [np.array(one, value.dtype).reshape(value.shape) for one in near if len(one) == len(given)]
            others += [np.array(one, value.dtype) for one in near if len(one) != len(given) and value.ndim == 1]
        elif value.dtype.kind == "f" and value.size == 1:
            number = float(value.item())
            numbers = alternatives.numbers(number) if guessed else hints.numbers()
            others = [np.full(value.shape, one, value.dtype) for one in numbers]
        elif value.dtype.kind == "f" and value.ndim and guessed:
            others = [value[::-1].copy(), *(np.roll(value, one) for one in range(1, len(value)))]
        else:
            continue
        for other in others:
            if other.shape != value.shape or not np.array_equal(other, value):
                yield _with_constants(node, {position: other}, name, value.tolist(), other.tolist())


def _near(node: NodeProto, given: list[int]) -> Iterator[list[int]]:
    """Integers that may be meant in the place of those that a node reads."""
    yield from alternatives.lists(given)
    yield from ([other] * len(given) for other in (-1, 2**31 - 1))
    if node.op_type.startswith("Reduce") or node.op_type in ("Squeeze", "Unsqueeze"):
        yield from alternatives.axes_of(5)


def bounds(node: NodeProto, known: dict[str, np.ndarray]) -> Iterator[Repair]:
    """Both bounds of a slice moved together."""
    if node.op_type != "Slice" or not known.keys() >= set(node.input[1:3]):
        return
    start, end = (known[name] for name in node.input[1:3])
    for step, more in itertools.product((-2, -1, 1, 2), repeat=2):
        moved = {1: start + step, 2: end + more}
        found, other = [start.tolist(), end.tolist()], [one.tolist() for one in moved.values()]
        yield _with_constants(node, moved, "starts, ends", found, other)


def _with_constants(
    node: NodeProto, values: Mapping[int, np.ndarray], name: str, found: object, expected: object
) -> Repair:
    """Constants of a node's own at some of its inputs: others may read the ones that it has."""
    changed = NodeProto()
    changed.CopyFrom(node)
    own = {position: f"{node.output[0]}_{position}" for position in values}
    for position, one in own.items():
        changed.input[position] = one
    return Repair(
        node=node.output[0],
        operator=node.op_type,
        part="constant",
        name=name,
        found=shown(found),
        expected=shown(expected),
        nodes=(changed,),
        constants={own[position]: value for position, value in values.items()},
    )


def _with_weight(node: NodeProto, name: str, value: np.ndarray, other: np.ndarray, part: str, note: str = "") -> Repair:
    texts = [
        shown(one.tolist()) if one.size <= alternatives.MOST_INTEGERS else f"{list(one.shape)}"
        for one in (value, other)
    ]
    return Repair(
        node=node.output[0],
        operator=node.op_type,
        part=part,
        name=name,
        found=texts[0],
        expected=note or texts[1],
        nodes=(node,),
        constants={name: other},
    )


def inputs(proto: onnx.ModelProto, node: NodeProto) -> Iterator[Repair]:
    """Inputs in another order, an optional one left out, or what is computed from something else in the graph."""
    given = list(node.input)
    orders = [list(one) for one in itertools.permutations(given)] if 1 < len(given) <= 3 else []
    orders += [given[:count] for count in range(1, len(given))]
    others = [value.name for value in proto.graph.input]
    others += [name for name in graphs.computed(graphs.cut(proto, {}, node.output[0])) if name != node.output[0]]
    orders += [
        [*given[:i], name, *given[i + 1 :]] for i in range(min(2, len(given))) for name in others if name != given[i]
    ]
    for order in orders:
        if order == given:
            continue
        changed = NodeProto()
        changed.CopyFrom(node)
        changed.input[:] = order
        yield Repair(
            node=node.output[0],
            operator=node.op_type,
            part="input",
            name=_positions(given, order),
            found=shown([one for one, other in itertools.zip_longest(given, order) if one != other]),
            expected=shown([other for one, other in itertools.zip_longest(given, order) if one != other]),
            nodes=(changed,),
        )


def _positions(given: list[str], order: list[str]) -> str:
    """Where two lists of inputs differ."""
    pairs = itertools.zip_longest(given, order)
    return ", ".join(str(index) for index, (one, other) in enumerate(pairs) if one != other)


PLAIN: Final = ("LeakyRelu", "Elu", "Selu", "Celu", "ThresholdedRelu", "PRelu")  # some number makes them a Relu, almost


def plain(node: NodeProto) -> Iterator[Repair]:
    """A `Relu` where a node is one with a slope or a bend: that is what it should be, not another number in it."""
    if node.op_type in PLAIN:
        yield _replaced(node, helper.make_node("Relu", [node.input[0]], [node.output[0]]))


def operators(proto: onnx.ModelProto, node: NodeProto) -> Iterator[Repair]:
    """Another operator of the same inputs."""
    for family in FAMILIES:
        for other in family if node.op_type in family else ():
            if other == node.op_type:
                continue
            changed = NodeProto()
            changed.CopyFrom(node)
            changed.op_type = other
            schema = schema_of(proto, changed)
            if schema is None:
                continue
            kept = [one for one in node.attribute if one.name in schema.attributes]
            del changed.attribute[:]
            changed.attribute.extend(kept)
            yield _replaced(node, changed)


def _replaced(node: NodeProto, changed: NodeProto) -> Repair:
    """A node of another operator in the place of one."""
    return Repair(
        node=node.output[0],
        operator=node.op_type,
        part="operator",
        name="",
        found=node.op_type,
        expected=changed.op_type,
        nodes=(changed,),
    )


def weights(node: NodeProto, known: dict[str, np.ndarray], weights: Sequence[np.ndarray]) -> Iterator[Repair]:
    """The network's own weights, and mirrored, turned and moved forms of those in the graph."""
    for name in dict.fromkeys(node.input):
        value = known.get(name)
        if value is None or value.dtype.kind != "f" or value.size < 2:
            continue
        for other in weights:
            for form in (other, other.T if other.ndim == 2 else None):
                if form is not None and form.size == value.size and form.ndim < 2:
                    form = form.reshape(value.shape)
                if form is not None and form.shape == value.shape and not np.array_equal(form, value):
                    note = f"the network's, which is up to {np.abs(form - value).max():.3g} away,"
                    yield _with_weight(node, name, value, form.astype(value.dtype), "weights", note)
        for note, other in _forms(value):
            yield _with_weight(node, name, value, other, "weights", note)


def _forms(value: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    for axis in range(value.ndim):
        yield f"mirrored along axis {axis}", np.flip(value, axis)
        for step in (1, -1):
            yield f"moved by {step} along axis {axis}", np.roll(value, step, axis)
    for first, second in itertools.combinations(range(value.ndim), 2):
        yield f"mirrored along axes {first} and {second}", np.flip(value, (first, second))
        if value.shape[first] == value.shape[second]:
            yield f"axes {first} and {second} swapped", np.swapaxes(value, first, second)
    for factor in (-1.0, 2.0, 0.5, 255.0, 1 / 255):
        yield f"times {factor:.4g}", (value * factor).astype(value.dtype)


def missing(node: NodeProto, weights: Sequence[np.ndarray]) -> Iterator[Repair]:
    """A node that should follow or lead to an input, an eps that should be added to an input, or a bias."""
    name = f"{node.output[0]}_before"
    shortened = NodeProto()
    shortened.CopyFrom(node)
    shortened.output[0] = name
    for operator in (*MISSING, *MISSING_MORE):
        yield missing_node(node, [shortened, helper.make_node(operator, [name], [node.output[0]])], operator)
    six = [("zero", np.float32(0)), ("six", np.float32(6))]
    clip = helper.make_node("Clip", [name, "zero", "six"], [node.output[0]])
    yield missing_node(node, [shortened, clip], "Clip to 0–6", six)
    for position, given in enumerate(node.input):
        for operator in (*MISSING, *MISSING_MORE) if given and position < 2 else ():
            changed = NodeProto()
            changed.CopyFrom(node)
            changed.input[position] = f"{name}_active"
            nodes = [helper.make_node(operator, [given], [f"{name}_active"]), changed]
            yield missing_node(node, nodes, f"{operator} of input {position}")
        for eps in EPSILONS if given and node.op_type in ("Div", "Sqrt", "Log", "Pow", "Reciprocal") else ():
            plus = helper.make_node("Add", [given, "eps"], [f"{name}_eps"])
            changed = NodeProto()
            changed.CopyFrom(node)
            changed.input[position] = f"{name}_eps"
            text = f"an Add of {eps:g} to input {position}"
            yield missing_node(node, [plus, changed], text, [("eps", np.float32(eps))])
    for weight in weights:
        if weight.ndim == 1 and weight.size > 1:
            for operator, axes in itertools.product(("Add", "Mul"), (0, 1, 2)):
                shaped = weight.astype(np.float32).reshape(-1, *(1 for _ in range(axes)))
                after = helper.make_node(operator, [name, "vector"], [node.output[0]])
                text = f"{operator} of a vector of {weight.size} weights"
                yield missing_node(node, [shortened, after], text, [("vector", shaped)])


def missing_before_several(proto: onnx.ModelProto, node: NodeProto) -> Iterator[Repair]:
    """A node that should lead from an input of the graph to all that read it; `node` is the first of them."""
    for given in dict.fromkeys(node.input):
        readers = [one for one in proto.graph.node if given in one.input]
        if given not in {value.name for value in proto.graph.input} or len(readers) < 2 or readers[0] != node:
            continue
        active = f"{given}_active"
        changed = NodeProto()
        changed.CopyFrom(node)
        changed.input[:] = [active if one == given else one for one in node.input]
        for operator in (*MISSING, *MISSING_MORE):
            nodes = [helper.make_node(operator, [given], [active]), changed]
            text = f"{operator} of {given!r}, which several nodes read,"
            yield replace(missing_node(node, nodes, text), renamed={given: active})


def surplus(proto: onnx.ModelProto, node: NodeProto) -> Iterator[Repair]:
    """A node that should not be there, nor what leads to it: a value that it reads, or an input, is in its place.

    Values that agree with torch are inputs of the graph, so that the first of several surplus nodes reads one.
    """
    for given in dict.fromkeys([*graphs.reads(node), *(value.name for value in proto.graph.input)]):
        yield Repair(
            node=node.output[0],
            operator=node.op_type,
            part="surplus node",
            name="",
            found=node.op_type,
            expected=given,
            nodes=(helper.make_node("Identity", [given], [node.output[0]]),),
        )
