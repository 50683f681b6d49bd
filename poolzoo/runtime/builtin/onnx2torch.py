"""onnx2torch: the graph becomes a torch module again. It reads opset 17 and older."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from poolzoo.runtime.builtin import sessions

if TYPE_CHECKING:
    import onnx
    from torch import nn


def to_module(path: Path) -> nn.Module:
    """The graph of a file as a torch module, from the graph's input to a list of logits and probabilities.

    Raises:
        Exception: Whatever onnx2torch raises for an operator that it does not have.
    """
    import onnx
    import onnx2torch

    model = onnx.load(path)
    _drop_allowzero(model)
    module: nn.Module = onnx2torch.convert(model)
    return module.eval()


def _drop_allowzero(model: onnx.ModelProto) -> None:
    """Takes `allowzero`, which onnx2torch refuses, from the Reshapes where it means nothing: no side is 0."""
    from onnx import numpy_helper

    shapes = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    for node in model.graph.node:
        shape = shapes.get(node.input[1]) if node.op_type == "Reshape" else None
        if shape is not None and shape.all():
            kept = [one for one in node.attribute if one.name != "allowzero"]
            del node.attribute[:]
            node.attribute.extend(kept)


def open_session(bundle: Path, *, threads: int, device: str, precision: str) -> sessions.Session:
    """Opens `model.onnx` of a directory."""
    import torch

    torch.set_num_threads(threads)
    module = to_module(bundle / sessions.MODEL)

    def run(x: np.ndarray) -> Sequence[np.ndarray]:
        with torch.inference_mode():
            found = module(torch.from_numpy(x))
        return [one.numpy() for one in found]

    return sessions.session(run, sessions.read_input(bundle / sessions.MODEL))
