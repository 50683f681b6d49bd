"""timm's networks as their weights were made for them: key sets, timm's own filters, and the layers of the head.

A backbone is built without a pooling, so that it has other layers than the network that was published: a norm in
another place, a head too few. Whatever the published network has is compared with it here. It is built on torch's meta
device, where it takes no memory and runs without computing.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, NamedTuple

import timm
import torch
from timm.models import _builder
from torch import Tensor, nn

from poolzoo.model.accounting import COUNTER, mismatch
from poolzoo.model.published import Pools, PublishedHead, Tensors, layers

StateDict = dict[str, Tensor]
MEASURED: Final = 10_000_000  # numbers in a head up to which what it computes is measured
Filter = Callable[..., StateDict]


@dataclass(frozen=True)
class Published:
    """A network as published.

    Attributes:
        network: On the meta device, in eval mode.
        size: Height and width of its images.
        keys: Of its state dict, without its classifier.
        classifier: Prefixes of its classifier's keys.
        filter: Turns a file into its state dict, as timm does; None where files are that already.
        strict: Whether timm takes no other keys.
    """

    network: nn.Module
    size: tuple[int, int]
    keys: frozenset[str]
    classifier: tuple[str, ...]
    filter: Filter | None
    strict: bool


class Call(NamedTuple):
    """The call of a module.

    Attributes:
        name: Of the module.
        pooled: Whether but one position enters it.
        pools: Whether but one position leaves it.
        axes: Of what enters it.
    """

    name: str
    pooled: bool
    pools: bool
    axes: int


@cache
def published(name: str, options: tuple[tuple[str, Any], ...]) -> Published:
    """The network of a name, with or without a tag, and with the options of the backbone.

    Raises:
        TypeError, AssertionError, RuntimeError: It cannot be built.
    """
    with torch.device("meta"), _recorded_arguments() as arguments:
        network = timm.create_model(name, pretrained=True, **dict(options)).eval()
    names = getattr(network, "pretrained_cfg", None) or {}
    named = names.get("classifier") or ()
    classifier = tuple(f"{one}." for one in ((named,) if isinstance(named, str) else named))
    keys = frozenset(key for key in network.state_dict() if not key.startswith(classifier))
    size, strict = _size(network, dict(options)), bool(arguments.get("strict", True))
    return Published(network, size, keys, classifier, arguments.get("filter_fn"), strict)


@contextmanager
def _recorded_arguments() -> Iterator[dict[str, Any]]:
    """Within it, timm loads no weights; gives the arguments of the call, which only each model's own file knows."""
    recorded: dict[str, Any] = {}
    original = _builder.load_pretrained
    _builder.load_pretrained = lambda *_, **options: recorded.update(options)
    try:
        yield recorded
    finally:
        _builder.load_pretrained = original


@dataclass(frozen=True)
class TimmOrigin:
    """The network of timm that a backbone was made of; see `poolzoo.model.published.Origin`.

    Attributes:
        name: With or without a tag.
        options: What the backbone was built with.
    """

    name: str
    options: tuple[tuple[str, Any], ...]

    def adapted(self, own: Tensors, state: Tensors, source: str) -> tuple[StateDict, tuple[str, ...]]:
        """A file's tensors under the names that the backbone has for them, and the names of what is left out."""
        return adapted(own, published(self.name, self.options), dict(state), source)

    def head(self, module: nn.Module) -> PublishedHead:
        """What becomes of the published network's last layers."""
        forward = vars(module).get("forward")
        whole = forward is None or forward.__name__ == "_features"  # else the map is not timm's last one
        try:
            found = published(self.name, self.options)
        except Exception:  # it cannot be built on the meta device, so that nothing is known of it
            return PublishedHead()
        return head_of(module.state_dict(), found, whole)


def adapted(own: Tensors, found: Published, state: StateDict, source: str) -> tuple[StateDict, tuple[str, ...]]:
    """A published state dict under the names that a backbone has for its tensors.

    Args:
        own: The backbone's state dict.
        found: What was published.
        state: As in the file, or of another classifier, or of the backbone itself.
        source: What the state comes from, for messages.

    Returns:
        The tensors, also those that are unknown, and the names of those that are left out.

    Raises:
        UsageError: timm's filter for such files cannot read it.
    """
    dropped: tuple[str, ...] = ()
    if found.filter is not None:
        given = state
        try:
            state = _filtered(found.filter, dict(given), found.network)
            dropped = _dropped(found.filter, given, state, found.network)
        except Exception as error:  # it reads whatever it finds
            raise mismatch([f"timm cannot read them ({type(error).__name__}: {error})"], source) from error
    norm = _final_norm(found, own)
    place = {f"{norm[0]}.{key}": f"{norm[1]}.{key}" for key in ("weight", "bias")} if norm else {}
    kept = {place.get(key, key): value for key, value in state.items()}
    kept = {key: _as_convolution(value, own.get(key)) for key, value in kept.items()}
    left = [key for key in kept if key not in own and (not found.strict or _has(found, key))]
    return {key: value for key, value in kept.items() if key not in left}, (*left, *dropped)


def _dropped(filter: Filter, given: StateDict, state: StateDict, network: nn.Module) -> tuple[str, ...]:
    """Names of the tensors of a file that timm's filter passes over: without them it gives as many as with them."""
    taken = {id(value) for value in state.values()}
    names = []
    for name in [key for key, value in given.items() if key not in state and id(value) not in taken]:
        rest = {key: value for key, value in given.items() if key != name}
        try:
            if _filtered(filter, rest, network).keys() == state.keys():
                names.append(name)
        except Exception:  # it needs that one, to join or resample it
            continue
    return tuple(names)


