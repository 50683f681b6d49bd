"""A backbone for inference: batch norms are folded into the convolutions before them, where that is proven the same.

In eval mode a batch norm is a fixed scale and shift of each channel. A convolution with other weights and a bias
computes both at once, and saves a pass over memory. An activation behind them is computed in the same pass by oneDNN,
the library with which torch convolves on CPUs. Results differ by rounding.
"""

from __future__ import annotations

import copy
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final, cast

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

TOLERANCE: Final = 1e-4  # of the largest value, for an example; rounding of float32 is far below, another result above
# timm's own layers: a convolution that pads as TensorFlow, and a norm with an activation. Other subclasses may compute
# anything, such as a convolution with standardized weights.
TIMM_CONVOLUTION: Final = ("timm.layers.conv2d_same", "Conv2dSame")
TIMM_PADDING: Final = "timm.layers.padding"
TIMM_NORM: Final = ("timm.layers.norm_act", "BatchNormAct2d")

# Activations that oneDNN computes with a convolution: its name, and the limits of the result.
ACTIVATIONS: Final[Mapping[type[nn.Module], tuple[str, tuple[float, ...]]]] = {
    nn.Identity: ("none", ()),
    nn.ReLU: ("relu", ()),
    nn.ReLU6: ("hardtanh", (0.0, 6.0)),
}


def fold_batch_norms(backbone: nn.Module, forward: Callable[[nn.Module], Tensor]) -> nn.Module:
    """A copy of a backbone in eval mode with its batch norms folded. It shares all other parameters.

    Args:
        backbone: Of any plugin; stays as it is.
        forward: Runs the backbone, or its copy, on an example.

    Returns:
        The backbone itself if there is nothing to fold, if its code cannot be traced, or if the copy does not give
        the same for the example but for rounding.
    """
    was_training = {part: part.training for part in backbone.modules()}
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            backbone.eval()
            pairs = _pairs(backbone)
            if not pairs:
                return backbone
            expected = forward(backbone)
            for pack in (True, False):
                with suppress(RuntimeError, AttributeError):  # this torch has no oneDNN, or not these functions of it
                    folded = _folded(backbone, pairs, pack=pack)
                    if _is_same(expected, forward(folded)):
                        return folded
            return backbone
    except Exception:  # a plugin's module may hold and do anything
        return backbone
    finally:
        for part, training in was_training.items():
            part.training = training


class _Tracer(fx.Tracer):
    """Traces into all modules but convolutions and norms."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (nn.Conv2d, nn.BatchNorm2d)) or super().is_leaf_module(m, module_qualified_name)


def _pairs(backbone: nn.Module) -> Mapping[str, str]:
    """Names of the norms that can be folded, by the names of the convolutions whose only use they are."""
    modules = dict(backbone.named_modules())
    if not any(_is_norm(one) for one in modules.values()):
        return {}
    nodes = list(_Tracer().trace(backbone).nodes)
    calls = Counter(node.target for node in nodes if node.op == "call_module")
    read = {str(node.target).rpartition(".")[0] for node in nodes if node.op == "get_attr"}
    found = {}
    for node in nodes:
        if node.op != "call_module" or not _is_norm(modules[node.target]) or node.kwargs or len(node.args) != 1:
            continue
        before = node.args[0]
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        names = (str(before.target), str(node.target))
        if _is_convolution(modules[names[0]]) and not any(calls[name] > 1 or name in read for name in names):
            found[names[0]] = names[1]
    return found


def _is_convolution(module: nn.Module) -> bool:
    return _is_plain(module, nn.Conv2d, TIMM_CONVOLUTION)


def _is_norm(module: nn.Module) -> bool:
    if not _is_plain(module, nn.BatchNorm2d, TIMM_NORM):
        return False
    return not module.training and cast(nn.BatchNorm2d, module).running_mean is not None


def _is_plain(module: nn.Module, torchs: type[nn.Module], timms: tuple[str, str]) -> bool:
    """Whether a module is exactly a layer of torch or timm, without a hook."""
    file, name = timms
    known = (torchs, getattr(sys.modules.get(file), name, torchs))
    hooks = ("_forward_hooks", "_forward_pre_hooks")
    return type(module) in known and "forward" not in vars(module) and not any(getattr(module, one) for one in hooks)


class _PackedConvolution(nn.Module):
    """A convolution with the activation behind it, with weights in the layout in which oneDNN reads them.

    Threads and copies of a network share it: it keeps nothing while it computes, and its weights cannot be copied.

    Args:
        convolution: With a bias.
        activation: `nn.ReLU`, `nn.ReLU6`, or a layer that does nothing.
    """

    def __init__(self, convolution: nn.Conv2d, activation: nn.Module) -> None:
        super().__init__()
        self.same = (convolution.kernel_size, convolution.stride, convolution.dilation)
        self.pads = type(convolution) is not nn.Conv2d
        padding = [0, 0] if self.pads else [int(one) for one in convolution.padding]
        self._arguments = _packed(convolution, convolution.weight, padding, activation)
        self._arguments_that_pad = None
        if self.pads and (symmetric := _with_symmetric_padding(convolution)) is not None:
            self._arguments_that_pad = _packed(convolution, *symmetric, activation)

    def forward(self, x: Tensor) -> Tensor:
        arguments = self._arguments
        if self.pads:
            is_divided = not any(side % step for side, step in zip(x.shape[2:], self.same[1], strict=True))
            if is_divided and self._arguments_that_pad is not None:
                arguments = self._arguments_that_pad
            else:
                x = sys.modules[TIMM_PADDING].pad_same(x, *self.same)
        result: Tensor = torch.ops.mkldnn._convolution_pointwise(x, *arguments)
        return result

    def __deepcopy__(self, memo: object) -> _PackedConvolution:
        return self


def _packed(
    convolution: nn.Conv2d, weight: Tensor, padding: Sequence[int], activation: nn.Module
) -> tuple[object, ...]:
    """What oneDNN's convolution takes beside its input."""
    geometry = (list(padding), list(convolution.stride), list(convolution.dilation), convolution.groups)
    packed = torch.ops.aten.mkldnn_reorder_conv2d_weight(weight.detach().to_mkldnn(), *geometry)
    assert convolution.bias is not None
    name, limits = ACTIVATIONS[type(activation)]
    return packed, convolution.bias.detach(), *geometry, name, list(limits), ""


