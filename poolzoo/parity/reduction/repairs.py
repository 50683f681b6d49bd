"""Finds the smallest change of one node that makes a graph agree: it names the attribute or constant at fault.

Every candidate is tried. None is taken for granted: a repair counts only where the graph agrees with it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from poolzoo.parity.reduction import alternatives, graphs

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


@dataclass(frozen=True, kw_only=True)
class Repair:
    """A change of one node with which the graph agrees.

    Attributes:
        node: The name of the node's first output.
        operator: Its operator.
        part: What of it is at fault: "attribute", "constant", "weights", "input", "operator" or "missing node".
        name: The name of the attribute or constant, or the position of the input.
        found: What the graph has, in words.
        expected: What agrees, in words.
        nodes: What is in the node's place.
        constants: New and changed constants by name.
    """

    node: str
    operator: str
    part: str
    name: str
    found: str
    expected: str
    nodes: tuple[NodeProto, ...]
    constants: Mapping[str, np.ndarray] = field(default_factory=dict)

    def applied(self, proto: onnx.ModelProto) -> onnx.ModelProto:
        """A copy of a graph that has the node, with the change."""
        copy = graphs.with_node(proto, self.node, self.nodes)
        for tensor in [one for one in copy.graph.initializer if one.name in self.constants]:
            copy.graph.initializer.remove(tensor)
        tensors = [numpy_helper.from_array(np.ascontiguousarray(one), name) for name, one in self.constants.items()]
        copy.graph.initializer.extend(tensors)
        return copy

    def to_json(self) -> dict[str, str]:
        """`culprit` in `report.json`."""
        return {
            "node": self.node,
            "operator": self.operator,
            "part": self.part,
            "name": self.name,
            "found": self.found,
            "expected": self.expected,
        }

    def describe(self) -> str:
        """In words."""
        where = f"{self.operator} {self.node!r}"
        if self.part == "missing node":
            return f"{where}: {self.expected} is missing"
        return f"{where}: {self.part} {self.name} is {self.found}, {self.expected} agrees".replace("  ", " ")


def find_repair(
    proto: onnx.ModelProto,
    weights: Sequence[np.ndarray],
    agrees: Callable[[onnx.ModelProto], bool],
    rank: Callable[[str], int],
) -> Repair | None:
    """The first change of a node with which the graph agrees: attributes first, then constants, then operators.

    Args:
        proto: The graph, a small one.
        weights: What the network has for weights, for the constants of the same shape.
        agrees: Whether a changed graph agrees; False where it cannot be run.
        rank: The number of axes of a value.
    """
    known = graphs.constants(proto)
    nodes = list(proto.graph.node)[::-1]
    searches: tuple[Callable[[NodeProto], Iterator[Repair]], ...] = (
        lambda node: _attributes(proto, node, rank),
        lambda node: _constants(node, known),
        lambda node: _bounds(node, known),
        lambda node: _inputs(proto, node),
        lambda node: _operators(proto, node),
        lambda node: _weights(node, known, weights),
        lambda node: _missing(node, weights),
    )
    for search in searches:
        for node in nodes:
            for repair in search(node):
                if agrees(repair.applied(proto)):
                    return repair
    return None


# --- Attributes ------------------------------------------------------------------------------------------------------


def _attributes(proto: onnx.ModelProto, node: NodeProto, rank: Callable[[str], int]) -> Iterator[Repair]:
    present = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    schema = _schema(proto, node)
    axes = rank(node.input[0]) if node.input else 0
    names = list(dict.fromkeys([*present, *(schema.attributes if schema else ())]))
    options: dict[str, list[Any]] = {}
    for name in names:
        value = present.get(name, _default(schema, name))
        options[name] = [one for one in alternatives.alternatives(name, value, axes) if one != value]
        for other in options[name]:
            yield _with_attributes(node, {name: other}, {name: value})
        if name in present:
            yield _with_attributes(node, {name: None}, {name: value})
    lists = [name for name in options if name in ("pads", "dilations", "strides", "kernel_shape")]
    for first, second in itertools.combinations(lists, 2):
        uniform = [[one for one in options[name] if len(set(one)) == 1] for name in (first, second)]
        old = {name: present.get(name, _default(schema, name)) for name in (first, second)}
        for one, other in itertools.product(*uniform):
            yield _with_attributes(node, {first: one, second: other}, old)


def _with_attributes(node: NodeProto, values: dict[str, Any], old: dict[str, Any]) -> Repair:
    changed = NodeProto()
    changed.CopyFrom(node)
    kept = [one for one in changed.attribute if one.name not in values]
    del changed.attribute[:]
    changed.attribute.extend(kept)
    changed.attribute.extend(
        helper.make_attribute(name, value) for name, value in values.items() if value is not None and value != []
    )
    return Repair(
        node=node.output[0],
        operator=node.op_type,
        part="attribute",
        name=", ".join(values),
        found=", ".join(_shown(old[name]) for name in values),
        expected=", ".join(map(_shown, values.values())),
        nodes=(changed,),
    )


def _schema(proto: onnx.ModelProto, node: NodeProto) -> Any:
    versions = {entry.domain: entry.version for entry in proto.opset_import}
    try:
        return onnx.defs.get_schema(node.op_type, versions.get(node.domain, 1), node.domain)
    except onnx.defs.SchemaError:
        return None  # of another domain


def _default(schema: Any, name: str) -> Any:
    found = schema.attributes.get(name) if schema else None
    if found is None or not found.default_value.name:
        return None
    return helper.get_attribute_value(found.default_value)


# --- Constants, inputs, operators ------------------------------------------------------------------------------------


def _constants(node: NodeProto, known: dict[str, np.ndarray]) -> Iterator[Repair]:
    """Small constants that a node reads: axes, paddings, bounds, exponents, an eps."""
    for name in dict.fromkeys(node.input):
        value = known.get(name)
        if value is None or value.size > alternatives.MOST_INTEGERS:
            continue
        if value.dtype.kind == "i":
            given = value.reshape(-1).tolist()
            near = [*alternatives.lists(given), *([other] * len(given) for other in (-1, 2**31 - 1))]
            if node.op_type.startswith("Reduce") or node.op_type in ("Squeeze", "Unsqueeze"):
                near += list(alternatives.axes_of(5))
            others = [np.array(one, value.dtype).reshape(value.shape) for one in near if len(one) == len(given)]
            others += [np.array(one, value.dtype) for one in near if len(one) != len(given) and value.ndim == 1]
        elif value.dtype.kind == "f" and value.size == 1:
            others = [
                np.full(value.shape, one, value.dtype) for one in alternatives.numbers(float(value.reshape(-1)[0]))
            ]
        elif value.dtype.kind == "f":
            others = [value[::-1].copy(), *(np.roll(value, one) for one in range(1, len(value)))] if value.ndim else []
        else:
            continue
        for other in others:
            if other.shape != value.shape or not np.array_equal(other, value):
                yield _with_weight(node, name, value, other, "constant")


def _with_weight(node: NodeProto, name: str, value: np.ndarray, other: np.ndarray, part: str, note: str = "") -> Repair:
    shown = [
        _shown(one.tolist()) if one.size <= alternatives.MOST_INTEGERS else f"{list(one.shape)}"
        for one in (value, other)
    ]
    return Repair(
        node=node.output[0],
        operator=node.op_type,
        part=part,
        name=name,
        found=shown[0],
        expected=note or shown[1],
        nodes=(node,),
        constants={name: other},
    )


def _inputs(proto: onnx.ModelProto, node: NodeProto) -> Iterator[Repair]:
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
            found=_shown([one for one, other in itertools.zip_longest(given, order) if one != other]),
            expected=_shown([other for one, other in itertools.zip_longest(given, order) if one != other]),
            nodes=(changed,),
        )


def _positions(given: list[str], order: list[str]) -> str:
    """Where two lists of inputs differ."""
    pairs = itertools.zip_longest(given, order)
    return ", ".join(str(index) for index, (one, other) in enumerate(pairs) if one != other)


def _operators(proto: onnx.ModelProto, node: NodeProto) -> Iterator[Repair]:
    """Another operator of the same inputs."""
    for family in FAMILIES:
        for other in family if node.op_type in family else ():
            if other == node.op_type:
                continue
            changed = NodeProto()
            changed.CopyFrom(node)
            changed.op_type = other
            schema = _schema(proto, changed)
            if schema is None:
                continue
            kept = [one for one in node.attribute if one.name in schema.attributes]
            del changed.attribute[:]
            changed.attribute.extend(kept)
            yield Repair(
                node=node.output[0],
                operator=node.op_type,
                part="operator",
                name="",
                found=node.op_type,
                expected=other,
                nodes=(changed,),
            )


def _weights(node: NodeProto, known: dict[str, np.ndarray], weights: Sequence[np.ndarray]) -> Iterator[Repair]:
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


def _missing(node: NodeProto, weights: Sequence[np.ndarray]) -> Iterator[Repair]:
    """A node that should follow, an eps that should be added to an input, or a bias; or this node should not be."""
    name = f"{node.output[0]}_before"
    shortened = NodeProto()
    shortened.CopyFrom(node)
    shortened.output[0] = name
    for operator in (*MISSING, *MISSING_MORE):
        yield _added(node, [shortened, helper.make_node(operator, [name], [node.output[0]])], operator)
    six = [("zero", np.float32(0)), ("six", np.float32(6))]
    clip = helper.make_node("Clip", [name, "zero", "six"], [node.output[0]])
    yield _added(node, [shortened, clip], "Clip to 0–6", six)
    for position, given in enumerate(node.input):
        for operator in MISSING if given and position < 2 else ():
            changed = NodeProto()
            changed.CopyFrom(node)
            changed.input[position] = f"{name}_active"
            nodes = [helper.make_node(operator, [given], [f"{name}_active"]), changed]
            yield _added(node, nodes, f"{operator} of input {position}")
        for eps in EPSILONS if given and node.op_type in ("Div", "Sqrt", "Log", "Pow", "Reciprocal") else ():
            plus = helper.make_node("Add", [given, "eps"], [f"{name}_eps"])
            changed = NodeProto()
            changed.CopyFrom(node)
            changed.input[position] = f"{name}_eps"
            text = f"an Add of {eps:g} to input {position}"
            yield _added(node, [plus, changed], text, [("eps", np.float32(eps))])
    for weight in weights:
        if weight.ndim == 1 and weight.size > 1:
            for operator, axes in itertools.product(("Add", "Mul"), (0, 1, 2)):
                shaped = weight.astype(np.float32).reshape(-1, *(1 for _ in range(axes)))
                after = helper.make_node(operator, [name, "vector"], [node.output[0]])
                text = f"{operator} of a vector of {weight.size} weights"
                yield _added(node, [shortened, after], text, [("vector", shaped)])
    for given in node.input:
        if given:
            skipped = helper.make_node("Identity", [given], [node.output[0]])
            yield Repair(
                node=node.output[0],
                operator=node.op_type,
                part="operator",
                name="",
                found=node.op_type,
                expected="none (its input as it is)",
                nodes=(skipped,),
            )


def _added(
    node: NodeProto,
    nodes: Sequence[NodeProto],
    text: str,
    constants: Sequence[tuple[str, Any]] = (),
) -> Repair:
    return Repair(
        node=node.output[0],
        operator=node.op_type,
        part="missing node",
        name="",
        found="",
        expected=text,
        nodes=tuple(nodes),
        constants={name: np.asarray(value) for name, value in constants},
    )


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    return str(value)


def find_change(proto: onnx.ModelProto, agrees: Callable[[onnx.ModelProto], bool]) -> Repair | None:
    """The first attribute of a node without which, or with whose opposite, a runtime computes the graph rightly."""
    for node in list(proto.graph.node)[::-1]:
        for attribute in node.attribute:
            value = helper.get_attribute_value(attribute)
            for other in (None, 1 - value) if isinstance(value, int) and value in (0, 1) else (None,):
                repair = _with_attributes(node, {attribute.name: other}, {attribute.name: value})
                try:
                    if agrees(repair.applied(proto)):
                        return repair
                except Exception:  # runtimes' exceptions share no base class
                    continue
    return None