def _filtered(filter: Filter, state: StateDict, network: nn.Module) -> StateDict:
    """As timm calls it: some filters take the state alone."""
    try:
        inspect.signature(filter).bind(state, network)
    except TypeError:
        return filter(state)
    return filter(state, network)


def _as_convolution(value: Tensor, wanted: Tensor | None) -> Tensor:
    """A linear layer's matrix as the 1 × 1 convolution that timm makes of it where there is no pooling before it."""
    if wanted is not None and value.ndim == 2 and wanted.shape == (*value.shape, 1, 1):
        return value.view(wanted.shape)
    return value


def _has(found: Published, key: str) -> bool:
    return key in found.keys or key.startswith(found.classifier) or key.endswith(COUNTER)


def _final_norm(found: Published, own: Tensors) -> tuple[str, str] | None:
    """Names of the one norm behind the published pooling: in the published network, and in the backbone."""
    behind, _ = _head_layers(found)
    if len(behind) != 1:
        return None
    (name,) = behind
    tensors = {key: tuple(v.shape) for key, v in found.network.get_submodule(name).state_dict().items()}
    if any(len(shape) != 1 for shape in tensors.values()):
        return None  # a matrix or a convolution
    added = {key.rpartition(".")[0] for key in own if key not in found.keys}
    for place in (name, *added):
        if place and {k: tuple(own[f"{place}.{k}"].shape) for k in tensors if f"{place}.{k}" in own} == tensors:
            return name, place
    return None


@cache
def _calls(found: Published) -> tuple[tuple[int, ...], list[Call]]:
    """The shape of the published network's features, and the calls of its head's modules, in their order."""
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


def _size(network: Any, options: Mapping[str, Any]) -> tuple[int, int]:
    """Height and width of the images that a network is made for."""
    size = options.get("img_size") or getattr(getattr(network, "patch_embed", None), "img_size", None)
    if isinstance(size, int):
        return size, size
    size = size or (getattr(network, "pretrained_cfg", None) or {}).get("input_size", (3, 224, 224))[-2:]
    return int(size[0]), int(size[1])


def _is_pooled(x: Tensor) -> bool:
    """Whether there is but one position."""
    return x.ndim < 2 or x[0].numel() == max(x.shape[1:])


@cache
def _head_layers(found: Published) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the layers with weights behind the published pooling, and of those of that pooling itself."""
    try:
        _, calls = _calls(found)
    except Exception:  # a network without a head, or one that takes no images of that size; nothing is known of it
        return (), ()
    pools = [call.name for call in calls if call.pools and not call.pooled]
    pools = [name for name in pools if not any(other.startswith(f"{name}.") for other in pools)]  # the innermost
    own = tuple(name for name in pools if _learns(found, name, calls))
    inside = tuple(f"{name}." for name in own)
    behind = [
        call.name
        for call in calls
        if call.pooled and _has_tensors(found.network.get_submodule(call.name)) and not call.name.startswith(inside)
    ]
    return tuple(dict.fromkeys(behind)), own


def _learns(found: Published, name: str, calls: list[Call]) -> bool:
    """Whether a module that pools has weights for that: of its own, or in a layer that takes many positions."""
    within = [call for call in calls if call.name.startswith(f"{name}.")]
    modules = [found.network.get_submodule(call.name) for call in within if not call.pooled]
    return any(_has_tensors(module) for module in (found.network.get_submodule(name), *modules))


def _has_tensors(module: nn.Module) -> bool:
    return any(True for _ in module.parameters(recurse=False)) or any(True for _ in module.buffers(recurse=False))


def head_of(own: Tensors, found: Published, whole: bool) -> PublishedHead:
    """What becomes of the head's layers in a backbone, told from the tensors that the two have.

    Args:
        own: The backbone's state dict.
        found: What was published.
        whole: Whether the backbone's map is what the published pooling meets.
    """
    published = found.network.state_dict()
    behind, pooling = _head_layers(found)
    norm = _final_norm(found, own)
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
    """What the published head computes before its classifier, told by its numbers on random features."""
    try:
        return _measured(found, norm)
    except Exception:  # there is no such head
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
    x, layer = torch.randn(shape, generator=generator), network.get_submodule(norm) if norm else nn.Identity()
    prefix = int(getattr(network, "num_prefix_tokens", 0) or 0)
    with torch.no_grad():
        vector = network.forward_head(x, pre_logits=True)
        means = [x[:, prefix:].mean(1)] if x.ndim == 3 else [x.mean((2, 3)), x.mean((1, 2))]
        if any(_gives(layer, mean, vector) for mean in means):
            return "mean"
        return "token" if x.ndim == 3 and _gives(layer, x[:, 0], vector) else "other"


def _gives(layer: nn.Module, pooled: Tensor, vector: Tensor) -> bool:
    """Whether a layer turns a pooled vector, with or without axes for the positions, into another."""
    for one in (pooled, pooled[:, :, None, None]):
        try:
            if torch.allclose(layer(one).flatten(1), vector, atol=1e-5):
                return True
        except (RuntimeError, IndexError):  # of another width, or of as many axes as it does not take
            continue
    return False
