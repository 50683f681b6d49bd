"""`finetune --dry-run`: the assembled network and the settings of its training, without training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Final

from poolzoo.common import output
from poolzoo.data import sizes
from poolzoo.data.augment.augmentation import Augmentation
from poolzoo.data.sizes import Size
from poolzoo.metrics.tasks import TASKS
from poolzoo.model.accounting import AccountingJson
from poolzoo.model.cost import parameters_and_macs
from poolzoo.model.published import PublishedHeadJson
from poolzoo.train import features
from poolzoo.train.prepare import PreparedRun, prepare
from poolzoo.train.settings import Settings
from poolzoo.train.step_plan import StepPlan

LABEL_WIDTH: Final = 11  # of the longest label in the list


@dataclass(frozen=True)
class SplitSizes:
    """Number of images to train on, to validate on and to test on."""

    train: int
    val: int
    test: int


@dataclass(frozen=True)
class DryRun:
    """What a run would be.

    Attributes:
        settings: With every default filled in.
        original_size: Size of the images before resizing; None if they have several sizes.
        data_size: Size at which they are stored.
        input_size: Size at which the network sees them.
        stem_changes: What was changed in the backbone's stem.
        replaced: Names of the layers that a local pooling replaces.
        layout: Kind of the backbone's output.
        feature_map: Channels, height and width of the feature map.
        out_features: Width of the pooled vector.
        published_head: What became of the published network's last layers, as JSON.
        weights: Where the initial weights come from, as JSON.
        classes: Names of the classes.
        parameters: Number of parameters.
        trainable: Number of parameters that are trained.
        macs: Multiply–accumulate operations for one image.
        images: Number of images.
        augmentation: Random changes of the training images.
        features: What the feature cache would hold; None without it.
        steps_per_epoch: Steps an epoch.
        device: The device.
    """

    settings: Settings
    original_size: Size | None
    data_size: Size
    input_size: Size
    stem_changes: tuple[str, ...]
    replaced: tuple[str, ...]
    layout: str
    feature_map: tuple[int, int, int]
    out_features: int
    published_head: PublishedHeadJson
    weights: AccountingJson
    classes: tuple[str, ...]
    parameters: int
    trainable: int
    macs: int
    images: SplitSizes
    augmentation: Augmentation
    features: str | None
    steps_per_epoch: int
    device: str

    @classmethod
    def of(cls, prepared: PreparedRun) -> DryRun:
        """What a dry run shows of a prepared run; measures its network."""
        assembly, settings, data = prepared.assembly, prepared.settings, prepared.data
        assert settings.batch_size is not None  # `prepare` fills in every default
        parameters, macs = parameters_and_macs(assembly)
        height, width = assembly.layout.map_size
        return cls(
            settings=settings,
            original_size=data.original_size,
            data_size=data.size,
            input_size=assembly.image_size,
            stem_changes=tuple(assembly.backbone.stem_changes),
            replaced=tuple(assembly.backbone.replaced),
            layout=assembly.layout.kind,
            feature_map=(assembly.layout.channels, height, width),
            out_features=assembly.out_features,
            published_head=assembly.backbone.published.to_json(assembly.norm_place, assembly.out_features),
            weights=assembly.weights.to_json(),
            classes=data.classes,
            parameters=parameters,
            trainable=sum(p.numel() for p in assembly.network.parameters() if p.requires_grad),
            macs=macs,
            images=SplitSizes(train=len(data.train_indices), val=len(data.val_indices), test=len(data.test.labels)),
            augmentation=prepared.augmentation,
            features=features.cache_note(prepared) if settings.caches_features else None,
            steps_per_epoch=len(data.train_indices) // settings.batch_size,
            device=str(prepared.policy.device),
        )

    def to_json(self) -> dict[str, object]:
        """The object that `poolzoo finetune --dry-run --json` prints."""
        settings = self.settings
        return {
            "task": settings.task,
            "backbone": settings.backbone,
            "files": None if self.original_size is None else list(self.original_size),
            "image": list(self.data_size),
            "input": list(self.input_size),
            "stem": list(self.stem_changes),
            "local_pool": {"name": settings.local_pool, "replaced": list(self.replaced)},
            "layout": self.layout,
            "map": list(self.feature_map),
            "pool": settings.pool,
            "pooled": self.out_features,
            "published_head": self.published_head,
            "weights": self.weights,
            "head": settings.head,
            "classes": list(self.classes),
            "parameters": self.parameters,
            "trainable": self.trainable,
            "macs": self.macs,
            "images": asdict(self.images),
            "augmentation": asdict(self.augmentation),
            "features": self.features,
            "epochs": settings.epochs,
            "batch_size": settings.batch_size,
            "steps_per_epoch": self.steps_per_epoch,
            "time_budget": settings.time_budget,
            "patience": settings.patience,
            "loss": {
                "name": settings.loss,
                "label_smoothing": settings.label_smoothing,
                "class_weights": settings.class_weights,
                "sampler": settings.sampler,
            },
            "teacher": settings.distill_from,
            "optimizer": {"name": settings.optimizer, "lr": settings.lr, "weight_decay": settings.weight_decay},
            "device": self.device,
            "threads": settings.threads,
        }

    def lines(self) -> Iterator[tuple[str, str]]:
        """What is shown, as labels and texts."""
        settings, images = self.settings, self.images
        yield "images", self._sizes()
        if self.stem_changes:
            yield "stem", "; ".join(self.stem_changes)
        if settings.local_pool:
            yield "local pool", f"{settings.local_pool} in place of {', '.join(self.replaced)}"
        yield "feature map", f"{sizes.show(self.feature_map)} ({self.layout})"
        yield "pool", f"{settings.pool}, {self.out_features} features"
        if self.published_head["changes"]:
            yield "published", self.published_head["text"]
        yield "weights", self.weights["text"]
        several = TASKS[settings.task].is_multilabel
        yield "head", f"{settings.head}, {len(self.classes)} {'independent labels' if several else 'classes'}"
        yield "parameters", f"{self.parameters:,}, {self.trainable:,} of them trained"
        yield "MACs", f"{self.macs / 1e6:.1f} million an image"
        yield "data", f"{images.train} images to train on, {images.val} to validate on, {images.test} to test on"
        level, changes = settings.augment, self.augmentation.changes()
        yield "augmented", f"{level}: {', '.join(changes) or 'nothing'}"
        if self.features:
            yield "features", self.features
        yield "training", f"{self._length()} of {self.steps_per_epoch} steps of {settings.batch_size} images"
        rates = f"learning rate {settings.lr:g}, weight decay {settings.weight_decay:g}"
        yield "loss", self._loss()
        yield "optimizer", f"{settings.optimizer}, {rates}"
        yield "device", f"{self.device}, {settings.threads} threads"

    def _length(self) -> str:
        """How long training takes, in words."""
        settings = self.settings
        patience = "" if settings.patience is None else f", at most {settings.patience} without a better validation,"
        if settings.epochs is not None:
            return f"{settings.epochs} epochs{patience}"
        if settings.time_budget is not None:
            return f"as many epochs as {settings.time_budget} allow{patience}"
        steps = StepPlan.parse(settings.steps or "").total
        return f"{steps:,} steps, as fitted to a time budget{patience}, in epochs"

    def _loss(self) -> str:
        """The loss, and which images and classes count more in it, in words."""
        settings = self.settings
        parts = [settings.loss, f"label smoothing {settings.label_smoothing:g}"]
        if settings.class_weights is not None:
            parts.append(f"class weights {settings.class_weights}")
        if settings.sampler != "all":
            parts.append(f"sampler {settings.sampler}")
        if settings.distill_from is not None:
            parts.append(
                f"teacher {settings.distill_from} (temperature {settings.distill_temperature:g}, weight "
                f"{settings.distill_weight:g})"
            )
        return ", ".join(parts)

    def _sizes(self) -> str:
        """The size of the files, what resizing and cropping make of it, and the size that the network sees."""
        original, stored, seen = self.original_size, self.data_size, self.input_size
        if original == stored == seen:
            return f"{sizes.show(stored)}, unchanged"
        parts = ["of mixed sizes" if original is None else sizes.show(original)]
        if original != stored:
            is_cropped = original is None or sizes.cut(original, stored)[1] >= sizes.MIN_CUT
            is_resized = original is None or (original[0] != stored[0] and original[1] != stored[1])
            changes = ["resized"] * is_resized + ["center-cropped"] * is_cropped
            parts.append(f"{' and '.join(changes)} to {sizes.show(stored)}")
        if stored != seen:
            parts.append(f"the network sees {sizes.show(seen)}")
        return ", ".join(parts)


def show(settings: Settings, as_json: bool) -> None:
    """Prints the network and the settings of a run, without training.

    Args:
        settings: As the user gave them.
        as_json: Whether to print JSON.

    Raises:
        PoolzooError: The settings cannot be fulfilled.
    """
    prepared = prepare(settings)
    shown = DryRun.of(prepared)
    if as_json:
        output.emit_json(shown.to_json())
        return
    network = prepared.assembly.network
    children = [(f"backbone.{name}", child) for name, child in network.backbone.named_children()]
    norm = [("norm", network.norm)] if network.norm is not None else []
    children += [("pool", network.pool), *norm, ("classifier", network.classifier)]
    rows = [(name, type(child).__name__, f"{sum(p.numel() for p in child.parameters()):,}") for name, child in children]
    output.table(("layer", "type", "parameters"), rows, right=(2,))
    for label, text in shown.lines():
        output.data(f"{label:{LABEL_WIDTH}} {text}")
