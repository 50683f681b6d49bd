"""Rewrites of a graph for ncnn: what pnnx loses or ncnn lacks, in operators that both have.

Of a reduction over one axis alone, pnnx loses the axis. ncnn has no slices with steps, no choice of rows, no
comparisons, no sorting, and wrong powers of 0 and of negative numbers. The graph has a batch of one, and states all
shapes. Values stay, up to rounding, where they are finite.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

    from poolzoo.runtime.graph_view import GraphView

MAX_FACTORS: Final = 8  # of a power that becomes products
MAX_RUNS: Final = 2048  # slices that a choice of rows may become
MAX_SORTED: Final = 9  # values that a network sorts: those of a window of 3 × 3
LARGEST, SQUARES = ("ReduceMax", "ReduceMin"), ("ReduceL2", "ReduceSumSquare")
REDUCTIONS: Final = (*LARGEST, *SQUARES, "ReduceSum", "ReduceMean", "ReduceL1")
SIGNS: Final = {"ReduceMin": "Neg", "ReduceL1": "Abs"}  # what is reduced instead


def rewrite(model: ModelProto) -> ModelProto:
    """The graph in operators that pnnx and ncnn compute.

    Args:
        model: It is changed.
    """
    import onnx

    from poolzoo.runtime.graph_view import GraphView, used

    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    view = GraphView(model.graph)
    forms = _Forms(view)
    nodes = [new for node in model.graph.node for new in (forms.rewritten(node) or [node])]
    kept = used(nodes, view.outputs)
    del model.graph.node[:], model.graph.value_info[:]
    model.graph.node.extend(kept)
    return model


class _Forms:
    """A graph as it was, and the constants that the rewrites add."""

    def __init__(self, view: GraphView) -> None:
        self._view = view

    def rewritten(self, node: NodeProto) -> list[NodeProto] | None:
        """The nodes that replace one; None where it stays."""
        if node.output[0] not in self._view.floats and node.output[0] not in self._view.outputs:
            return None
        rules = {
            "Slice": self._stepped,
            "Gather": self._chosen,
            "Pad": self._padded,
            "Where": self._mixed,
            "Pow": self._powered,
            "TopK": self._sorted,
        }
        rule = self._pooled if node.op_type in REDUCTIONS else rules.get(node.op_type)
        return list(rule(node)) if rule is not None else None

    def _pooled(self, node: NodeProto) -> Iterator[NodeProto]:
        """A reduction over any axes but the batch: they become the space of a map whose channels are the others."""
        from onnx import helper

        from poolzoo.runtime.graph_view import attribute

        sides, axes = self._view.sides(node.input[0]), self._axes(node)
        if not axes or 0 in axes or not all(sides):
            return
        x, name = node.input[0], node.output[0]
        others = [axis for axis in range(1, len(sides)) if axis not in axes]
        order = [0, *others, *axes]
        if order != sorted(order):
            yield helper.make_node("Transpose", [x], [f"{name}_ordered"], perm=order)
            x = f"{name}_ordered"
        channels, count = (math.prod(sides[axis] for axis in some) for some in (others, axes))
        if len(others) != 1 or len(axes) != 2:
            yield self._reshape(x, f"{name}_map", [sides[0], channels, count, 1])
            x = f"{name}_map"
        if node.op_type in SIGNS or node.op_type in SQUARES:
            operator = SIGNS.get(node.op_type, "Mul")
            yield helper.make_node(operator, [x, x] if operator == "Mul" else [x], [f"{name}_terms"])
            x = f"{name}_terms"
        pool = "GlobalMaxPool" if node.op_type in LARGEST else "GlobalAveragePool"
        yield helper.make_node(pool, [x], [f"{name}_pooled"])
        x = f"{name}_pooled"
        if node.op_type not in (*LARGEST, "ReduceMean"):
            factor = self._add(f"{name}_count", np.array(count, np.float32))
            yield helper.make_node("Mul", [x, factor], [f"{name}_total"])
            x = f"{name}_total"
        if node.op_type in ("ReduceMin", "ReduceL2"):
            operator = "Neg" if node.op_type == "ReduceMin" else "Sqrt"
            yield helper.make_node(operator, [x], [f"{name}_back"])
            x = f"{name}_back"
        kept = [1 if axis in axes else side for axis, side in enumerate(sides)]
        left = kept if attribute(node, "keepdims", 1) else [kept[axis] for axis in (0, *others)]
        yield self._reshape(x, name, left)

    def _stepped(self, node: NodeProto) -> Iterator[NodeProto]:
        """A slice of one spatial axis with a step: one without, and a maximum of single values at every step."""
        from onnx import helper

        given = [self._view.constant(name) for name in node.input[1:]]
        sides = self._view.sides(node.input[0])
        if len(given) != 4 or any(one is None or one.size != 1 for one in given) or len(sides) != 4:
            return
        start, end, axis, step = (int(one.item()) for one in given if one is not None)
        if step < 2 or axis not in (2, 3) or start < 0:
            return
        x, name = node.input[0], node.output[0]
        if start or end < sides[axis]:  # a negative end too
            one = self._add(f"{name}_step", np.array([1]))
            x = f"{name}_rest"
            yield helper.make_node("Slice", [node.input[0], *node.input[1:4], one], [x])
        strides = [step, 1] if axis == 2 else [1, step]
        yield helper.make_node("MaxPool", [x], [name], kernel_shape=[1, 1], strides=strides)

    def _chosen(self, node: NodeProto) -> Iterator[NodeProto]:
        """A choice of rows as slices, one for each run of consecutive ones."""
        from onnx import helper

        from poolzoo.runtime.graph_view import attribute

        indices, sides = self._view.constant(node.input[1]), self._view.sides(node.input[0])
        if indices is None or indices.ndim != 1 or not sides or (indices < 0).any():
            return
        name, axis = node.output[0], int(str(attribute(node, "axis", 0))) % len(sides)
        runs = np.split(indices, np.flatnonzero(np.diff(indices) != 1) + 1)
        if len(runs) > MAX_RUNS:
            return
        parts = [name] if len(runs) == 1 else [f"{name}_rows_{at}" for at in range(len(runs))]
        for part, run in zip(parts, runs, strict=True):
            yield self._slice(node.input[0], part, run[0], run[-1] + 1, axis)
        if len(runs) > 1:
            yield helper.make_node("Concat", parts, [name], axis=axis)

    def _padded(self, node: NodeProto) -> Iterator[NodeProto]:
        """A border of infinities as one of the largest numbers: ncnn's text files hold no infinity."""
        from onnx import helper

        value = self._view.constant(node.input[2]) if len(node.input) > 2 else None
        if value is None or not np.isinf(value).any():
            return
        least = self._add(f"{node.output[0]}_value", np.nan_to_num(value))
        rest = [name for name in node.input[3:] if name]
        padded = helper.make_node("Pad", [*node.input[:2], least, *rest], node.output)
        padded.attribute.extend(node.attribute)
        yield padded

    def _mixed(self, node: NodeProto) -> Iterator[NodeProto]:
        """A choice by a comparison as `s x + (1 - s) y`, where s is 1 or 0: ncnn does not compare."""
        from onnx import helper

        made = self._view.producers.get(node.input[0])
        constants = [self._view.constant(value) for value in (*made.input, *node.input)] if made is not None else []
        infinite = any(one is not None and np.isinf(one).any() for one in constants)
        if made is None or made.op_type not in ("Greater", "Less") or infinite:
            return
        name = node.output[0]
        more, less = made.input if made.op_type == "Greater" else reversed(made.input)
        factor = self._add(f"{name}_factor", np.array(np.finfo(np.float32).max))
        zero = self._add(f"{name}_zero", np.array(0, np.float32))
        one = self._add(f"{name}_one", np.array(1, np.float32))
        yield helper.make_node("Sub", [more, less], [f"{name}_excess"])
        yield helper.make_node("Mul", [f"{name}_excess", factor], [f"{name}_scaled"])
        yield helper.make_node("Clip", [f"{name}_scaled", zero, one], [f"{name}_share"])
        yield helper.make_node("Sub", [one, f"{name}_share"], [f"{name}_rest"])
        yield helper.make_node("Mul", [f"{name}_share", node.input[1]], [f"{name}_first"])
        yield helper.make_node("Mul", [f"{name}_rest", node.input[2]], [f"{name}_second"])
        yield helper.make_node("Add", [f"{name}_first", f"{name}_second"], [name])

    def _powered(self, node: NodeProto) -> Iterator[NodeProto]:
        """A power as products, or of no less than the smallest number: ncnn's is wrong of 0 and of negative numbers."""
        from onnx import helper

        exponent = self._view.constant(node.input[1])
        if exponent is None or exponent.size != 1:
            return
        (x, power), name = node.input, node.output[0]
        count = float(exponent.item())
        if count in range(2, MAX_FACTORS + 1):
            products = [x, *(f"{name}_product_{at}" for at in range(2, int(count))), name]
            for before, after in pairwise(products):
                yield helper.make_node("Mul", [before, x], [after])
        elif count > 0:
            least = self._add(f"{name}_least", np.array(np.finfo(np.float32).tiny))
            yield helper.make_node("Clip", [x, least], [f"{name}_positive"])
            yield helper.make_node("Pow", [f"{name}_positive", power], [name])

    def _sorted(self, node: NodeProto) -> Iterator[NodeProto]:
        """The largest or smallest of a few values, by a network of maxima and minima: ncnn does not sort."""
        from onnx import helper

        from poolzoo.runtime.graph_view import attribute

        k, sides = self._view.constant(node.input[1]), self._view.sides(node.input[0])
        axis = int(str(attribute(node, "axis", -1)))
        count = sides[axis] if sides else 0
        if k is None or not 1 < count <= MAX_SORTED or self._view.users.get(node.output[1]):
            return
        (x, _), name = node.input, node.output[0]
        values = [f"{name}_value_{at}" for at in range(count)]
        for at, value in enumerate(values):
            yield self._slice(x, value, at, at + 1, axis % len(sides))
        kinds = ("Max", "Min") if attribute(node, "largest", 1) else ("Min", "Max")
        for step in range(count):  # neighbors change places where they are in the wrong order
            for at in range(step % 2, count - 1, 2):
                pair = values[at : at + 2]
                values[at : at + 2] = [f"{name}_{kind.lower()}_{step}_{at}" for kind in kinds]
                for kind, value in zip(kinds, values[at : at + 2], strict=True):
                    yield helper.make_node(kind, pair, [value])
        yield helper.make_node("Concat", values[: int(k.item())], [name], axis=axis)

    def _axes(self, node: NodeProto) -> Sequence[int]:
        """The axes of a reduction, as positive numbers; none where the graph computes them."""
        rank = len(self._view.sides(node.input[0]))
        given = self._view.constant(node.input[1]) if len(node.input) > 1 else None
        stated = [axis for one in node.attribute if one.name == "axes" for axis in one.ints]
        listed = stated if given is None else given.tolist()
        return sorted(int(axis) % rank for axis in listed) if rank else []

    def _reshape(self, x: str, name: str, sides: Sequence[int]) -> NodeProto:
        from onnx import helper

        return helper.make_node("Reshape", [x, self._add(f"{name}_sides", np.array(sides, np.int64))], [name])

    def _slice(self, x: str, name: str, start: int, end: int, axis: int) -> NodeProto:
        from onnx import helper

        ends = {"starts": start, "ends": end, "axes": axis}
        given = [self._add(f"{name}_{key}", np.array([value], np.int64)) for key, value in ends.items()]
        return helper.make_node("Slice", [x, *given], [name])

    def _add(self, name: str, value: np.ndarray) -> str:
        from onnx import numpy_helper

        self._view.graph.initializer.append(numpy_helper.from_array(value, name))
        return name
