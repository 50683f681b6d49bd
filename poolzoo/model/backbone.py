"""Builds a backbone for one input size: the plugin's module, its local pooling, its stem, and what they measure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn

from poolzoo.common.errors import PoolzooError, UsageError
from poolzoo.data.sizes import Size
from poolzoo.model import plugin_calls, surgery
from poolzoo.model.accounting import Accounting, HasAccounting, compare_with_untrained
from poolzoo.model.config import ModelConfig
from poolzoo.model.geometry import LocalBuild
from poolzoo.model.layout import Layout, read_layout
from poolzoo.model.plugin_calls import InputRefusedError
from poolzoo.model.pooling import LocalPool, resolve_local_pool
from poolzoo.model.published import FinalNorm, Origin, PublishedHead
from poolzoo.plugin import loader
from poolzoo.plugin.grammar import accepts

MIN_FEATURE_MAP = 4  # spatial locations a side; on fewer, most poolings compute nearly the same
STEMS = ("stock", "small")


@dataclass(frozen=True)
class BackboneParts:
    """What a backbone is built from, looked up but not built: it can be built for several input sizes.

    Attributes:
        resolved: The backbone's plugin, with the options of its build.
        local_pool: The local pooling for the backbone's own pooling modules; None to keep those.
        stem: "stock" or "small".
    """

    resolved: loader.Resolved
    local_pool: LocalPool | None
    stem: str

    @classmethod
    def of(cls, config: ModelConfig) -> BackboneParts:
        """Looks up the parts that a configuration names.

        Raises:
            UsageError: A name or an option is unknown.
        """
        if config.stem not in STEMS:
            raise UsageError(f"--stem {config.stem!r} is neither stock nor small", "choose one of them")
        catalog = loader.catalog()
        local_pool = resolve_local_pool(catalog, config.local_pool)
        return cls(catalog.backbone(config.backbone), local_pool, config.stem)

    def build(self, example: Tensor, *, network_of: ModelConfig | None = None) -> AssembledBackbone:
        """Builds the backbone for images of the size of an example, `float[N, 3, H, W]`.

        Args:
            example: Its features are measured.
            network_of: The configuration whose network the backbone is for; None where only its feature map is asked
                for, so that no weights are loaded and the published head stays as it is.

        Raises:
            InputRefusedError: The backbone does not accept the size.
            UsageError, EnvironmentProblem, PluginFailed: As `poolzoo.model.assemble.assemble`.
        """
        size = (example.shape[2], example.shape[3])
        pretrained = network_of is not None and network_of.pretrained
        module, replaced = self._build_module(size, pretrained)
        published, norm = PublishedHead(), None
        if network_of is not None:
            published, norm = take_final_norm(module, network_of)
        stem_changes: list[str] = []
        if self.stem == "small":
            before = read_layout(self.resolved, module, plugin_calls.run(self.resolved, module, example), size)
            stem_changes = surgery.shrink_stem(module, example, before.kind, MIN_FEATURE_MAP)
        local_pool = self.local_pool
        if local_pool is not None and not self._places_local_pool:
            plugin_calls.run(self.resolved, module, example)
            make = local_pool.build
            replaced = plugin_calls.call(
                local_pool.resolved, lambda: surgery.replace_local_pooling(module, make, example)
            )
        features = plugin_calls.run(local_pool.resolved if local_pool else self.resolved, module, example)
        return AssembledBackbone(
            parts=self,
            image_size=size,
            module=module,
            layout=read_layout(self.resolved, module, features, size),
            features=features,
            replaced=tuple(replaced),
            stem_changes=tuple(stem_changes),
            published=published,
            norm=norm,
            accounting=getattr(module, "accounting", Accounting()) if pretrained else Accounting(),
        )

    @property
    def _places_local_pool(self) -> bool:
        """Whether the backbone's build takes the local pooling and puts it in place itself."""
        return accepts(self.resolved.build, "local_pool")

    def _build_module(self, size: Size, pretrained: bool) -> tuple[nn.Module, list[str]]:
        """The module, and the names of the local poolings that its build put in place."""
        local_pool = self.local_pool
        if local_pool is None or not self._places_local_pool:
            return build_backbone(self.resolved, size, pretrained=pretrained), []
        made: list[nn.Module] = []

        def make(channels: int, kernel_size: int, stride: int, padding: int, ceil_mode: bool) -> nn.Module:
            made.append(local_pool.build(channels, kernel_size, stride, padding, ceil_mode))
            return made[-1]

        module = plugin_calls.call(
            local_pool.resolved,
            lambda: build_backbone(self.resolved, size, pretrained=pretrained, local_pool=make),
        )
        return module, [name for name, child in module.named_modules() if any(child is one for one in made)]


