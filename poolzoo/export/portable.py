"""Rewrites of operators that some runtime computes wrongly, refuses or crashes on. Values stay, up to rounding.

Poolings export in portable forms of their own; these are for what comes from backbones and from the preprocessing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from poolzoo.runtime.graph_view import GraphView, used

SIXTH: Final = 1 / 6
ROOT2: Final = math.sqrt(2)


class _Rewriter:
    """A graph as it was before the rewrites, and the constants that they add to it."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.view = GraphView(graph)
        self._added: set[str] = set()

    def equals(self, name: str, value: float) -> bool:
        """Whether a value is this constant number."""
        found = self.view.constant(name)
        return found is not None and found.size == 1 and bool(np.isclose(found.item(), value, rtol=1e-6))

    def add(self, name: str, value: np.ndarray) -> str:
        """Stores a constant, and returns its name."""
        self.view.graph.initializer.append(numpy_helper.from_array(value, name))
        self._added.add(name)
        return name

    def shared(self, value: float) -> str:
        """A float constant, stored once however often it is used."""
        name = f"portable_{value:.9g}"
        known = name in self._added or self.view.constant(name) is not None
        return name if known else self.add(name, np.array(value, np.float32))


def rewrite(proto: onnx.ModelProto) -> None:
    """Replaces, in place, operators of an fp32 graph that not every runtime computes as ONNX Runtime does.

    Values keep their names, by which layers are found; a few are gone afterwards.
    """
    known = _Rewriter(proto.graph)
    nodes = [new for node in proto.graph.node for new in (_rewritten(node, known) or [node])]
    del proto.graph.node[:]
    proto.graph.node.extend(used(nodes, known.view.outputs))
    names = {name for node in proto.graph.node for name in (*node.input, *node.output)}
    for values in (proto.graph.initializer, proto.graph.value_info):
        kept = [value for value in values if value.name in names]
        del values[:]
        values.extend(kept)


def _rewritten(node: NodeProto, known: _Rewriter) -> list[NodeProto] | None:
    """The nodes that replace one; None where it stays."""
    rule = _RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    return list(rule(node, known)) if rule is not None else None


def _hard_sigmoid(node: NodeProto, known: _Rewriter) -> Iterator[NodeProto]:
    """`clip(x + 3, 0, 6) / 6`: OpenCV turns `y · hard sigmoid of x` into `x · hard sigmoid of x`, whatever y is.

    Behind a convolution, its weights take the scale and its bias the shift, so that a `Clip` remains: ONNX Runtime
    merges that into the convolution, as it does the hard sigmoid.
    """
    given = {one.name: one.f for one in node.attribute}
    if not np.isclose(given.get("alpha", 0.2), SIXTH) or given.get("beta", 0.5) != 0.5 or not _is_float(node, known):
        return
    name = node.output[0]
    folded = _folded(node.input[0], known)
    if folded is not None:
        yield folded
        yield helper.make_node("Clip", [folded.output[0], known.shared(0.0), known.shared(1.0)], [name], node.name)
        return
    yield helper.make_node("Add", [node.input[0], known.shared(3.0)], [f"{name}_shifted"], f"{node.name}_shifted")
    limits = [known.shared(0.0), known.shared(6.0)]
    yield helper.make_node("Clip", [f"{name}_shifted", *limits], [f"{name}_clipped"], f"{node.name}_clipped")
    yield helper.make_node("Mul", [f"{name}_clipped", known.shared(SIXTH)], [name], node.name)


def _folded(name: str, known: _Rewriter) -> NodeProto | None:
    """The convolution behind a value that nothing else uses, with `x / 6 + 1/2` in its weights; None for others."""
    conv = known.view.producers.get(name)
    if conv is None or conv.op_type != "Conv" or len(known.view.users[name]) > 1 or name in known.view.outputs:
        return None
    weight, bias = (
        known.view.constant(conv.input[1]),
        known.view.constant(conv.input[2]) if len(conv.input) > 2 else np.float32(0),
    )
    if weight is None or bias is None:
        return None
    scaled = known.add(f"{name}_weight", (weight / 6).astype(np.float32))
    shifted = known.add(f"{name}_bias", np.broadcast_to(bias / 6 + 0.5, weight.shape[:1]).astype(np.float32))
    folded = helper.make_node("Conv", [conv.input[0], scaled, shifted], [f"{name}_folded"], conv.name)
    folded.attribute.extend(conv.attribute)
    return folded


