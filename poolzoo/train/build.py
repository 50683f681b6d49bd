"""The engine of prepared runs: a loader for what they train on, and a training module for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from poolzoo.common import resources
from poolzoo.common.errors import BATCH_HINT
from poolzoo.train import distributed, features
from poolzoo.train.checkpoint import Checkpoint
from poolzoo.train.engine import Engine
from poolzoo.train.image_batches import batch_loader
from poolzoo.train.loaders import FEATURE_MAP, IMAGES, FeatureLoader, Features, ImageLoader, Loader
from poolzoo.train.prepare import PreparedRun
from poolzoo.train.training_module import TrainingModule


def build_engine(heads: Sequence[PreparedRun], checkpoint: Checkpoint) -> Engine:
    """Builds the engine that trains one network, or several heads on one frozen backbone.

    Args:
        heads: Runs with the same backbone and data.
        checkpoint: Where the state is saved.
    """
    first = heads[0]
    settings, rank = first.settings, first.rank
    assert settings.epochs is not None  # `prepare` fills in every default
    assert settings.batch_size is not None
    stores = None
    if settings.caches_features:
        with distributed.fail_together(rank), distributed.rank_zero_first(rank):
            stores = features.open_features(heads)
    eval_batch_size = min(head.eval_batch_size for head in heads)
    loader: Loader
    if stores is None:
        loader = image_loader(first, settings.batch_size, eval_batch_size, frozen=first.is_backbone_frozen)
    else:
        loader = _feature_loader(first, stores, settings.batch_size, eval_batch_size)
    micro_batch = -(-settings.batch_size // (rank.world_size * settings.grad_accum))
    needed = micro_batch * sum(head.footprint.total for head in heads)
    resources.hold(f"a batch of {micro_batch} images", needed, BATCH_HINT)
    return Engine(
        modules={
            head.settings.pool: _training_module(head, len(loader), features_cached=stores is not None)
            for head in heads
        },
        loader=loader,
        val_labels=first.data.labels[first.data.val_indices],
        epochs=settings.epochs,
        checkpoint=checkpoint,
        rank=rank,
    )


def _training_module(head: PreparedRun, steps_per_epoch: int, *, features_cached: bool) -> TrainingModule:
    """What of a network is trained: all of it, its head, or on pooled vectors its classifier."""
    network = head.assembly.network
    module: nn.Module
    if not head.is_backbone_frozen:
        input_key, module = IMAGES, network
    elif not features_cached or (input_key := features.input_key(head)) == FEATURE_MAP:
        input_key, module = FEATURE_MAP, network.head
    else:
        module = network.behind_pool
    return TrainingModule(
        module=module,
        input_key=input_key,
        settings=head.settings,
        steps_per_epoch=steps_per_epoch,
        policy=head.policy,
        rank=head.rank,
    )


def image_loader(prepared: PreparedRun, batch_size: int, eval_batch_size: int, *, frozen: bool) -> ImageLoader:
    """What serves the images of a run.

    Args:
        prepared: The run.
        batch_size: Images a batch over all processes.
        eval_batch_size: Validation images a batch.
        frozen: Whether the loader runs the backbone and serves feature maps.
    """
    data = prepared.data
    batches = batch_loader(
        prepared,
        batch_size=batch_size,
        augmentation=prepared.augmentation,
        indices=data.train_indices,
        rank=prepared.rank,
    )
    return ImageLoader(
        batches=batches,
        images=data.images,
        val_indices=prepared.rank.shard(data.val_indices),
        preprocess=prepared.preprocess,
        policy=prepared.policy,
        eval_batch_size=eval_batch_size,
        frozen_network=prepared.assembly.network if frozen else None,
    )


def _feature_loader(
    prepared: PreparedRun, stores: Mapping[str, Features], batch_size: int, eval_batch_size: int
) -> FeatureLoader:
    data = prepared.data
    return FeatureLoader(
        stores=stores,
        labels=data.labels,
        train_indices=data.train_indices,
        val_indices=data.val_indices,
        batch_size=batch_size,
        seed=prepared.settings.seed,
        device=prepared.policy.device,
        eval_batch_size=eval_batch_size,
        rank=prepared.rank,
    )