def _with_symmetric_padding(convolution: nn.Conv2d) -> tuple[Tensor, list[int]] | None:
    """Weights and padding that give what padding as TensorFlow gives on sides that the stride divides.

    TensorFlow pads an odd number of rows by one more at the end. Behind a row of zeros in front, the same weights take
    as many at both ends. A copy of the map with its padding costs more than these zeros do in a depthwise convolution,
    which waits for memory; in others they cost more.

    Returns:
        None where a copy costs less, or zeros in front are no padding by one.
    """
    sizes = zip(convolution.kernel_size, convolution.stride, convolution.dilation, strict=True)
    totals = [max(dilation * (kernel - 1) + 1 - stride, 0) for kernel, stride, dilation in sizes]
    rows, columns = (total % 2 for total in totals)
    is_depthwise = convolution.groups == convolution.in_channels and max(convolution.dilation) == 1
    if (rows or columns) and not is_depthwise:
        return None
    return F.pad(convolution.weight, (columns, 0, rows, 0)), [-(-total // 2) for total in totals]


def _folded(backbone: nn.Module, pairs: Mapping[str, str], *, pack: bool) -> nn.Module:
    shared = {id(parameter): parameter for parameter in backbone.parameters()}
    folded = copy.deepcopy(backbone, cast(dict[int, object], shared))
    for first, second in pairs.items():
        convolution = cast(nn.Conv2d, folded.get_submodule(first))
        norm = cast(nn.BatchNorm2d, folded.get_submodule(second))
        assert norm.running_mean is not None
        assert norm.running_var is not None
        weight, bias = fuse_conv_bn_weights(
            convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        convolution.weight, convolution.bias = weight, bias
        for parameter in (weight, bias):
            parameter.requires_grad = False
        layers = (getattr(norm, name, nn.Identity()) for name in ("drop", "act"))  # in a norm of timm
        follows = [layer for layer in layers if type(layer) is not nn.Identity]
        if pack and convolution.padding_mode == "zeros" and not isinstance(convolution.padding, str):
            is_fused = len(follows) == 1 and type(follows[0]) in ACTIVATIONS
            activation = follows.pop() if is_fused else nn.Identity()
            folded.set_submodule(first, _PackedConvolution(convolution, activation))
        folded.set_submodule(second, nn.Sequential(*follows))
    return folded


def _is_same(expected: Tensor, found: Tensor) -> bool:
    scale = expected.abs().max()
    return bool(scale.isfinite() and (found - expected).abs().max() <= TOLERANCE * scale)
