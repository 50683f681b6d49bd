"""Rejects graphs before any comparison: random ones, a fixed batch size, operators that are exported wrongly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import onnx

from poolzoo.common.errors import CheckFailed
from poolzoo.parity.layers import path_of

if TYPE_CHECKING:
    import torch
    from torch.fx import Node

RANDOM_OPS: Final = (
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Multinomial",
    "Bernoulli",
)


def random_operators(proto: onnx.ModelProto) -> list[str]:
    """The operators of a graph that draw random numbers, sorted."""
    random = {node.op_type for node in proto.graph.node if node.op_type in RANDOM_OPS}
    training = {f"{node.op_type} in training mode" for node in proto.graph.node if _is_training(node, proto)}
    return sorted(random | training)


def _is_training(node: onnx.NodeProto, proto: onnx.ModelProto) -> bool:
    if node.op_type == "BatchNormalization":
        return any(attribute.name == "training_mode" and attribute.i for attribute in node.attribute)
    if node.op_type != "Dropout" or len(node.input) < 3 or not node.input[2]:
        return False
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    constants |= {one.output[0]: one.attribute[0].t for one in proto.graph.node if one.op_type == "Constant"}
    mode = constants.get(node.input[2])
    return mode is None or bool(onnx.numpy_helper.to_array(mode).any())


def check_graph(proto: onnx.ModelProto, program: torch.export.ExportedProgram) -> None:
    """Rejects a graph that is random, has a fixed batch size, or contains an operator that is exported wrongly.

    Args:
        proto: The graph.
        program: The program that it was made of.

    Raises:
        CheckFailed: The graph is rejected.
    """
    random = random_operators(proto)
    if random:
        raise CheckFailed(
            f"the graph draws random numbers ({', '.join(random)})",
            "the pooling or backbone must be deterministic in eval mode",
        )
    for value in (*proto.graph.input, *proto.graph.output):
        if not value.type.tensor_type.shape.dim[0].dim_param:
            raise CheckFailed(
                f"the batch dimension of {value.name} is fixed", "a layer computes its shape from the batch"
            )
    for node in program.graph.nodes:
        if "avg_pool" in str(node.target) and _divisor(node) is not None:
            raise CheckFailed(
                f"{path_of(node) or 'a layer'} averages with divisor_override, which torch's exporter ignores",
                "average without it and multiply by (window size / divisor) instead",
            )


def _divisor(node: Node) -> object:
    """The `divisor_override` of an average pooling; None where it has none."""
    schema = getattr(node.target, "_schema", None)
    names = [argument.name for argument in schema.arguments] if schema else []
    given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    return given.get("divisor_override")