def _gelu(node: NodeProto, known: _Rewriter) -> Iterator[NodeProto]:
    """`(x · ½) · (1 + erf(x / √2))`: ONNX Runtime merges the parts of this order, and of torch's order does not.

    OpenCV ends the process at two of the other orders, and MNN puts the form with tanh in the place of one.
    """
    for name, other in (node.input, reversed(node.input)):
        inner = known.view.producers.get(name)
        if inner is None or inner.op_type != "Mul" or len(known.view.users[name]) > 1 or not _is_float(node, known):
            continue
        factors = [other, *inner.input]
        for raised in factors:
            x, half = _gelu_source(raised, known), [one for one in factors if known.equals(one, 0.5)]
            if x is None or len(half) != 1 or sorted(factors) != sorted([raised, x, half[0]]) or other == raised:
                continue
            scaled = f"{node.output[0]}_half"
            yield helper.make_node("Mul", [x, half[0]], [scaled], f"{node.name}_half")
            yield helper.make_node("Mul", [scaled, raised], list(node.output), node.name)
            return


def _gelu_source(name: str, known: _Rewriter) -> str | None:
    """The x of a value `1 + erf(x / √2)`; None for any other value."""
    added = known.view.producers.get(name)
    if added is None or added.op_type != "Add":
        return None
    for term, one in (added.input, reversed(added.input)):
        erf = known.view.producers.get(term)
        divided = known.view.producers.get(erf.input[0]) if erf is not None and erf.op_type == "Erf" else None
        if divided is not None and divided.op_type == "Div" and known.equals(one, 1.0):
            return divided.input[0] if known.equals(divided.input[1], ROOT2) else None
    return None


def _resize(node: NodeProto, known: _Rewriter) -> Iterator[NodeProto]:
    """Constant scales instead of sizes, which the exporter computes from the size of the batch; tract refuses those."""
    before, after = known.view.sides(node.input[0]), known.view.sides(node.output[0])
    if len(node.input) < 4 or len(before) != 4 or len(after) != 4 or not all((*before[1:], *after[1:])):
        return
    if before[1] != after[1] or any(one.name == "axes" for one in node.attribute):
        return
    factors = [1.0, 1.0, *(scale(old, new) for old, new in zip(before[2:], after[2:], strict=True))]
    name = known.add(f"{node.output[0]}_scales", np.array(factors, np.float32))
    changed = NodeProto()
    changed.CopyFrom(node)
    del changed.input[:]
    changed.input.extend([node.input[0], node.input[1], name])
    yield changed


def scale(before: int, after: int) -> float:
    """The float32 next to after / before that gives a size of `after` where a runtime rounds the product down."""
    factor = np.float32(after / before)
    while math.floor(np.float32(before) * factor) < after or math.floor(before * float(factor)) < after:
        factor = np.nextafter(factor, np.float32(np.inf))
    return float(factor)


def _norm(node: NodeProto, known: _Rewriter) -> Iterator[NodeProto]:
    """Norms as sums: MNN reduces all axes where a norm has its axes as an input."""
    if len(node.input) < 2 or known.view.constant(node.input[1]) is None:
        return
    x, name = node.input[0], node.output[0]
    inner = helper.make_node("Abs", [x], [f"{name}_terms"], f"{node.name}_terms")
    if node.op_type != "ReduceL1":
        inner = helper.make_node("Mul", [x, x], [f"{name}_terms"], f"{node.name}_terms")
    yield inner
    total = f"{name}_total" if node.op_type == "ReduceL2" else name
    summed = helper.make_node("ReduceSum", [f"{name}_terms", node.input[1]], [total], f"{node.name}_total")
    summed.attribute.extend(node.attribute)
    yield summed
    if node.op_type == "ReduceL2":
        yield helper.make_node("Sqrt", [total], [name], node.name)


