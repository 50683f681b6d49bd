"""A graph at a lower opset, by onnx's own converter and what that lacks. Needs onnx."""

from __future__ import annotations

from typing import Final

import onnx
from onnx import version_converter

from poolzoo.common.errors import CheckFailed, reason
from poolzoo.runtime.graph_view import GraphView, attribute

OWN: Final = "poolzoo"  # the domain of nodes that the converter shall leave as they are


def opset_of(model: onnx.ModelProto) -> int:
    """The opset of the standard's operators in a graph."""
    return int(next(one.version for one in model.opset_import if one.domain in ("", "ai.onnx")))


def lowered(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """A graph at a lower opset.

    Args:
        model: The graph, which is changed.
        opset: The opset.

    Raises:
        CheckFailed: It cannot be converted; the message says why.
    """
    kept = _same_since_13(model) if 13 <= opset < 18 else []
    for node in kept:
        node.domain = OWN
    if kept:
        model.opset_import.add(domain=OWN, version=1)
    try:
        found = version_converter.convert_version(model, opset)
    except Exception as error:
        text = f"its graph cannot be converted from opset {opset_of(model)} to {opset}: {reason(error, 200)}"
        raise CheckFailed(text) from error
    for node in found.graph.node:
        if node.domain == OWN:
            node.ClearField("domain")
    for one in [one for one in found.opset_import if one.domain == OWN]:
        found.opset_import.remove(one)
    if opset < 18:
        _drop_noop(found)
    if not found.metadata_props:  # which the converter drops
        found.metadata_props.extend(model.metadata_props)
    return found


def _same_since_13(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Nodes whose type opset 18 changed in what they do not use; the converter refuses every node of these types."""
    view = GraphView(onnx.shape_inference.infer_shapes(model).graph)
    pads = [
        node
        for node in model.graph.node
        if node.op_type == "Pad" and not any(node.input[3:]) and attribute(node, "mode") != b"wrap"
    ]
    splits = [node for node in model.graph.node if node.op_type == "Split"]
    for node in splits:
        if not any(node.input[1:]) and _equal_parts(node, view):  # which is what opset 13 makes without the attribute
            kept = [one for one in node.attribute if one.name != "num_outputs"]
            del node.attribute[:]
            node.attribute.extend(kept)
    return pads + [node for node in splits if attribute(node, "num_outputs") is None]


def _equal_parts(node: onnx.NodeProto, view: GraphView) -> bool:
    """Whether all outputs of a Split are known to have one size."""
    axis = next((one.i for one in node.attribute if one.name == "axis"), 0)
    sides = {view.shapes[output][axis] if output in view.shapes else "" for output in node.output}
    return len(sides) == 1 and isinstance(sides.pop(), int)


def _drop_noop(model: onnx.ModelProto) -> None:
    """Takes an attribute of opset 18 out of reductions, which the converter leaves; their axes are an attribute now."""
    for node in model.graph.node:
        attributes = {one.name: one for one in node.attribute}
        noop = attributes.get("noop_with_empty_axes")
        if noop is None or node.op_type == "ReduceSum":  # which has had it since opset 13
            continue
        if noop.i and not attributes.get("axes"):
            raise CheckFailed(f"its graph cannot be converted below opset 18: {node.op_type} has no axes")
        node.attribute.remove(noop)