@dataclass(frozen=True)
class AssembledBackbone:
    """A backbone that was built for one input size.

    Attributes:
        parts: What it was built from.
        image_size: Height and width of its input.
        module: `float[N, 3, H, W]` to features in its own layout.
        layout: How to read the features as a feature map.
        features: Its output for an example.
        replaced: Names of the pooling modules that are now the local pooling.
        stem_changes: What was changed in the stem, in words.
        published: The layers that the published network has around its pooling.
        norm: The published norm that was taken out of the backbone to follow the pooling.
        accounting: Where its tensors came from.
    """

    parts: BackboneParts
    image_size: Size
    module: nn.Module
    layout: Layout
    features: Tensor
    replaced: tuple[str, ...]
    stem_changes: tuple[str, ...]
    published: PublishedHead = field(default_factory=PublishedHead)
    norm: FinalNorm | None = None
    accounting: Accounting = field(default_factory=Accounting)

    @property
    def resolved(self) -> loader.Resolved:
        """The backbone's plugin, with the options of its build."""
        return self.parts.resolved


def take_final_norm(module: nn.Module, config: ModelConfig) -> tuple[PublishedHead, FinalNorm | None]:
    """Takes the norm that a published network has behind its pooling out of a backbone, where the configuration says.

    Args:
        module: The backbone, changed in place.
        config: Where the norm goes.

    Returns:
        The published head, and the norm where it is to follow our pooling.
    """
    origin: Origin | None = getattr(module, "origin", None)
    if origin is None:
        return PublishedHead(), None
    with torch.random.fork_rng(devices=[]):
        published = origin.head(module)
    to_head = config.final_norm == "head"
    if not published.norm or not (to_head or published.norm_is_new):
        return published, None
    layer = module.get_submodule(published.norm_place)
    module.set_submodule(published.norm_place, nn.Identity())
    if to_head:
        return published, FinalNorm(layer, published.norm_place, published.channels_first)
    return published.without_norm(), None


def build_backbone(
    backbone: loader.Resolved, image_size: Size, *, pretrained: bool = False, local_pool: LocalBuild | None = None
) -> nn.Module:
    """The backbone's module for one input size.

    Args:
        backbone: Which one, with its options.
        image_size: Height and width of its input.
        pretrained: Whether it starts from its published weights.
        local_pool: `build(channels, kernel_size, stride, padding, ceil_mode)`, for a backbone whose build takes it.

    Raises:
        InputRefusedError: The backbone's code raised.
        PluginFailed: What was built is no module.
    """
    extra: dict[str, object] = {"image_size": image_size} if accepts(backbone.build, "image_size") else {}
    if local_pool is not None:
        extra["local_pool"] = local_pool
    rng_state = torch.get_rng_state()
    try:
        built = backbone.build(pretrained=pretrained, **extra, **backbone.options)
    except (PoolzooError, MemoryError, OSError):
        raise
    except loader.Failure as error:
        raise InputRefusedError(backbone, error) from error
    module = plugin_calls.require_module(built, backbone, "backbone")
    if pretrained and not isinstance(getattr(module, "accounting", None), Accounting):  # the plugin loaded the weights
        untrained = _untrained(backbone, extra, rng_state)
        source = f"the weights of {backbone.spec.text}, loaded by its plugin"
        cast(HasAccounting, module).accounting = compare_with_untrained(module, untrained, source)
    return module


def _untrained(backbone: loader.Resolved, extra: Mapping[str, object], rng_state: Tensor) -> nn.Module | None:
    """The same backbone from scratch, from the same random numbers; None where it cannot be built so."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(rng_state)
        try:
            module = backbone.build(pretrained=False, **extra, **backbone.options)
        except loader.Failure:
            return None
    return module if isinstance(module, nn.Module) else None
