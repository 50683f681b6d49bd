"""From settings to everything that training needs: device, data, complete settings, and the network.

The file is long because the type of what it prepares is in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from poolzoo.artifacts import run
from poolzoo.common import allocator, output
from poolzoo.common.errors import UsageError
from poolzoo.data import cautions, classes, sizes
from poolzoo.data.augment.augmentation import Augmentation
from poolzoo.data.batches import Rank
from poolzoo.data.sizes import Size
from poolzoo.data.statistics import ChannelStatistics
from poolzoo.model.assemble import Assembly, assemble_backbone, attach_head, check_names, unseen_border
from poolzoo.model.backbone import AssembledBackbone
from poolzoo.model.config import ModelConfig
from poolzoo.model.network import Network, Preprocess
from poolzoo.model.state_dict import require_weights, weights_digest
from poolzoo.model.weights import load_weights
from poolzoo.plugin import loader, spec
from poolzoo.train import class_weights, distributed, optimizer, seen_images, stages
from poolzoo.train import device as devices
from poolzoo.train.class_weights import ClassWeights
from poolzoo.train.defaults import augmentation_for, complete_settings
from poolzoo.train.footprint import Footprint, eval_batch_size, measure, measure_head
from poolzoo.train.inference import BESIDE, backbone_batch_size, inference_networks
from poolzoo.train.settings import Settings
from poolzoo.train.splits import DataSplits, read_data
from poolzoo.train.teacher import Teacher, load_teacher, require_teacher


@dataclass(frozen=True)
class BackboneFacts:
    """What is measured once of a backbone, for all heads on it.

    Attributes:
        network: One of the networks with the backbone, on its device.
        preprocess: Normalizes and resizes.
        size: Height and width of the images.
        policy: The device.
    """

    network: Network
    preprocess: Preprocess
    size: Size
    policy: devices.DevicePolicy

    @cached_property
    def digest(self) -> str:
        """A digest of the weights, which are frozen."""
        return weights_digest(self.network.backbone)

    @cached_property
    def inference_backbone(self) -> nn.Module:
        """The backbone as it computes features. Its weights are frozen."""
        return inference_networks([self.network], self.preprocess, self.size, self.policy)[0].backbone

    @cached_property
    def batch_size(self) -> int:
        """The batch size of evaluation."""
        network = self.network.with_backbone(self.inference_backbone)
        return backbone_batch_size(network, self.preprocess, size=self.size, policy=self.policy)


@dataclass(frozen=True)
class PreparedRun:
    """Everything that a run needs before its first step.

    Attributes:
        settings: With every default filled in.
        data: Both splits.
        assembly: The network, on its device.
        preprocess: Normalizes and resizes.
        policy: The device.
        augmentation: Random changes of the training images.
        rank: This process.
        facts: About the backbone.
        class_weights: How much the images of each class count in the loss; None where all count alike.
        teacher: Whose logits join the loss; None without one.
    """

    settings: Settings
    data: DataSplits
    assembly: Assembly
    preprocess: Preprocess
    policy: devices.DevicePolicy
    augmentation: Augmentation
    rank: Rank
    facts: BackboneFacts
    class_weights: ClassWeights | None = None
    teacher: Teacher | None = None

    @property
    def inputs(self) -> Mapping[str, str]:
        """Digests of what decides the result beside settings and data, by name."""
        found = {"class weights": self.class_weights, "teacher": self.teacher}
        digests = {name: each.digest for name, each in found.items() if each is not None}
        if self.is_backbone_frozen:  # its weights are in no checkpoint
            weights = run.weights_bytes(self.assembly.network.backbone.state_dict())
            digests["weights of the backbone"] = hashlib.sha256(weights).hexdigest()
        return {**digests, **self._plugins}

    @property
    def _plugins(self) -> dict[str, str]:
        """Digests of the plugins of others that provide the parts of the network, by name."""
        parts = (self.assembly.backbone.resolved, self.assembly.pool, self.assembly.local_pool)
        sources = [run.provenance(part) for part in parts if part is not None]
        return {
            f"plugin {source['dist']}": f"{source['version']} {source['sha256']}"
            for source in sources
            if source["tier"] != "built-in"
        }

    @property
    def is_backbone_frozen(self) -> bool:
        """Whether the head alone is trained."""
        return self.settings.freeze == "backbone"

    @cached_property
    def footprint(self) -> Footprint:
        """The memory that one image takes in the network."""
        return measure(self.assembly.network, self.preprocess, size=self.data.size, policy=self.policy)

    @property
    def inference_network(self) -> Network:
        """The network with the backbone as it computes features. Of a run whose backbone is frozen."""
        return self.assembly.network.with_backbone(self.facts.inference_backbone)

    @property
    def eval_batch_size(self) -> int:
        """The batch size of validation while the whole network is trained."""
        return eval_batch_size(self.footprint, self.policy)

    @property
    def backbone_batch_size(self) -> int:
        """The batch size of evaluation for the backbone, which does not depend on the pooling."""
        return self.facts.batch_size

    @cached_property
    def head_footprint(self) -> Footprint:
        """The memory that one feature map takes in what follows the backbone."""
        layout = self.assembly.layout
        return measure_head(self.assembly.network.head, (layout.channels, *layout.map_size), self.policy)

    @cached_property
    def head_batch_size(self) -> int:
        """The batch size of evaluation for what follows the backbone: all or a part of a batch of the backbone."""
        return min(self.backbone_batch_size, eval_batch_size(self.head_footprint, self.policy, beside=BESIDE))


def prepare(settings: Settings, *, load_initial_weights: bool = True) -> PreparedRun:
    """Reads the data, assembles the network and fills in the settings that have no value.

    Args:
        settings: As the user gave them.
        load_initial_weights: Whether to load `--pretrained` or `--weights`; a resumed run has its own weights.

    Raises:
        PoolzooError: The settings cannot be fulfilled; nothing is written.
    """
    return prepare_heads(settings, [settings.pool], load_initial_weights=load_initial_weights)[0]


def prepare_heads(settings: Settings, pools: Sequence[str], *, load_initial_weights: bool = True) -> list[PreparedRun]:
    """Prepares a run for each of several poolings; the runs share the module of the backbone.

    Each head is initialized as if it were the only one.

    Args:
        settings: As the user gave them; their pooling is ignored.
        pools: Specs of the poolings.
        load_initial_weights: As for `prepare`.

    Raises:
        PoolzooError: The settings cannot be fulfilled; nothing is written.
    """
    each_settings = [_pin_plugins(replace(settings, pool=pool)) for pool in pools]
    settings = each_settings[0]
    has_weights = settings.pretrained or settings.weights is not None
    fine_tuning = has_weights and settings.freeze != "backbone"
    lr = settings.lr or optimizer.default_lr(settings.optimizer, pretrained=fine_tuning)
    optimizer.require_optimizer(settings.optimizer)
    for each in each_settings:
        check_names(_model_config(each, pretrained=load_initial_weights))  # unknown names fail before any data is read
    if settings.weights and load_initial_weights:
        require_weights(Path(settings.weights))
    class_weights.require_file(settings.class_weights)
    require_teacher(settings.distill_from)
    policy = devices.policy(settings.device, settings.precision, settings.compile, deterministic=settings.deterministic)
    if policy.device.type == "cpu":
        allocator.keep()
    devices.set_threads(settings.threads)
    rank = distributed.init_process_group(policy)
    with distributed.fail_together(rank), distributed.rank_zero_first(rank):
        data = read_data(settings)
    distributed.require_equal("the data", data.identity.digest, rank)
    with distributed.fail_together(rank):
        classes.require(data.name, data.classes, data.labels, settings.limit)
        classes.tell_unlearnable(data.classes, data.labels, data.test.labels)
        if data.labels.ndim == 2:
            train_labels, val_labels = data.labels[data.train_indices], data.labels[data.val_indices]
            classes.tell_missing_labels(data.classes, train_labels, val_labels)
        if not output.is_quiet():  # else a trial of a comparison, which says it once
            cautions.warn(settings.data, data.identity, data.classes)
        settings = complete_settings(settings, data, policy, lr=lr, rank=rank)
    statistics = None if has_weights else distributed.broadcast_result(data.statistics, rank)
    with distributed.fail_together(rank):
        return _assemble_heads(
            settings,
            pools=[each.pool for each in each_settings],
            data=data,
            statistics=statistics,
            policy=policy,
            rank=rank,
            load_initial_weights=load_initial_weights,
        )


def _pin_plugins(settings: Settings) -> Settings:
    """The settings with names that also name the plugin, so that they keep their meaning without `--prefer`."""
    catalog = loader.catalog()
    return replace(
        settings,
        backbone=catalog.pinned(settings.backbone, spec.Backbone),
        pool=catalog.pinned(settings.pool, spec.Pooling),
        local_pool=settings.local_pool and catalog.pinned(settings.local_pool, spec.Pooling),
    )


def _model_config(settings: Settings, *, pretrained: bool) -> ModelConfig:
    """The network's configuration without the number of classes and the image size, which the data gives."""
    return ModelConfig(
        backbone=settings.backbone,
        pool=settings.pool,
        num_classes=0,
        data_size=(0, 0),
        image_size=settings.input_size,
        local_pool=settings.local_pool,
        stem=settings.stem,
        head=settings.head,
        pretrained=settings.pretrained and pretrained,
        final_norm="head" if settings.final_norm == "head" else "backbone",
    )


