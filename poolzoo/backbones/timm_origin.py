"""Where a timm backbone comes from: which published weights it takes, and where it has the layers of the head."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from poolzoo.backbones.timm_head import final_norm, head_of
from poolzoo.backbones.timm_network import Filter, Published, StateDict, published
from poolzoo.model.accounting import COUNTER, mismatch
from poolzoo.model.published import PublishedHead, Tensors


@dataclass(frozen=True)
class TimmOrigin:
    """The timm network that a backbone was cut from; see `poolzoo.model.published.Origin`.

    Attributes:
        name: With or without a tag.
        options: What the backbone was built with.
    """

    name: str
    options: tuple[tuple[str, Any], ...]

    def convert_state_dict(self, own: Tensors, state: Tensors, source: str) -> tuple[StateDict, tuple[str, ...]]:
        """The tensors of a file under the backbone's names, and the names of those that it leaves out."""
        return convert_state_dict(own, published(self.name, self.options), dict(state), source)

    def head(self, module: nn.Module) -> PublishedHead:
        """Where the backbone has the published network's last layers."""
        forward = vars(module).get("forward")
        whole = forward is None or forward.__name__ == "_features"  # else the feature map is not timm's last one
        try:
            found = published(self.name, self.options)
        except Exception:  # it cannot be built on the meta device
            return PublishedHead()
        return head_of(module.state_dict(), found, whole)


def convert_state_dict(
    own: Tensors, found: Published, state: StateDict, source: str
) -> tuple[StateDict, tuple[str, ...]]:
    """A published state dict under the names that a backbone has for its tensors.

    Args:
        own: The backbone's state dict.
        found: The published network.
        state: As in the file, or with another classifier, or the backbone's own.
        source: Where the state comes from, for messages.

    Returns:
        The tensors, unknown ones included, and the names of those that are left out.

    Raises:
        UsageError: timm's filter for such files cannot read it.
    """
    dropped: tuple[str, ...] = ()
    if found.filter is not None:
        given = state
        try:
            state = _filtered(found.filter, dict(given), found.network)
            dropped = _dropped(found.filter, given, state, found.network)
        except Exception as error:  # it may raise anything on an unexpected file
            raise mismatch([f"timm cannot read them ({type(error).__name__}: {error})"], source) from error
    norm = final_norm(found, own)
    place = {f"{norm[0]}.{key}": f"{norm[1]}.{key}" for key in ("weight", "bias")} if norm else {}
    kept = {place.get(key, key): value for key, value in state.items()}
    kept = {key: _as_convolution(value, own.get(key)) for key, value in kept.items()}
    left = [key for key in kept if key not in own and (not found.strict or _has(found, key))]
    return {key: value for key, value in kept.items() if key not in left}, (*left, *dropped)


def _dropped(filter: Filter, given: StateDict, state: StateDict, network: nn.Module) -> tuple[str, ...]:
    """Names of the tensors of a file that timm's filter ignores: without them it gives the same keys."""
    taken = {id(value) for value in state.values()}
    names = []
    for name in [key for key, value in given.items() if key not in state and id(value) not in taken]:
        rest = {key: value for key, value in given.items() if key != name}
        try:
            if _filtered(filter, rest, network).keys() == state.keys():
                names.append(name)
        except Exception:  # it needs that one
            continue
    return tuple(names)


def _filtered(filter: Filter, state: StateDict, network: nn.Module) -> StateDict:
    """Calls a filter as timm does: some take only the state dict."""
    try:
        inspect.signature(filter).bind(state, network)
    except TypeError:
        return filter(state)
    return filter(state, network)


def _as_convolution(value: Tensor, wanted: Tensor | None) -> Tensor:
    """The weight of a linear layer as that of a 1 × 1 convolution, which timm makes of it without a pooling before."""
    if wanted is not None and value.ndim == 2 and wanted.shape == (*value.shape, 1, 1):
        return value.view(wanted.shape)
    return value


def _has(found: Published, key: str) -> bool:
    return key in found.keys or key.startswith(found.classifier) or key.endswith(COUNTER)
