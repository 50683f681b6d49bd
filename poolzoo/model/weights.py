"""Fills an assembled network from a file: our own, or timm's, torchvision's or a plugin's state dict."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from poolzoo.common import output
from poolzoo.model.accounting import Accounting, fill
from poolzoo.model.network import Network
from poolzoo.model.published import Origin
from poolzoo.model.state_dict import StateDict, read_state_dict

HEAD = ("pool.", "classifier.")  # name prefixes of the parts that stay fresh where the file lacks them or differs


def load_weights(network: Network, path: Path, classifier: tuple[str, ...]) -> Accounting:
    """Loads the weights of a file into a network, and accounts for all of its tensors.

    Leaves out a classifier with another number of features, and layers that the network does not have. Every other
    difference is an error.

    Args:
        network: Changed in place.
        path: The file.
        classifier: Key prefixes of the original network's own classifier, for files that are not ours.

    Raises:
        UsageError: There is no such file, or it is for another network.
        CheckFailed: The file cannot be read as weights.
    """
    state = read_state_dict(path)
    if any(key.startswith("backbone.") for key in state):
        kept, left_out = _fit_ours(network, state)
    else:
        own = _published_names(network)
        origin: Origin | None = getattr(network.backbone, "origin", None)
        if origin is not None:
            with torch.random.fork_rng(devices=[]):
                kept, left_out = origin.convert_state_dict(own, state, path.name)
        else:
            kept, left_out = _fit_foreign(network.backbone, state, own, classifier)
        kept = {_placed(network, key): value for key, value in kept.items()}
    if left_out:
        output.detail(f"weights: left out of {path.name}: {', '.join(left_out)}")
    return fill(network, kept, path.name, left_out=left_out, fresh=HEAD)


def _published_names(network: Network) -> dict[str, Tensor]:
    """The tensors of the backbone as it was built, with the norm that now follows the pooling."""
    own = dict(network.backbone.state_dict())
    if network.norm is not None:
        own |= {f"{network.norm.place}.{key}": value for key, value in network.norm.layer.state_dict().items()}
    return own


def _placed(network: Network, key: str) -> str:
    """The name in the network of one of `_published_names`."""
    if network.norm is not None and key.startswith(f"{network.norm.place}."):
        return f"norm.layer.{key.removeprefix(f'{network.norm.place}.')}"
    return f"backbone.{key}"


def _fit_ours(network: Network, state: StateDict) -> tuple[StateDict, tuple[str, ...]]:
    """Our own file, less the pooling and the classifier where this network has other ones."""
    own = network.state_dict()
    left = [key for key in state if key in network.dropped]
    state = {key: value for key, value in state.items() if key not in left}
    if network.norm is not None:  # runs of earlier versions have it in the backbone
        state = {_placed(network, k.removeprefix("backbone.")) if k not in own else k: v for k, v in state.items()}
    for part in HEAD:
        theirs = {key: value.shape for key, value in state.items() if key.startswith(part)}
        if theirs != {key: value.shape for key, value in own.items() if key.startswith(part)}:
            output.say(f"weights: the {part[:-1]} in the file differs and is left out")
            left += list(theirs)
            state = {key: value for key, value in state.items() if not key.startswith(part)}
    return state, tuple(left)


def _fit_foreign(
    module: torch.nn.Module, state: StateDict, own: Mapping[str, Tensor], classifier: tuple[str, ...]
) -> tuple[StateDict, tuple[str, ...]]:
    """A state dict of a backbone without a known origin, less the original network's classifier."""
    prefixes = {key.split(".", 1)[0] for key in own}
    if len(prefixes) == 1 and not any(key.startswith(f"{next(iter(prefixes))}.") for key in state):
        state = {f"{next(iter(prefixes))}.{key}": value for key, value in state.items()}  # a wrapped original
        classifier = tuple(f"{next(iter(prefixes))}.{name}" for name in classifier)
    heads = [key for key in state if key not in own and key.startswith(tuple(f"{name}." for name in classifier))]
    state = {key: value for key, value in state.items() if key not in heads}
    # A plugin may use one of timm's networks, whose filter resamples position embeddings to another image size.
    resample = getattr(sys.modules.get(type(module).__module__), "checkpoint_filter_fn", None)
    if resample is not None and any(k in own and own[k].shape != v.shape for k, v in state.items()):
        state = resample(state, module)
    return state, tuple(heads)
