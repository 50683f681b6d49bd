"""Builds the poolings of a network: the global one behind the backbone, and local ones inside it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from poolzoo.common import numerals
from poolzoo.common.errors import PluginFailed, UsageError
from poolzoo.data.sizes import Size
from poolzoo.model import plugin_calls, surgery
from poolzoo.model.geometry import MAX_SIDE, Geometry
from poolzoo.plugin import loader
from poolzoo.plugin.grammar import accepts, parse_spec

GEOMETRY_OPTIONS = ("window", "stride", "padding")  # of a local pooling's spec, beside the options of its build


def build_pooling(pool: loader.Resolved, channels: int, map_size: Size | None) -> nn.Module:
    """A global pooling's module, `float[N, C, H, W] → float[N, D]`.

    Args:
        pool: Which one, with its options.
        channels: Channels C of the feature map.
        map_size: (H, W) of the feature map, for a pooling that takes it; None where it is unknown.

    Raises:
        UsageError: An option does not fit.
        PluginFailed: The plugin's code raised, or built no module.
    """
    extra = {"map_size": map_size} if accepts(pool.build, "map_size") else {}
    built = plugin_calls.call(pool, lambda: pool.build(channels, **extra, **pool.options))
    return plugin_calls.require_module(built, pool, "pooling")


def build_for_features(pool: loader.Resolved, features: Tensor) -> tuple[nn.Module, int]:
    """The global pooling for features `float[N, C, H, W]`, and the number D of its out_features, measured.

    Raises:
        UsageError, PluginFailed: As `build_pooling`, or its output is not `float[N, D]`.
    """
    module = build_pooling(pool, features.shape[1], (features.shape[2], features.shape[3]))
    pooled: object = plugin_calls.call(pool, lambda: surgery.dry_run(module, features))
    if not isinstance(pooled, Tensor) or pooled.ndim != 2 or len(pooled) != len(features):
        shape = list(pooled.shape) if isinstance(pooled, Tensor) else type(pooled).__name__
        raise PluginFailed(
            f"pooling {pool.spec.name} ({pool.entry.source.dist}) turned {list(features.shape)} into {shape}",
            f"a global pooling gives [N, D], here [{len(features)}, D]",
        )
    return module, pooled.shape[1]


@dataclass(frozen=True)
class LocalPool:
    """A local pooling for a backbone, and what it changes of the geometry of the layers that it replaces.

    Attributes:
        resolved: Which one, with the options of its build.
        window, stride, padding: New sizes; None keeps those of the layer that is replaced.
    """

    resolved: loader.Resolved
    window: int | None = None
    stride: int | None = None
    padding: int | None = None

    def build(self, channels: int, kernel_size: int, stride: int, padding: int, ceil_mode: bool) -> nn.Module:
        """The layer in the place of one with the given geometry.

        Raises:
            UsageError: The new padding is more than half of the window.
            ValueError: The pooling refuses the geometry.
        """
        replaced = Geometry(kernel_size, stride, padding, ceil_mode)
        geometry = replaced.changed(self.window, self.stride, self.padding)
        return geometry.build(self.resolved.build, channels, self.resolved.options)


def resolve_local_pool(catalog: loader.Catalog, text: str | None) -> LocalPool | None:
    """Looks up a local pooling by its spec, such as `max:window=3,stride=2`; None for None.

    Raises:
        UsageError: The name or an option is unknown, or a size is too small.
    """
    if text is None:
        return None
    wanted = parse_spec(text)
    typed = {key: wanted.options.pop(key) for key in GEOMETRY_OPTIONS if key in wanted.options}
    try:
        changes = {key: numerals.whole(value) for key, value in typed.items()}
    except ValueError:
        raise UsageError(
            f"window, stride and padding in {text!r} must be whole numbers", "such as max:window=3"
        ) from None
    if changes.get("window", 1) < 1 or changes.get("stride", 1) < 1 or changes.get("padding", 0) < 0:
        raise UsageError(f"window, stride or padding in {text!r} is too small", "window and stride are at least 1")
    if max(changes.values(), default=0) > MAX_SIDE:
        raise UsageError(f"window, stride or padding in {text!r} is too large", f"they are at most {MAX_SIDE}")
    name = f"{wanted.dist}:{wanted.name}" if wanted.dist else wanted.name
    options = ",".join(f"{key}={value}" for key, value in wanted.options.items())
    return LocalPool(catalog.pooling(f"{name}:{options}" if options else name, "local"), **changes)
