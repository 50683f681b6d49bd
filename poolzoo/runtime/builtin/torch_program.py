"""A bundle's graph as a program of torch.export, which ExecuTorch and Core ML convert."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from poolzoo.runtime.builtin import sessions
from poolzoo.runtime.builtin.onnx2torch import to_module

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import GraphModule


def program(bundle: Path) -> ExportedProgram:
    """The graph of a directory for one image, `float32[1, 3, h, w]` in 0–1, by way of onnx2torch.

    Raises:
        Exception: Whatever onnx2torch or torch raises for an operator that they do not take.
    """
    import torch
    from torch.fx.experimental.proxy_tensor import make_fx

    path = bundle / sessions.MODEL
    given = sessions.read_input(path)
    image = torch.zeros(1, 3, given.height, given.width)
    with torch.no_grad():
        # What onnx2torch computes from constants becomes one: torch.export takes no size from a tensor's content.
        traced = make_fx(to_module(path))(image)
    _keep_dims(traced)
    return torch.export.export(traced, (image,))


def _keep_dims(traced: GraphModule) -> None:
    """Writes a maximum over axes as one that keeps them and a squeeze: XNNPACK's partitioner takes no other."""
    import torch

    amax, squeeze = torch.ops.aten.amax.default, torch.ops.aten.squeeze.dims
    for node in list(traced.graph.nodes):
        if node.target is amax and len(node.args) < 3:
            with traced.graph.inserting_after(node):
                squeezed = traced.graph.call_function(squeeze, (node, list(node.args[1])))
            node.replace_all_uses_with(squeezed, delete_user_cb=lambda user, own=squeezed: user is not own)
            node.args = (*node.args, True)
    traced.recompile()
