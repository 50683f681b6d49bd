"""The engine of prepared runs: a loader for what they train on, and a training module for each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, cast

from torch import nn

from poolzoo.common import resources
from poolzoo.common.errors import BATCH_HINT
from poolzoo.data import blocks
from poolzoo.data.epoch_order import Sampler
from poolzoo.train import distributed, feature_entries, features, losses, teacher_cache
from poolzoo.train.checkpoint import Checkpoint
from poolzoo.train.engine import Engine
from poolzoo.train.footprint import LARGEST_EVAL_BATCH
from poolzoo.train.image_batches import batch_loader
from poolzoo.train.loaders import FEATURE_MAP, IMAGES, FeatureLoader, Features, ImageLoader, Loader
from poolzoo.train.prepare import PreparedRun
from poolzoo.train.settings import Settings
from poolzoo.train.step_plan import StepPlan
from poolzoo.train.stepper import Stepper
from poolzoo.train.time_budget import BudgetClock
from poolzoo.train.training_module import TrainingModule

VALIDATED_BYTES: Final = 8 << 20  # of stored feature maps that are validated on at once


def build_engine(heads: Sequence[PreparedRun], checkpoint: Checkpoint) -> Engine:
    """Builds the engine that trains one network, or several heads on one frozen backbone.

    Args:
        heads: Runs with the same backbone and data.
        checkpoint: Where the state is saved.
    """
    first = heads[0]
    settings, rank = first.settings, first.rank
    assert settings.batch_size is not None  # `prepare` fills in every default
    stores = None
    if settings.caches_features:
        with distributed.fail_together(rank), distributed.rank_zero_first(rank):
            stores = features.open_features(heads)
    teacher_logits = None
    if first.teacher is not None and teacher_cache.shows_same_images(first):
        with distributed.fail_together(rank), distributed.rank_zero_first(rank):
            teacher_logits = teacher_cache.open_logits(first)
    loader: Loader
    if stores is None:
        eval_batch_size = min(head.eval_batch_size for head in heads)
        loader = image_loader(
            first, settings.batch_size, eval_batch_size, teacher_logits, frozen=first.is_backbone_frozen
        )
    else:
        loader = _feature_loader(first, stores, settings.batch_size, teacher_logits)
    micro_batch = -(-settings.batch_size // (rank.world_size * settings.grad_accum))
    needed = micro_batch * sum((head.footprint if stores is None else head.head_footprint).total for head in heads)
    resources.hold(f"a batch of {micro_batch} images", needed, BATCH_HINT)
    plan = _plan(settings, len(loader))
    budget = settings.budget_seconds
    provisional = plan or StepPlan.of(len(loader))  # until the clock has measured some steps
    return Engine(
        modules={
            head.settings.pool: _training_module(head, provisional, features_cached=stores is not None)
            for head in heads
        },
        loader=loader,
        val_labels=first.data.labels[first.data.val_indices],
        plan=plan,
        checkpoint=checkpoint,
        rank=rank,
        clock=None if budget is None else BudgetClock(budget, len(loader), rank),
        stepper=Stepper(threads=_threads(first, len(heads))) if stores is not None else None,
    )


def _threads(first: PreparedRun, heads: int) -> int:
    """How many heads on stored features are trained at the same time."""
    alone = first.policy.device.type != "cpu" or first.rank.is_distributed or first.policy.compiled
    return 1 if alone else min(heads, first.settings.threads or 1)


def _plan(settings: Settings, steps_per_epoch: int) -> StepPlan | None:
    """The steps of a run; None where they depend on the clock."""
    if settings.epochs is not None:
        return StepPlan.of(settings.epochs * steps_per_epoch)
    return StepPlan.parse(settings.steps) if settings.steps is not None and settings.time_budget is None else None


def _training_module(head: PreparedRun, plan: StepPlan, *, features_cached: bool) -> TrainingModule:
    """What of a network is trained: all of it, its head, or on pooled vectors its classifier."""
    network = head.assembly.network
    input_key, module = IMAGES, cast(nn.Module, network)
    if head.is_backbone_frozen:
        input_key, module = FEATURE_MAP, network.head
    if features_cached:
        input_key = feature_entries.input_key(head)
        module = feature_entries.behind(head, input_key)
    return TrainingModule(
        module=module,
        input_key=input_key,
        objective=losses.objective(head.settings, head.class_weights, head.policy.device),
        settings=head.settings,
        plan=plan,
        policy=head.policy,
        rank=head.rank,
        draws=True if head.assembly.pool.item.stochastic else None,
    )


def image_loader(
    prepared: PreparedRun,
    batch_size: int,
    eval_batch_size: int,
    teacher_logits: Features | None = None,
    *,
    frozen: bool,
) -> ImageLoader:
    """What serves the images of a run.

    Args:
        prepared: The run.
        batch_size: Images a batch over all processes.
        eval_batch_size: Validation images a batch.
        teacher_logits: Of all training images, computed in advance; None to compute them, or without a teacher.
        frozen: Whether the loader runs the backbone and serves feature maps.
    """
    data = prepared.data
    batches = batch_loader(
        prepared,
        batch_size=batch_size,
        augmentation=prepared.augmentation,
        indices=data.train_indices,
        rank=prepared.rank,
        sampler=cast(Sampler, prepared.settings.sampler),
    )
    return ImageLoader(
        batches=batches,
        images=data.images,
        val_indices=prepared.rank.shard(data.val_indices),
        preprocess=prepared.preprocess,
        policy=prepared.policy,
        eval_batch_size=eval_batch_size,
        frozen_network=prepared.inference_network if frozen else None,
        teacher=prepared.teacher,
        teacher_logits=teacher_logits,
    )


def _feature_loader(
    prepared: PreparedRun,
    stores: Mapping[str, Features],
    batch_size: int,
    teacher_logits: Features | None,
) -> FeatureLoader:
    data = prepared.data
    map_bytes = 4 * prepared.assembly.layout.channels * math.prod(prepared.assembly.layout.map_size)
    return FeatureLoader(
        stores=stores,
        labels=data.labels,
        train_indices=data.train_indices,
        val_indices=data.val_indices,
        batch_size=batch_size,
        seed=prepared.settings.seed,
        device=prepared.policy.device,
        eval_batch_size=min(LARGEST_EVAL_BATCH, blocks.rows(map_bytes, VALIDATED_BYTES)),  # for any set of heads
        rank=prepared.rank,
        sampler=cast(Sampler, prepared.settings.sampler),
        teacher_logits=teacher_logits,
    )
