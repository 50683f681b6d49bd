"""Rewrites of a graph for ncnn: poolings in place of reductions and of slices with steps, which ncnn does not have.

The graph has a batch of one, and states all shapes. Values stay, up to rounding, where they are finite.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

    from poolzoo.runtime.graph_view import GraphView

REDUCTIONS: Final = ("ReduceMax", "ReduceMin", "ReduceSum", "ReduceMean")


def rewrite(model: ModelProto) -> ModelProto:
    """The graph with a global pooling for each reduction over space, and a pooling of 1 × 1 for each step of a slice.

    Args:
        model: It is changed.
    """
    import onnx

    from poolzoo.runtime.graph_view import GraphView

    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    forms = _Forms(GraphView(model.graph))
    nodes = [new for node in model.graph.node for new in (forms.rewritten(node) or [node])]
    del model.graph.node[:], model.graph.value_info[:]
    model.graph.node.extend(nodes)
    return model


class _Forms:
    """A graph as it was, and the constants that the rewrites add."""

    def __init__(self, view: GraphView) -> None:
        self._view = view

    def rewritten(self, node: NodeProto) -> list[NodeProto] | None:
        """The nodes that replace one; None where it stays."""
        if node.output[0] not in self._view.floats and node.output[0] not in self._view.outputs:
            return None
        if node.op_type in REDUCTIONS:
            return list(self._pooled(node))
        rule = {"Slice": self._stepped, "Gather": self._range}.get(node.op_type)
        return list(rule(node)) if rule is not None else None

    def _pooled(self, node: NodeProto) -> Iterator[NodeProto]:
        """A reduction over all axes behind the channels: behind the batch and channels there may be one or two."""
        from onnx import helper

        from poolzoo.runtime.graph_view import attribute

        sides, axes = self._view.sides(node.input[0]), self._axes(node)
        if len(sides) not in (3, 4) or not all(sides) or sorted(axes) != list(range(2, len(sides))):
            return
        x, name = node.input[0], node.output[0]
        if len(sides) == 3:
            yield self._reshape(x, f"{name}_map", [*sides, 1])
            x = f"{name}_map"
        if node.op_type == "ReduceMin":
            yield helper.make_node("Neg", [x], [f"{name}_negative"])
            x = f"{name}_negative"
        largest = node.op_type in ("ReduceMax", "ReduceMin")
        kind = "GlobalMaxPool" if largest else "GlobalAveragePool"
        yield helper.make_node(kind, [x], [f"{name}_pooled"])
        x = f"{name}_pooled"
        if node.op_type == "ReduceMin":
            yield helper.make_node("Neg", [x], [f"{name}_least"])
            x = f"{name}_least"
        if node.op_type == "ReduceSum":
            count = self._add(f"{name}_count", np.array(np.prod(sides[2:]), np.float32))
            yield helper.make_node("Mul", [x, count], [f"{name}_total"])
            x = f"{name}_total"
        kept = [1] * (len(sides) - 2) if attribute(node, "keepdims", 1) else []
        yield self._reshape(x, name, [*sides[:2], *kept])

    def _stepped(self, node: NodeProto) -> Iterator[NodeProto]:
        """A slice of one spatial axis with a step: one without, and a maximum of single values at every step."""
        from onnx import helper

        given = [self._view.constant(name) for name in node.input[1:]]
        sides = self._view.sides(node.input[0])
        if len(given) != 4 or any(one is None or one.size != 1 for one in given) or len(sides) != 4:
            return
        start, _, axis, step = (int(one.item()) for one in given if one is not None)
        if step < 2 or axis not in (2, 3) or start < 0:
            return
        x, name = node.input[0], node.output[0]
        if start:
            one = self._add(f"{name}_step", np.array([1]))
            x = f"{name}_rest"
            yield helper.make_node("Slice", [node.input[0], *node.input[1:4], one], [x])
        strides = [step, 1] if axis == 2 else [1, step]
        yield helper.make_node("MaxPool", [x], [name], kernel_shape=[1, 1], strides=strides)

    def _range(self, node: NodeProto) -> Iterator[NodeProto]:
        """A choice of consecutive rows as a slice."""
        from onnx import helper

        from poolzoo.runtime.graph_view import attribute

        indices, sides = self._view.constant(node.input[1]), self._view.sides(node.input[0])
        if indices is None or indices.ndim != 1 or not sides or (np.diff(indices) != 1).any() or indices[0] < 0:
            return
        name, axis = node.output[0], int(str(attribute(node, "axis", 0))) % len(sides)
        ends = {"starts": indices[0], "ends": indices[-1] + 1, "axes": axis}
        given = [self._add(f"{name}_{key}", np.array([value], np.int64)) for key, value in ends.items()]
        yield helper.make_node("Slice", [node.input[0], *given], [name])

    def _axes(self, node: NodeProto) -> Sequence[int]:
        """The axes of a reduction, as positive numbers; none where the graph computes them."""
        rank = len(self._view.sides(node.input[0]))
        given = self._view.constant(node.input[1]) if len(node.input) > 1 else None
        stated = [axis for one in node.attribute if one.name == "axes" for axis in one.ints]
        listed = stated if given is None else given.tolist()
        return [int(axis) % rank for axis in listed] if rank else []

    def _reshape(self, x: str, name: str, sides: Sequence[int]) -> NodeProto:
        from onnx import helper

        return helper.make_node("Reshape", [x, self._add(f"{name}_sides", np.array(sides, np.int64))], [name])

    def _add(self, name: str, value: np.ndarray) -> str:
        from onnx import numpy_helper

        self._view.graph.initializer.append(numpy_helper.from_array(value, name))
        return name
