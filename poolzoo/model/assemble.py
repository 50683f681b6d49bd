"""Puts a network together: backbone → feature map → pooling → classifier. Widths, layout and map size are measured."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn

from poolzoo.common.errors import PluginFailed, UsageError
from poolzoo.data.sizes import Size, show
from poolzoo.model import surgery
from poolzoo.model.accounting import Accounting
from poolzoo.model.backbone import AssembledBackbone, BackboneParts
from poolzoo.model.classifier import build_classifier
from poolzoo.model.config import ModelConfig
from poolzoo.model.coverage import UnseenBorder, find_unseen_border
from poolzoo.model.image_size import choose_image_size, sizes_near
from poolzoo.model.layout import Layout, as_feature_map
from poolzoo.model.network import Network
from poolzoo.model.plugin_calls import InputRefusedError
from poolzoo.model.pooling import build_for_features
from poolzoo.model.published import NormPlace
from poolzoo.plugin import loader


@dataclass(frozen=True)
class Assembly:
    """A network with everything that was decided or measured while it was put together.

    Attributes:
        network: Backbone, pooling and classifier.
        config: What it was made from.
        out_features: Width D of the pooled vector.
        pool: The global pooling, with the options of its build.
        backbone: The backbone, and what was measured of it.
        weights: Where every tensor came from.
    """

    network: Network
    config: ModelConfig
    out_features: int
    pool: loader.Resolved
    backbone: AssembledBackbone
    weights: Accounting

    @property
    def image_size(self) -> Size:
        """Height and width of the backbone's input."""
        return self.backbone.image_size

    @property
    def local_pool(self) -> loader.Resolved | None:
        """The local pooling, with the options of its build."""
        chosen = self.backbone.parts.local_pool
        return None if chosen is None else chosen.resolved

    @property
    def layout(self) -> Layout:
        """How to read the backbone's features as a feature map."""
        return self.network.layout

    @property
    def norm_place(self) -> NormPlace | None:
        """Where the norm is that the published network has behind its pooling; None where it has none."""
        if self.network.norm is not None:
            return "positions" if self.network.norm_first else "pooled"
        return "backbone" if self.backbone.published.norm else None


def assemble(config: ModelConfig) -> Assembly:
    """Builds the network of a configuration.

    Raises:
        UsageError: A name or option is unknown, parts do not fit, or the feature map would be 1 × 1.
        EnvironmentProblem: Pretrained weights are out of reach.
        PluginFailed: A plugin's module does not do what its contract says.
    """
    return attach_head(assemble_backbone(config), config)


def assemble_backbone(config: ModelConfig) -> AssembledBackbone:
    """Builds the backbone of a configuration, with its local pooling and stem, for one input size.

    Raises:
        UsageError, EnvironmentProblem, PluginFailed: As `assemble`.
    """
    check_names(config)
    parts = BackboneParts.of(config)
    image_size = config.image_size or choose_image_size(parts, config.data_size)
    example = surgery.example(2, image_size)
    try:
        backbone = parts.build(example, network_of=config)
    except InputRefusedError as refused:
        raise refused.explained(f"{show(image_size)} images", sizes_near(parts, image_size)) from refused.error
    if backbone.layout.map_size == (1, 1):
        text = f"{config.backbone} turns {show(image_size)} images into a 1×1 feature map"
        raise UsageError(f"{text}, on which all poolings are equal", "use a larger --image-size, or --stem small")
    return backbone


def check_names(config: ModelConfig) -> None:
    """Raises where a configuration names what does not exist; downloads nothing.

    Raises:
        UsageError: A name or an option is unknown.
    """
    build_classifier(config.head, 1, 1)  # what a seed gives includes the random numbers that this takes
    loader.catalog().pooling(config.pool, "global")
    BackboneParts.of(config)


def attach_head(backbone: AssembledBackbone, config: ModelConfig) -> Assembly:
    """Puts a pooling and a classifier behind a backbone. Several heads can share one backbone.

    Raises:
        UsageError, PluginFailed: As `assemble`.
    """
    pool = loader.catalog().pooling(config.pool, "global")
    layout = backbone.layout
    pooling, out_features = build_for_features(pool, as_feature_map(backbone.features, layout))
    classifier = build_classifier(config.head, out_features, config.num_classes)
    norm = copy.deepcopy(backbone.norm)
    norm_first = norm is not None and out_features != layout.channels
    network = Network(backbone.module, pooling, classifier, layout, norm, norm_first)
    tensors = (*network.named_parameters(), *network.named_buffers())
    if lazy := next((name for name, tensor in tensors if torch.nn.parameter.is_lazy(tensor)), None):
        text = f"{lazy} of the network has no shape yet: no call has used it"
        raise PluginFailed(text, "use each lazy module in forward, or give it its size")
    weights = _accounting_in_network(backbone).within(network.state_dict())
    return Assembly(network, config, out_features, pool, backbone, weights)


def _accounting_in_network(backbone: AssembledBackbone) -> Accounting:
    """The accounting of a backbone under the names that its tensors have in a network."""
    norm = f"{backbone.published.norm_place}." if backbone.norm is not None else None

    def rename(own: str) -> str:
        if norm is not None and own.startswith(norm):
            return f"norm.layer.{own.removeprefix(norm)}"
        return f"backbone.{own}"

    return backbone.accounting.renamed(rename)


def unseen_border(backbone: AssembledBackbone) -> UnseenBorder | None:
    """The rows and columns of its images that a backbone does not see; None where it sees all."""

    def rebuild(size: Size) -> tuple[nn.Module, Layout]:
        with torch.random.fork_rng(devices=[]):
            other = backbone.parts.build(torch.randn(1, 3, *size))
        return other.module, other.layout

    return find_unseen_border(backbone.module, backbone.layout, backbone.image_size, rebuild)
