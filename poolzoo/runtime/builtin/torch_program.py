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

    graph = traced.graph
    graph.eliminate_dead_code()
    amax, squeeze = torch.ops.aten.amax.default, torch.ops.aten.squeeze.dims
    for node in list(graph.nodes):
        if node.target is torch.ops.aten.max.dim and [user.args[1] for user in node.users] == [0]:
            (old,) = node.users  # the values; nobody reads the indices
            axes = [node.args[1]]
        elif node.target is amax and len(node.args) < 3:
            old, axes = node, list(node.args[1])
        else:
            continue
        with graph.inserting_after(old):
            largest = graph.call_function(amax, (node.args[0], axes, True))
        with graph.inserting_after(largest):
            squeezed = graph.call_function(squeeze, (largest, axes))
        old.replace_all_uses_with(squeezed)
    graph.eliminate_dead_code()
    traced.recompile()
