"""Computes the last layers for the one row that the rest of a graph uses, such as the class token of a transformer.

A `Gather` of one row moves up, through operators that compute each row from the same row of an input, until another
operator needs all rows: in a transformer to the keys and values of its last block. Values stay, up to rounding.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from poolzoo.runtime.graph_view import GraphView, attribute

DOMAINS: Final = ("", "ai.onnx")


class _Row(NamedTuple):
    """Which row of a value is used: all others along this axis are not."""

    axis: int
    number: int


def narrow_rows(proto: onnx.ModelProto) -> dict[str, str]:
    """Moves the choice of a row up, in place, where that spares rows of a matrix product.

    Args:
        proto: An fp32 graph that states the shapes of its values.

    Returns:
        The new names of the values of which one row is left, by those of the whole values.
    """
    if any(one.type in (one.GRAPH, one.GRAPHS) for node in proto.graph.node for one in node.attribute):
        return {}  # inner graphs may read any value
    narrowing = _Narrowing(GraphView(proto.graph))
    narrowing.choose()
    if not any(narrowing.view.producers[name].op_type == "MatMul" for name in narrowing.rows):
        return {}
    nodes = [new for node in proto.graph.node for new in narrowing.rewritten(node)]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    kept = [value for value in proto.graph.value_info if value.name not in narrowing.rows]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend([*kept, *narrowing.infos])
    return {name: _row_of(name) for name in narrowing.rows}


@dataclass
class _Narrowing:
    """What is left of a graph's values.

    Attributes:
        view: The graph as it was.
        rows: The row that is left of a value, by its name.
        needs: The axes of the rows that a narrowed node needs of its inputs, by its output; None where it needs all.
        infos: Shapes of the new values.
    """

    view: GraphView
    rows: dict[str, _Row] = field(default_factory=dict)
    needs: dict[str, list[int | None]] = field(default_factory=dict)
    infos: list[onnx.ValueInfoProto] = field(default_factory=list)
    _sliced: dict[tuple[str, _Row], str] = field(default_factory=dict)

    def choose(self) -> None:
        """Finds `rows` and `needs`, from the last node to the first."""
        used: dict[str, set[_Row | None]] = defaultdict(set)  # by each of a value's users; None for all rows
        for name in self.view.outputs:
            used[name].add(None)
        for node in reversed(self.view.graph.node):
            chosen = self._chosen_by(node)
            if chosen is not None:
                used[node.input[0]].add(chosen)
                continue
            left = used[node.output[0]] if len(node.output) == 1 else {None}
            row = next(iter(left)) if len(left) == 1 else None
            axes = self._axes(node, row.axis) if row is not None else None
            if row is not None and axes is not None:
                self.rows[node.output[0]], self.needs[node.output[0]] = row, axes
            for name, axis in zip(node.input, axes or [None] * len(node.input), strict=True):
                used[name].add(None if row is None or axis is None else _Row(axis, row.number))

    def _chosen_by(self, node: NodeProto) -> _Row | None:
        """The row that a `Gather` chooses of three or more dimensions; None for other nodes."""
        if node.op_type != "Gather" or node.domain not in DOMAINS or node.input[0] not in self.view.floats:
            return None
        sides, index = self.view.sides(node.input[0]), self.view.constant(node.input[1])
        axis = int(str(attribute(node, "axis", 0))) % max(len(sides), 1)
        if len(sides) < 3 or axis == 0 or sides[axis] < 2 or index is None or index.size != 1:
            return None
        return _Row(axis, int(index.item()) % sides[axis])

    def _axes(self, node: NodeProto, axis: int) -> list[int | None] | None:
        """The axes of the row in a node's inputs where it is `axis` in its output; None where a row needs several."""
        rule = _RULES.get(node.op_type) if node.domain in DOMAINS else None
        return rule(node, axis, self.view) if rule is not None else None

    def rewritten(self, node: NodeProto) -> list[NodeProto]:
        """The nodes that replace one: the same for the row alone, behind the slices that it needs."""
        chosen, name = self._chosen_by(node), node.output[0]
        if chosen is not None and node.input[0] in self.rows:
            index = self.view.constant(node.input[1])
            assert index is not None  # which `_chosen_by` has seen
            inputs = [_row_of(node.input[0]), self._add(f"{name}_index", np.zeros_like(index))]
            return [_with_names(node, inputs, list(node.output))]
        if name not in self.rows:
            return [node]
        before: list[NodeProto] = []
        inputs = []
        for given, axis in zip(node.input, self.needs[name], strict=True):
            row = None if axis is None else _Row(axis, self.rows[name].number)
            inputs.append(given if row is None else self._row(given, row, before))
        if node.op_type == "Reshape":
            shape = self.view.constant(node.input[1])
            assert shape is not None  # which `_reshape` has seen
            inputs[1] = self._add(f"{name}_shape", np.where(np.arange(shape.size) == self.rows[name].axis, 1, shape))
        self._state(name, _row_of(name), self.rows[name].axis)
        return [*before, _with_names(node, inputs, [_row_of(name)])]

    def _row(self, name: str, row: _Row, before: list[NodeProto]) -> str:
        """The name of a value's row: of the narrowed value, or of a slice, which is added to `before`."""
        if self.rows.get(name) == row:
            return _row_of(name)
        if (name, row) not in self._sliced:
            made = self._sliced[name, row] = f"{name}_row_{row.axis}_{row.number}"
            self._state(name, made, row.axis)
            ends = {"starts": row.number, "ends": row.number + 1, "axes": row.axis}
            given = [self._add(f"{made}_{key}", np.array([value], np.int64)) for key, value in ends.items()]
            before.append(helper.make_node("Slice", [name, *given], [made], f"{made}_slice"))
        return self._sliced[name, row]

    def _add(self, name: str, value: np.ndarray) -> str:
        self.view.graph.initializer.append(numpy_helper.from_array(value.astype(np.int64), name))
        return name

    def _state(self, name: str, made: str, axis: int) -> None:
        shape = [1 if at == axis else side or None for at, side in enumerate(self.view.shapes[name])]
        self.infos.append(helper.make_tensor_value_info(made, TensorProto.FLOAT, shape))


