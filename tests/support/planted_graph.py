"""A network of three classes, and a graph of it that is wrong on chosen images: for tests of the parity check."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

COUNT = 40
WEIGHT = torch.tensor([[3.0, -1.0, 0.5], [-2.0, 2.0, 0.25], [0.5, 0.5, -3.0]])


class Network(nn.Module):
    """Logits of three classes from the first pixel, and their probabilities. The pixel tells images apart."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(WEIGHT.clone())

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = images[:, 0, 0].to(self.weight.dtype) / 255 @ self.weight
        return logits, logits.softmax(1)


class Graph:
    """The network with another logit of some images, by number, where the batch is of one of some sizes."""

    provider = "CPUExecutionProvider"

    def __init__(self, change: dict[int, float], sizes: tuple[int, ...] = (), column: int = 0) -> None:
        self.change = change
        self.sizes = sizes
        self.column = column

    def run(self, images: np.ndarray, *, last: bool = False) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            logits, probabilities = (one.numpy() for one in Network()(torch.from_numpy(images)))
        if not self.sizes or len(images) in self.sizes:
            for row, number in enumerate(images[:, 1, 1, 0]):
                logits[row, self.column] += self.change.get(int(number), 0.0)
        return logits, probabilities


def images() -> tuple[np.ndarray, np.ndarray]:
    """Images that carry their number in a second pixel, from 1 on, and the labels that the network gives them."""
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 4, 4, 3), dtype=np.uint8)
    pixels[:, 1, 1] = np.arange(1, COUNT + 1)[:, None]
    labels = (pixels[:, 0, 0] / 255 @ WEIGHT.numpy()).argmax(1)
    return pixels, labels


def planted_model(nodes: Sequence[onnx.NodeProto], constants: Mapping[str, Any]) -> onnx.ModelProto:
    """A file of nodes that compute the network's logits and probabilities from its `images`."""
    tensors = [numpy_helper.from_array(np.asarray(one), name) for name, one in constants.items()]
    given = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 4, 4, 3])
    outputs = [helper.make_tensor_value_info(name, 1, ["batch", 3]) for name in ("logits", "probabilities")]
    whole = helper.make_graph(nodes, "g", [given], outputs, tensors)
    model = helper.make_model(whole, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    facts = {"name": "images", "kind": "uint8", "layout": "NHWC", "range": [0, 255], "channels": "RGB"}
    metadata = {"input": {**facts, "height": 4, "width": 4}, "labels": ["a", "b", "c"]}
    helper.set_model_props(model, {name: json.dumps(value) for name, value in metadata.items()})
    return model