def _assemble_heads(
    settings: Settings,
    pools: Sequence[str],
    data: DataSplits,
    statistics: ChannelStatistics | None,
    policy: devices.DevicePolicy,
    rank: Rank,
    *,
    load_initial_weights: bool,
) -> list[PreparedRun]:
    """Assembles a network for each pooling on one backbone.

    Args:
        settings: With every default filled in.
        pools: Specs of the poolings.
        data: Both splits.
        statistics: For normalization; None for those of the backbone's weights.
        policy: The device.
        rank: This process.
        load_initial_weights: As for `prepare`.
    """
    config = replace(
        _model_config(settings, pretrained=load_initial_weights),
        num_classes=len(data.classes),
        data_size=data.size,
    )
    torch.manual_seed(settings.seed)
    backbone = assemble_backbone(config)
    published = backbone.resolved.item
    mean = published.mean if statistics is None else statistics.mean
    std = published.std if statistics is None else statistics.std
    preprocess = Preprocess(mean=mean, std=std, data_size=data.size, image_size=backbone.image_size).to(policy.device)
    augmentation = augmentation_for(settings, data)
    weights = None
    if settings.class_weights is not None:
        labels = data.labels[data.train_indices]
        weights = class_weights.class_weights(settings.class_weights, labels, data.classes)
    teacher = None
    if settings.distill_from is not None:
        teacher = load_teacher(settings.distill_from, settings.task, data.classes, data.size, policy)
    prepared: list[PreparedRun] = []
    for pool in pools:
        facts = prepared[0].facts if prepared else None
        torch.manual_seed(settings.seed)  # so that a head does not depend on those that were built before it
        assembly = attach_head(backbone, replace(config, pool=pool))
        if settings.weights and load_initial_weights:
            loaded = load_weights(assembly.network, Path(settings.weights), published.classifier)
            assembly = replace(assembly, weights=loaded)
        distributed.convert_sync_batchnorm(assembly.network, rank, policy)
        policy.place(assembly.network)
        prepared.append(
            PreparedRun(
                settings=replace(settings, pool=pool),
                data=data,
                assembly=assembly,
                preprocess=preprocess,
                policy=policy,
                augmentation=augmentation,
                rank=rank,
                facts=facts or BackboneFacts(assembly.network, preprocess, data.size, policy),
                class_weights=weights,
                teacher=teacher,
            )
        )
    _report_input(settings, backbone, data)
    if load_initial_weights and (border := unseen_border(backbone)) is not None:
        output.warn(border.line(settings.backbone))
    for each in prepared:
        _report_weights(each.assembly)
    _freeze(settings, prepared)
    return prepared