def _row_of(name: str) -> str:
    return f"{name}_row"


def _with_names(node: NodeProto, inputs: Sequence[str], outputs: Sequence[str]) -> NodeProto:
    changed = NodeProto()
    changed.CopyFrom(node)
    changed.input[:] = inputs
    changed.output[:] = outputs
    return changed


# --- Rules: the axis of the row in each input ----------------------------------------------------------------------


def _elementwise(node: NodeProto, axis: int, view: GraphView) -> list[int | None] | None:
    """Inputs broadcast against each other: one without the axis, or of size 1 along it, is needed whole."""
    output = view.shapes.get(node.output[0], ())
    axes: list[int | None] = []
    for name in node.input:
        constant = view.constant(name)
        shape = view.shapes.get(name) if constant is None else constant.shape
        if shape is None or (name not in view.floats and constant is None):
            return None
        at = axis - len(output) + len(shape)
        axes.append(at if at >= 0 and shape[at] != 1 else None)
    return axes if all(at is None or name in view.floats for at, name in zip(axes, node.input, strict=True)) else None


def _layer_norm(node: NodeProto, axis: int, view: GraphView) -> list[int | None] | None:
    first = int(str(attribute(node, "axis", -1))) % max(len(view.sides(node.input[0])), 1)
    return [axis, *[None] * (len(node.input) - 1)] if axis < first else None


def _softmax(node: NodeProto, axis: int, view: GraphView) -> list[int | None] | None:
    over = int(str(attribute(node, "axis", -1))) % max(len(view.sides(node.input[0])), 1)
    return [axis] if axis != over else None


def _matmul(node: NodeProto, axis: int, view: GraphView) -> list[int | None] | None:
    rank, left, right = (len(view.sides(name)) for name in (node.output[0], *node.input))
    held = view.constant(node.input[1])
    right = right if held is None else held.ndim
    return [axis, None] if rank == left and right >= 2 and axis == rank - 2 else None


def _transpose(node: NodeProto, axis: int, view: GraphView) -> list[int | None] | None:
    found = next((list(one.ints) for one in node.attribute if one.name == "perm"), None)
    return [found[axis]] if found is not None else None


def _reshape(node: NodeProto, axis: int, view: GraphView) -> list[int | None] | None:
    """Where the row's axis and all before it stay."""
    before, after = (view.shapes.get(name, ())[: axis + 1] for name in (node.input[0], node.output[0]))
    stays = before == after and len(before) > axis and all(before)
    return [axis, None] if stays and view.constant(node.input[1]) is not None else None


_Rule = Callable[[NodeProto, int, GraphView], "list[int | None] | None"]
_ELEMENTWISE: Final = ("Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "Neg", "Abs", "Sqrt", "Exp", "Log", "Erf")
_ACTIVATIONS: Final = ("Sigmoid", "Tanh", "Relu", "LeakyRelu", "Elu", "Gelu", "HardSigmoid", "HardSwish", "Identity")
_RULES: Final[dict[str, _Rule]] = {
    **dict.fromkeys((*_ELEMENTWISE, *_ACTIVATIONS), _elementwise),
    "LayerNormalization": _layer_norm,
    "Softmax": _softmax,
    "MatMul": _matmul,
    "Transpose": _transpose,
    "Reshape": _reshape,
}