def _partial_windows(node: NodeProto, known: _Rewriter) -> Iterator[NodeProto]:
    """No `ceil_mode` where it changes nothing, and no partial windows in an average.

    IREE is wrong with the former, OpenVINO and OpenCV with the latter. There the map is padded with zeros, and the mean
    of each window is scaled by its size over the number of values that count in it.
    """
    window = _Window.of(node, known)
    if window is None:
        return
    name = node.output[0]
    if window.whole:
        changed = NodeProto()
        changed.CopyFrom(node)
        changed.attribute.remove(next(one for one in changed.attribute if one.name == "ceil_mode"))
        yield changed
    elif node.op_type == "AveragePool":
        added = [0, 0, *window.before, 0, 0, *window.behind]
        pads = known.add(f"{name}_pads", np.array(added, np.int64))
        yield helper.make_node("Pad", [node.input[0], pads], [f"{name}_padded"], f"{node.name}_padded")
        yield helper.make_node(
            "AveragePool",
            [f"{name}_padded"],
            [f"{name}_mean"],
            f"{node.name}_mean",
            kernel_shape=window.kernel,
            strides=window.stride,
        )
        scales = known.add(f"{name}_scales", window.scales().astype(np.float32))
        yield helper.make_node("Mul", [f"{name}_mean", scales], [name], node.name)


@dataclass(frozen=True)
class _Window:
    """The windows of a two-dimensional pooling with `ceil_mode`.

    Attributes:
        kernel, stride, before, after: As in ONNX: sides, steps, and padding in front and behind, for each axis.
        size, count: The size of the map and the number of windows for each axis.
        padding_counts: Whether padding counts in an average.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    before: tuple[int, int]
    after: tuple[int, int]
    size: tuple[int, int]
    count: tuple[int, int]
    padding_counts: bool

    @classmethod
    def of(cls, node: NodeProto, known: _Rewriter) -> _Window | None:
        """Those of a node; None where it has no `ceil_mode`, dilation or unknown sizes."""
        given = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        before, after = known.view.sides(node.input[0]), known.view.sides(node.output[0])
        if not given.get("ceil_mode") or len(before) != 4 or not all((*before[2:], *after[2:])) or len(node.output) > 1:
            return None
        if any(one != 1 for one in given.get("dilations", ())) or given.get("auto_pad", b"NOTSET") != b"NOTSET":
            return None
        pads = given.get("pads", [0, 0, 0, 0])
        return cls(
            kernel=tuple(given["kernel_shape"]),
            stride=tuple(given.get("strides", (1, 1))),
            before=tuple(pads[:2]),
            after=tuple(pads[2:]),
            size=(before[2], before[3]),
            count=(after[2], after[3]),
            padding_counts=bool(given.get("count_include_pad", 0)),
        )

    @property
    def reach(self) -> tuple[int, ...]:
        """The end of the last window for each axis, from the start of the padding."""
        return tuple((self.count[axis] - 1) * self.stride[axis] + self.kernel[axis] for axis in (0, 1))

    @property
    def behind(self) -> tuple[int, ...]:
        """Zeros behind the map that the last window needs, for each axis."""
        return tuple(max(self.reach[axis] - self.before[axis] - self.size[axis], self.after[axis]) for axis in (0, 1))

    @property
    def whole(self) -> bool:
        """Whether every window lies within the map and its padding."""
        return all(self.reach[axis] <= self.before[axis] + self.size[axis] + self.after[axis] for axis in (0, 1))

    def scales(self) -> np.ndarray:
        """The size of each window over the number of values that count in it, `float[rows, columns]`."""
        counts = []
        for axis in (0, 1):
            start = np.arange(self.count[axis]) * self.stride[axis]
            first = 0 if self.padding_counts else self.before[axis]
            last = self.before[axis] + self.size[axis] + (self.after[axis] if self.padding_counts else 0)
            counts.append(np.minimum(start + self.kernel[axis], last) - np.maximum(start, first))
        return self.kernel[0] * self.kernel[1] / np.outer(*counts)


_RULES: Final[dict[str, Callable[[NodeProto, _Rewriter], Iterator[NodeProto]]]] = {
    "HardSigmoid": _hard_sigmoid,
    "Mul": _gelu,
    "Resize": _resize,
    "AveragePool": _partial_windows,
    "MaxPool": _partial_windows,
    "ReduceL1": _norm,
    "ReduceL2": _norm,
    "ReduceSumSquare": _norm,
}


def _is_float(node: NodeProto, known: _Rewriter) -> bool:
    return node.output[0] in known.view.floats
