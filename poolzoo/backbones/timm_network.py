"""timm's networks as published: built on the meta device, with how timm loads their weights.

A backbone is built without a pooling, so that its layers differ from those of the published network: a norm in another
place, a head less. On torch's meta device the published network takes no memory and runs without computing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import timm
import torch
from timm.models import _builder
from torch import Tensor, nn

StateDict = dict[str, Tensor]
Filter = Callable[..., StateDict]


@dataclass(frozen=True)
class Published:
    """A network as published.

    Attributes:
        network: On the meta device, in eval mode.
        size: Height and width of its images.
        keys: Of its state dict, without its classifier.
        classifier: Prefixes of its classifier's keys.
        filter: timm's function from a file's state dict to the network's own; None where files need none.
        strict: Whether timm refuses other keys.
    """

    network: nn.Module
    size: tuple[int, int]
    keys: frozenset[str]
    classifier: tuple[str, ...]
    filter: Filter | None
    strict: bool


@cache
def published(name: str, options: tuple[tuple[str, Any], ...]) -> Published:
    """The published network of an architecture, with or without a tag.

    Args:
        name: The architecture.
        options: What the backbone was built with.

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


def _size(network: Any, options: Mapping[str, Any]) -> tuple[int, int]:
    """Height and width of a network's images."""
    size = options.get("img_size") or getattr(getattr(network, "patch_embed", None), "img_size", None)
    if isinstance(size, int):
        return size, size
    size = size or (getattr(network, "pretrained_cfg", None) or {}).get("input_size", (3, 224, 224))[-2:]
    return int(size[0]), int(size[1])
