"""What becomes of the last layers of a timm network in a backbone: found by running the published network."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn

from poolzoo.backbones.timm_network import Published
from poolzoo.model.published import Pools, PublishedHead, Tensors, layers

MEASURED: Final = 10_000_000  # numbers in a head up to which its pooling is measured


class Call(NamedTuple):
    """The call of a module.

    Attributes:
        name: Of the module.
        pooled: Whether its input has a single spatial location.
        pools: Whether its output has a single spatial location.
        axes: Number of dimensions of its input.
    """

    name: str
    pooled: bool
    pools: bool
    axes: int


def final_norm(found: Published, own: Tensors) -> tuple[str, str] | None:
    """Names of the one norm behind the published pooling: in the published network, and in the backbone."""
    behind, _ = _head_layers(found)
    if len(behind) != 1:
        return None
    (name,) = behind
    tensors = {key: tuple(v.shape) for key, v in found.network.get_submodule(name).state_dict().items()}
    if any(len(shape) != 1 for shape in tensors.values()):
        return None  # a linear layer or a convolution
    added = {key.rpartition(".")[0] for key in own if key not in found.keys}
    for place in (name, *added):
        if place and {k: tuple(own[f"{place}.{k}"].shape) for k in tensors if f"{place}.{k}" in own} == tensors:
            return name, place
    return None


@cache
def _calls(found: Published) -> tuple[tuple[int, ...], list[Call]]:
    """The shape of the published network's features, and the calls of its head's modules, in order."""
    network: Any = found.network
    calls: list[Call] = []

    def record(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, given: tuple[Any, ...], result: Any) -> None:
            if given and isinstance(given[0], Tensor) and isinstance(result, Tensor):
                calls.append(Call(name, _is_pooled(given[0]), _is_pooled(result), given[0].ndim))

        return hook

    with torch.device("meta"), torch.no_grad():
        features = network.forward_features(torch.zeros(2, 3, *found.size))
        handles = [module.register_forward_hook(record(name)) for name, module in network.named_modules() if name]
        try:
            network.forward_head(features, pre_logits=True)
        finally:
            for handle in handles:
                handle.remove()
    return tuple(features.shape), calls


def _is_pooled(x: Tensor) -> bool:
    """Whether there is a single spatial location."""
    return x.ndim < 2 or x[0].numel() == max(x.shape[1:])


@cache
def _head_layers(found: Published) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the layers with weights behind the published pooling, and of those of that pooling itself."""
    try:
        _, calls = _calls(found)
    except Exception:  # a network without a head, or one that refuses images of that size
        return (), ()
    pools = [call.name for call in calls if call.pools and not call.pooled]
    pools = [name for name in pools if not any(other.startswith(f"{name}.") for other in pools)]  # the innermost
    own = tuple(name for name in pools if _has_weights(found, name, calls))
    inside = tuple(f"{name}." for name in own)
    behind = [
        call.name
        for call in calls
        if call.pooled and _has_tensors(found.network.get_submodule(call.name)) and not call.name.startswith(inside)
    ]
    return tuple(dict.fromkeys(behind)), own


def _has_weights(found: Published, name: str, calls: list[Call]) -> bool:
    """Whether a pooling module has weights: its own, or those of a layer inside it that runs before the pooling."""
    within = [call for call in calls if call.name.startswith(f"{name}.")]
    modules = [found.network.get_submodule(call.name) for call in within if not call.pooled]
    return any(_has_tensors(module) for module in (found.network.get_submodule(name), *modules))


def _has_tensors(module: nn.Module) -> bool:
    return any(True for _ in module.parameters(recurse=False)) or any(True for _ in module.buffers(recurse=False))


def head_of(own: Tensors, found: Published, whole: bool) -> PublishedHead:
    """Where a backbone has the layers of the published head, by the names of their tensors.

    Args:
        own: The backbone's state dict.
        found: The published network.
        whole: Whether the backbone's feature map is the input of the published pooling.
    """
    published = found.network.state_dict()
    behind, pooling = _head_layers(found)
    norm = final_norm(found, own)
    left = {key: value for key, value in published.items() if key in found.keys and key not in own}
    if norm is not None:
        left = {key: value for key, value in left.items() if not key.startswith(f"{norm[0]}.")}

    learned = dict(found.network.named_parameters())
    parameters = sum(value.numel() for key, value in left.items() if key in learned)

    def runs(name: str) -> bool:
        return any(key.startswith(f"{name}.") for key in own)

    return PublishedHead(
        norm=norm[0] if norm else "",
        norm_place=norm[1] if norm else "",
        channels_first=norm is not None and any(call.name == norm[0] and call.axes == 4 for call in _calls(found)[1]),
        moved=tuple(name for name in behind if runs(name) and (norm is None or name != norm[0])),
        kept=tuple(name for name in pooling if runs(name)),
        left_out=layers(list(left), [key for key in published if key not in left]),
        parameters=parameters,
        pools=_pools(found, norm[0] if norm else None) if whole and parameters <= MEASURED else None,
    )


def _pools(found: Published, norm: str | None) -> Pools | None:
    """What the published head computes before its classifier, measured on random features; None without such a head."""
    try:
        return _measured(found, norm)
    except Exception:
        return None


def _measured(found: Published, norm: str | None) -> Pools:
    """As `_pools`.

    Raises:
        Exception: Whatever the network raises.
    """
    network: Any = copy.deepcopy(found.network)
    shape, calls = _calls(found)
    generator = torch.Generator().manual_seed(0)
    for name in dict.fromkeys(call.name for call in calls):
        module = network.get_submodule(name).to_empty(device="cpu", recurse=False)
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            tensor.data = torch.rand(tensor.shape, generator=generator).to(tensor.dtype) + 0.5
    x = torch.randn(shape, generator=generator)
    layer = network.get_submodule(norm) if norm else nn.Identity()
    prefix = int(getattr(network, "num_prefix_tokens", 0) or 0)
    with torch.no_grad():
        vector = network.forward_head(x, pre_logits=True)
        means = [x[:, prefix:].mean(1)] if x.ndim == 3 else [x.mean((2, 3)), x.mean((1, 2))]
        if any(_gives(layer, mean, vector) for mean in means):
            return "mean"
        return "token" if x.ndim == 3 and _gives(layer, x[:, 0], vector) else "other"


def _gives(layer: nn.Module, pooled: Tensor, vector: Tensor) -> bool:
    """Whether a layer turns a pooled vector, with or without axes for height and width, into another."""
    for one in (pooled, pooled[:, :, None, None]):
        try:
            if torch.allclose(layer(one).flatten(1), vector, atol=1e-5):
                return True
        except (RuntimeError, IndexError):  # of another width, or with a number of axes that the layer refuses
            continue
    return False
