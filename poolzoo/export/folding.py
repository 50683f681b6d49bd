"""Computes in advance what depends on constants alone, of any size: torch's exporter does so for small weights only.

ONNX Runtime does the same when it opens a graph. Other runtimes compute it in each call, or wrongly: MNN does not read
statistics of BatchNormalization that the graph computes, as they are with weight standardization.
"""

from __future__ import annotations

from typing import Final

import onnx
import onnxruntime
from onnx import NodeProto, numpy_helper

GROWTH: Final = 1.5  # how much larger the constants may become
FREE: Final = 65536  # bytes by which they may become larger in any case
DOMAINS: Final = ("", "ai.onnx")
RANDOM: Final = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")


def fold_constants(proto: onnx.ModelProto) -> None:
    """Replaces nodes that depend on constants alone by their values, in place, where that makes the file hardly larger.

    Args:
        proto: An fp32 graph.
    """
    constant = {tensor.name for tensor in proto.graph.initializer}
    folded: list[NodeProto] = []
    for node in proto.graph.node:
        if node.op_type != "Constant" and _is_constant(node, constant):
            folded.append(node)
        if node.op_type == "Constant" or (folded and folded[-1] is node):
            constant.update(node.output)
    if not folded:
        return
    gone = {id(node) for node in folded}
    rest = [node for node in proto.graph.node if id(node) not in gone]
    used = {name for node in rest for name in node.input} | {value.name for value in proto.graph.output}
    wanted = [name for node in folded for name in node.output if name in used]
    values = _computed(proto, folded, wanted)
    before = sum(len(tensor.raw_data) for tensor in proto.graph.initializer if tensor.name not in used)
    if sum(value.ByteSize() for value in values) > GROWTH * before + FREE:
        return
    del proto.graph.node[:]
    proto.graph.node.extend(rest)
    kept = [tensor for tensor in proto.graph.initializer if tensor.name in used]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend([*kept, *values])


def _is_constant(node: NodeProto, constant: set[str]) -> bool:
    """Whether a node depends on constants alone and can be computed in advance."""
    graphs = any(one.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for one in node.attribute)
    given = [name for name in node.input if name]
    return (
        node.domain in DOMAINS
        and node.op_type not in RANDOM
        and not graphs
        and bool(given)
        and constant.issuperset(given)
    )


def _computed(proto: onnx.ModelProto, nodes: list[NodeProto], wanted: list[str]) -> list[onnx.TensorProto]:
    """The values of some outputs of nodes that depend on constants alone."""
    needed = {name for node in nodes for name in node.input}
    constants = [node for node in proto.graph.node if node.op_type == "Constant" and node.output[0] in needed]
    part = onnx.helper.make_graph(
        [*constants, *nodes],
        "constants",
        [],
        [onnx.ValueInfoProto(name=name) for name in wanted],
        [tensor for tensor in proto.graph.initializer if tensor.name in needed],
    )
    model = onnx.helper.make_model(part, opset_imports=proto.opset_import, ir_version=proto.ir_version)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = session.run(wanted, {})
    return [numpy_helper.from_array(value, name) for name, value in zip(wanted, found, strict=True)]