def _freeze(settings: Settings, heads: Sequence[PreparedRun]) -> None:
    """Freezes what `--freeze` names, and says so."""
    backbone = heads[0].assembly.backbone.module
    if settings.freeze == "backbone":
        backbone.requires_grad_(False)
        for head in heads:
            if head.assembly.network.norm is not None:  # published with the backbone
                head.assembly.network.norm.requires_grad_(False)
        if not (settings.pretrained or settings.weights):
            output.warn("the frozen backbone has random weights", "add --pretrained or --weights FILE")
    elif settings.freeze_stages is not None:
        names = [stage.name for stage in stages.backbone_stages(backbone)]
        if settings.freeze_stages > len(names):
            text = f"--freeze {settings.freeze}: {settings.backbone} has {len(names)} stages ({', '.join(names)})"
            raise UsageError(text, f"at most stages:{len(names)}, or --freeze backbone")
        frozen = stages.freeze_stages(backbone, settings.freeze_stages)
        trained = ", ".join(names[len(frozen) :]) or "head"
        output.say(f"frozen: {', '.join(frozen)}; trained: {trained}")


def _report_input(settings: Settings, backbone: AssembledBackbone, data: DataSplits) -> None:
    """Says at which size the network sees the images, and whether its weights have seen the data."""
    if backbone.image_size != data.size:
        feature_map = sizes.show((backbone.layout.channels, *backbone.layout.map_size))
        stored = "images of" if data.original_size == data.size else "images stored at"
        output.say(
            f"{stored} {sizes.show(data.size)} are resized to {sizes.show(backbone.image_size)}: "
            f"the feature map is {feature_map}"
        )
    if not output.is_quiet():  # else a trial of a comparison, which says it once a backbone
        seen_images.tell(settings, backbone.resolved, data)


def _report_weights(assembly: Assembly) -> None:
    """Says which weights were loaded, and what was changed in a published head."""
    published, weights = assembly.backbone.published, assembly.weights
    if published.changes:
        output.say(f"published head: {published.line(assembly.norm_place, assembly.out_features)}")
    if weights.source:
        output.say(f"weights: {weights.line()}")
        for what, names in (("fresh", weights.fresh), ("left out of the file", weights.left_out)):
            if names:
                output.detail(f"weights, {what}: {', '.join(names)}")
