"""Calls into plugins while a network is built: what their code raises becomes an error that names the plugin."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import Tensor, nn

from poolzoo.common.errors import PluginFailed, PoolzooError, UsageError, message_of, reason
from poolzoo.model import surgery
from poolzoo.plugin import loader
from poolzoo.plugin.spec import Pooling

T = TypeVar("T")


class InputRefusedError(Exception):
    """A backbone, or a pooling in it, raised at an input of one size; at a larger one it may not."""

    def __init__(self, plugin: loader.Resolved, error: BaseException) -> None:
        super().__init__(reason(error).rstrip("."))
        self.plugin = plugin
        self.error = error

    def explained(self, what: str, hint: str) -> PoolzooError:
        """The error to show: timm's, torchvision's and our own networks refuse the size; any other plugin failed."""
        name, source = self.plugin.spec.text, self.plugin.entry.source
        if source.tier == "built-in":
            return UsageError(f"{name} takes no {what}: {self}", hint)
        return PluginFailed(f"{name} (from {source.dist}) failed on {what}: {self}", f"{hint}, or fix the plugin")


def run(plugin: loader.Resolved, module: nn.Module, example: Tensor) -> Tensor:
    """The output of a plugin's module in eval mode, without gradients.

    Raises:
        InputRefusedError: The plugin's code raised.
    """
    try:
        return surgery.dry_run(module, example)
    except (PoolzooError, MemoryError, OSError):
        raise
    except loader.Failure as error:
        raise InputRefusedError(plugin, error) from error


def call(plugin: loader.Resolved, function: Callable[[], T]) -> T:
    """What a function gives in which a plugin's code runs.

    Raises:
        UsageError: The plugin refused its options, or a local pooling its geometry.
        PluginFailed: The plugin's code raised anything else.
    """
    try:
        return function()
    except (PoolzooError, InputRefusedError, MemoryError, OSError):
        raise
    except loader.Failure as error:
        has_typed_options = bool(plugin.options) or plugin.entry.source.tier == "built-in"
        is_local = isinstance(plugin.item, Pooling) and plugin.item.kind == "local"
        refuses_geometry = is_local and isinstance(error, ValueError)
        if refuses_geometry or (has_typed_options and isinstance(error, ValueError | TypeError)):
            raise UsageError(
                f"{plugin.spec.text} does not fit: {message_of(error)}", f"poolzoo show {plugin.spec.name}"
            ) from error
        raise PluginFailed(
            f"{plugin.spec.text} (from {plugin.entry.source.dist}) failed: {reason(error)}",
            "POOLZOO_DEBUG=1 shows the traceback",
        ) from error


def require_module(built: object, plugin: loader.Resolved, what: str) -> nn.Module:
    """What a plugin built, if it is a module.

    Raises:
        PluginFailed: It is none.
    """
    if isinstance(built, nn.Module):
        return built
    text = f"{what} {plugin.spec.name} built a {type(built).__name__}, not an nn.Module"
    raise PluginFailed(text, "fix the plugin")
