"""The published network of a backbone with its own pooling and classifier: built, tried, and its classes named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from poolzoo.common.errors import PluginFailed, PoolzooError, UsageError, reason
from poolzoo.data.sizes import Size, show
from poolzoo.model import surgery
from poolzoo.plugin import loader, values
from poolzoo.plugin.grammar import read_options
from poolzoo.plugin.imports import import_build
from poolzoo.plugin.spec import Backbone


@dataclass(frozen=True)
class PublishedClassifier:
    """A network as it was published, with its weights.

    Attributes:
        resolved: The backbone.
        network: Normalized `float[N, 3, H, W]` to logits.
        options: Of its build function.
        size: Height and width of its input.
        classes: Names of its classes, in the order of the logits.
    """

    resolved: loader.Resolved
    network: nn.Module
    options: Mapping[str, object]
    size: Size
    classes: list[str]


def published_classifier(text: str) -> PublishedClassifier:
    """The published network of a backbone.

    Args:
        text: A backbone's spec, such as `timm/resnet18`.

    Raises:
        UsageError: The name or an option is unknown, or the backbone has no published network.
        EnvironmentProblem: The weights cannot be downloaded.
        PluginFailed: The network or its labels violate the plugin contract.
    """
    resolved = loader.catalog().backbone(text)
    backbone: Backbone = resolved.item
    if backbone.network is None or backbone.input_size is None:
        hint = f"train one with poolzoo finetune --backbone {text} and name its run"
        raise UsageError(f"backbone {text} has no classifier of its own", hint)
    network, options = _build(resolved)
    size = (backbone.input_size, backbone.input_size)
    with torch.no_grad():
        classes = _classes(resolved, _dry_run(resolved, network, size))
    return PublishedClassifier(resolved=resolved, network=network, options=options, size=size, classes=classes)


def _build(resolved: loader.Resolved) -> tuple[nn.Module, dict[str, object]]:
    """The network with its published weights, and the options of its build function."""
    backbone, source = resolved.item, resolved.entry.source
    build = import_build(backbone.network, backbone.name, source)
    options = read_options(backbone.name, build, resolved.spec.options)
    try:
        network = build(pretrained=True, **options)
    except (PoolzooError, MemoryError, OSError):
        raise
    except loader.Failure as error:
        raise _failed(resolved, f"cannot be built: {reason(error)}") from error
    if not isinstance(network, nn.Module):
        raise _failed(resolved, f"is a {type(network).__name__}, not an nn.Module")
    return network, options


def _dry_run(resolved: loader.Resolved, network: nn.Module, size: Size) -> Tensor:
    """The logits for two black images, `float[2, K]`."""
    try:
        logits = surgery.dry_run(network, torch.zeros(2, 3, *size))
    except (PoolzooError, MemoryError, OSError):
        raise
    except loader.Failure as error:
        text = f"fails on {show(size)} images: {reason(error)}"
        raise _failed(resolved, text) from error
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != 2:
        shape = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise _failed(resolved, f"turns {[2, 3, *size]} into {shape}, not into logits [2, K]")
    return logits


def _classes(resolved: loader.Resolved, logits: Tensor) -> list[str]:
    """The names of the classes, as many as there are logits."""
    count = logits.shape[1]
    if resolved.item.labels is None:
        return [str(index) for index in range(count)]
    try:
        labels: Sequence[str] = [values.text(one) if isinstance(one, str) else one for one in resolved.item.labels()]
    except (PoolzooError, MemoryError, OSError):
        raise
    except loader.Failure as error:
        raise _failed(resolved, f"has no labels: {reason(error)}") from error
    if len(labels) != count or not all(isinstance(label, str) for label in labels):
        raise _failed(resolved, f"gives {count} logits and has {len(labels)} labels, which must be as many names")
    return list(labels)


def _failed(resolved: loader.Resolved, what: str) -> PluginFailed:
    source = resolved.entry.source
    hint = "choose another backbone, or fix its plugin; POOLZOO_DEBUG=1 shows the traceback"
    return PluginFailed(f"the network of {resolved.spec.text} (from {source.dist}) {what}", hint)
