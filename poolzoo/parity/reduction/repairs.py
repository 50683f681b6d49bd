"""Finds the smallest change of one node that makes a graph agree: it names the attribute or constant at fault.

Every candidate is tried. None is taken for granted: a repair counts only where the graph agrees with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import onnx
from onnx import NodeProto, helper

from poolzoo.parity.reduction import attribute_repairs, graphs, node_repairs
from poolzoo.parity.reduction.attribute_repairs import with_attributes
from poolzoo.parity.reduction.repair import Hints, Repair


def find_repair(
    proto: onnx.ModelProto,
    hints: Hints,
    agrees: Callable[[onnx.ModelProto], bool],
) -> Repair | None:
    """The first change of a node with which the graph agrees: a plain `Relu`, attributes and torch's constants first.

    Args:
        proto: The graph, a small one.
        hints: What torch has there.
        agrees: Whether a changed graph agrees; False where it cannot be run.
    """
    known = graphs.constants(proto)
    nodes = list(proto.graph.node)[::-1]
    searches: tuple[Callable[[NodeProto], Iterator[Repair]], ...] = (
        node_repairs.plain,
        lambda node: attribute_repairs.attributes(proto, node, hints),
        lambda node: node_repairs.constants(node, known, hints, guessed=False),
        lambda node: node_repairs.bounds(node, known),  # without a slice, others may broadcast to the same
        lambda node: node_repairs.surplus(proto, node),
        lambda node: node_repairs.constants(node, known, hints, guessed=True),
        lambda node: node_repairs.inputs(proto, node),
        lambda node: node_repairs.operators(proto, node),
        lambda node: node_repairs.weights(node, known, hints.weights),
        lambda node: node_repairs.missing(node, hints.weights),
        lambda node: node_repairs.missing_before_several(proto, node),
    )
    for search in searches:
        for node in nodes:
            for repair in search(node):
                if agrees(repair.applied(proto)):
                    return repair
    return None


def find_change(proto: onnx.ModelProto, agrees: Callable[[onnx.ModelProto], bool]) -> Repair | None:
    """The first attribute of a node without which, or with whose opposite, a runtime computes the graph rightly."""
    for node in list(proto.graph.node)[::-1]:
        for attribute in node.attribute:
            value = helper.get_attribute_value(attribute)
            for other in (None, 1 - value) if isinstance(value, int) and value in (0, 1) else (None,):
                repair = with_attributes(node, {attribute.name: other}, {attribute.name: value})
                try:
                    if agrees(repair.applied(proto)):
                        return repair
                except Exception:  # runtimes' exceptions share no base class
                    continue
    return None
