"""Reads weights from a file into an assembled network: ours, timm's or torchvision's own state dict."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from poolzoo import output
from poolzoo.assemble import Network
from poolzoo.errors import CheckFailed, UsageError

StateDict = dict[str, Tensor]


def require_weights(path: Path) -> None:
    """Raises where there is no file.

    Raises:
        UsageError: There is no such file.
    """
    if not path.is_file():
        raise UsageError(f"weights file {str(path)!r} does not exist", "give a .safetensors or .pth file")


def read_state_dict(path: Path) -> StateDict:
    """The tensors of a `.safetensors` or `.pth` file; no code in it is ever run.

    Raises:
        UsageError: There is no such file.
        CheckFailed: The file cannot be read as weights.
    """
    require_weights(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise CheckFailed(f"{path} is damaged or holds no weights: {error}", "fetch the file again") from error
    except Exception as error:  # torch raises pickle's own errors for anything beyond tensors
        raise CheckFailed(
            f"{path} holds more than tensors, which is not loaded: {type(error).__name__}", "save a state dict"
        ) from error
    for key in ("state_dict", "model", "state_dict_ema"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise CheckFailed(f"{path} is not a state dict of tensors", "save model.state_dict()")
    return {key.removeprefix("module."): value for key, value in loaded.items()}


def load_weights(network: Network, path: Path, classifier: tuple[str, ...]) -> None:
    """Fills a network with the weights of a file.

    A classifier of another width is left out and said so; every other difference is an error.

    Args:
        network: The network, changed in place.
        path: The file.
        classifier: Key prefixes of the original network's own classifier, for files that are not ours.
    """
    state = read_state_dict(path)
    ours = any(key.startswith("backbone.") for key in state)
    if ours:
        state = _fit_ours(network, state)
        own = network.state_dict()
    else:
        own = network.backbone.state_dict()
        state = _fit_foreign(network.backbone, state, own, classifier)
    missing = (
        sorted(set(own) - set(state))
        if not ours
        else sorted(k for k in set(own) - set(state) if k.startswith("backbone."))
    )
    unexpected = sorted(set(state) - set(own))
    other_shape = [k for k in sorted(set(state) & set(own)) if state[k].shape != own[k].shape]
    if missing or unexpected or other_shape:
        parts = [
            f"{len(keys)} {what} ({keys[0]})"
            for keys, what in ((missing, "missing"), (unexpected, "unknown"), (other_shape, "of another shape"))
            if keys
        ]
        raise UsageError(
            f"the weights in {path.name} are for another network: {', '.join(parts)}",
            "choose the backbone that they were made for",
        )
    (network if ours else network.backbone).load_state_dict(state, strict=not ours)


def _fit_ours(network: Network, state: StateDict) -> StateDict:
    """Our own file, less the pooling and the classifier where this network's are others."""
    own = network.state_dict()
    for part in ("pool.", "classifier."):
        theirs = {key: value.shape for key, value in state.items() if key.startswith(part)}
        if theirs != {key: value.shape for key, value in own.items() if key.startswith(part)}:
            output.say(f"weights: the {part[:-1]} in the file is another one and is left out")
            state = {key: value for key, value in state.items() if not key.startswith(part)}
    return state


def _fit_foreign(module: torch.nn.Module, state: StateDict, own: StateDict, classifier: tuple[str, ...]) -> StateDict:
    prefixes = {key.split(".", 1)[0] for key in own}
    if len(prefixes) == 1 and not any(key.startswith(f"{next(iter(prefixes))}.") for key in state):
        state = {f"{next(iter(prefixes))}.{key}": value for key, value in state.items()}  # a wrapped original
        classifier = tuple(f"{next(iter(prefixes))}.{name}" for name in classifier)
    heads = [key for key in state if key not in own and key.startswith(tuple(f"{name}." for name in classifier))]
    if heads:
        output.say(f"weights: the original classifier ({heads[0]}, …) is left out")
    state = {key: value for key, value in state.items() if key not in heads}
    # timm resamples position embeddings to another image size in the filter that each model's file brings along.
    resample = getattr(sys.modules.get(type(module).__module__), "checkpoint_filter_fn", None)
    if resample is not None and any(k in own and own[k].shape != v.shape for k, v in state.items()):
        state = resample(state, module)
    return state
