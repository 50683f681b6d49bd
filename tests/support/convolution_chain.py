"""A chain of convolutions in which chosen channels have another scale, and its images."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from poolzoo.parity.layers import Layers

COUNT, CHANNELS = 6, 12
IMAGES = np.random.default_rng(1).uniform(0, 1, (48, CHANNELS, 6, 6)).astype(np.float32) ** 3


def chain(*outliers: int, factor: float = 1e4, depthwise: tuple[int, ...] = ()) -> onnx.ModelProto:
    """Six convolutions with ReLUs, a mean and a classifier. Behind each of `outliers` one channel is `factor` larger.

    The next convolution divides by it, so that the function stays the same.
    """
    random = np.random.default_rng(0)
    weights: dict[str, np.ndarray] = {}
    for index in range(COUNT):
        inputs = 1 if index in depthwise else CHANNELS
        weights[f"network.c{index}.weight"] = random.normal(0, (2 / inputs / 9) ** 0.5, (CHANNELS, inputs, 3, 3))
        weights[f"network.c{index}.bias"] = random.normal(0, 0.2, CHANNELS)
    for index in outliers:
        weights[f"network.c{index}.weight"][3] *= factor
        weights[f"network.c{index}.bias"][3] *= factor
        if index + 1 in depthwise:
            weights[f"network.c{index + 1}.weight"][3] /= factor
        else:
            weights[f"network.c{index + 1}.weight"][:, 3] /= factor
    weights |= {"network.fc.weight": random.normal(size=(CHANNELS, 5)), "network.fc.bias": np.zeros(5)}
    nodes, value = [], "images"
    for index in range(COUNT):
        given = [value, f"network.c{index}.weight", f"network.c{index}.bias"]
        group = CHANNELS if index in depthwise else 1
        nodes.append(helper.make_node("Conv", given, [f"x{index}"], pads=[1, 1, 1, 1], group=group))
        nodes.append(helper.make_node("Relu", [f"x{index}"], [f"y{index}"]))
        value = f"y{index}"
    nodes += [
        helper.make_node("ReduceMean", [value, "axes"], ["pooled"], keepdims=0),
        helper.make_node("Gemm", ["pooled", "network.fc.weight", "network.fc.bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    for index, node in enumerate(nodes):
        node.name = f"n{index}"
    constants = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]
    constants.append(numpy_helper.from_array(np.array([2, 3]), "axes"))
    inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", *IMAGES.shape[1:]])]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 5]) for name in ("logits", "probabilities")]
    made = helper.make_graph(nodes, "g", inputs, outputs, constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


LAYERS = Layers(outputs={"network.pool": "pooled"}, inside={"network.pool": frozenset(["pooled"])})
