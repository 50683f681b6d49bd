"""A bundle's graph as a program of torch.export, which ExecuTorch and Core ML convert. Imported where one is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing, make_fx
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from poolzoo.runtime.builtin import sessions
from poolzoo.runtime.builtin.onnx2torch import to_module


def program(bundle: Path) -> ExportedProgram:
    """The graph of a directory for one image, `float32[1, 3, h, w]` in 0–1, by way of onnx2torch.

    Raises:
        Exception: Whatever onnx2torch or torch raises for an operator that they do not take.
    """
    path = bundle / sessions.MODEL
    (given,) = onnx.load(path, load_external_data=False).graph.input
    image = torch.zeros([side.dim_value for side in given.type.tensor_type.shape.dim])
    module = to_module(path).requires_grad_(False)  # else torch.export cannot copy what is made of weights

    def run(image: torch.Tensor) -> Any:
        with _ConstantsOutside(image):
            return module(image)

    with torch.no_grad():
        traced = make_fx(run)(image)
    _keep_dims(traced)
    return torch.export.export(traced, (image,))


class _ConstantsOutside(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Leaves in a trace what depends on the image. torch.export takes no size from a tensor's content.

    What onnx2torch computes from constants and from shapes is a constant of the trace.
    """

    def __init__(self, image: torch.Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._depends = WeakTensorKeyDictionary({image: True})

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not any(one in self._depends for one in _tensors((args, kwargs))):
            with disable_proxy_modes_tracing():
                return function(*args, **kwargs)
        found = function(*args, **kwargs)
        self._depends.update(dict.fromkeys(_tensors(found), True))
        return found


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [one for one in tree_leaves(tree) if isinstance(one, torch.Tensor)]


def _keep_dims(traced: GraphModule) -> None:
    """Writes a maximum over axes as one that keeps them and a squeeze: XNNPACK's partitioner takes no other."""
    graph = traced.graph
    graph.eliminate_dead_code()
    amax, squeeze = torch.ops.aten.amax.default, torch.ops.aten.squeeze.dims
    for node in list(graph.nodes):
        if node.target is torch.ops.aten.max.dim and [user.args[1] for user in node.users] == [0]:
            (old,) = node.users  # the values; nobody reads the indices
            axes, kept = [node.args[1]], len(node.args) > 2 and bool(node.args[2])
        elif node.target is amax and len(node.args) < 3:
            old, axes, kept = node, list(node.args[1]), False
        else:
            continue
        with graph.inserting_after(old):
            largest = graph.call_function(amax, (node.args[0], axes, True))
        if not kept:
            with graph.inserting_after(largest):
                largest = graph.call_function(squeeze, (largest, axes))
        old.replace_all_uses_with(largest)
    graph.eliminate_dead_code()
    traced.recompile()
