"""From settings to everything that training needs: data, network, device, and the defaults that depend on them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from poolzoo.common import allocator, output
from poolzoo.common.errors import UsageError
from poolzoo.data import batches, blocks, classes, sizes, source
from poolzoo.data.batches import Augmentation, Rank
from poolzoo.data.identity import DataIdentity
from poolzoo.data.images import fit_array
from poolzoo.data.sizes import Size
from poolzoo.data.unreadable import Broken
from poolzoo.model.assemble import Assembly, assemble_backbone, attach_head, check_names, unseen_border
from poolzoo.model.backbone import AssembledBackbone
from poolzoo.model.config import ModelConfig
from poolzoo.model.network import Preprocess
from poolzoo.model.state_dict import require_weights
from poolzoo.model.weights import load_weights
from poolzoo.plugin import loader, spec
from poolzoo.train import device as devices
from poolzoo.train import distributed, optimizer, stages
from poolzoo.train.footprint import Footprint, evaluated_at_once, measure
from poolzoo.train.settings import Settings, default_batch_size, default_epochs

VALIDATION_SHARE, VALIDATION_MOST = 0.1, 5000  # of the training images, in all
SAMPLED = 1000  # images of the fingerprint that runs of earlier versions keep
Arrays = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Data:
    """Images and labels of both splits, and which of the training images are kept apart to choose the best epoch by.

    Attributes:
        name: What `--data` named.
        images: All training images, `uint8[N, H, W, 3]`, perhaps mapped from a file.
        labels: `int64[N]`.
        chosen: Indices of the images that are learnt from.
        held: Indices of those that choose the best epoch.
        test: Images and labels of the test split.
        classes: Names of the labels.
        flip: Whether a mirrored image keeps its label, as the data set and `--flip` say.
        identity: Of all images and labels, to be kept with a run.
        sums: `int64[N, 3, 2]`, of the training images' channels, as in `Facts`; None where nobody computed them.
        native: Height and width of the images before they were brought to one size; None where they were mixed.
        validation: "val" where the images that choose the best epoch are those of `val/`; else None.
        skipped: Files that could not be read and were left out, each with the reason.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    chosen: np.ndarray
    held: np.ndarray
    test: Arrays
    classes: tuple[str, ...]
    flip: bool
    identity: DataIdentity
    sums: np.ndarray | None = None
    native: tuple[int, int] | None = None
    validation: str | None = None
    skipped: tuple[Broken, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        return self.images.shape[1], self.images.shape[2]

    @cached_property
    def digest(self) -> str:
        """A digest of every training image."""
        digest = hashlib.sha256(repr(self.images.shape).encode())
        digest.update(np.ascontiguousarray(self.identity.splits["train"].digests).data)
        return digest.hexdigest()

    def fingerprint(self) -> str:
        """A digest of all labels and of a thousand images, evenly spaced: what runs of earlier versions go by."""
        digest = hashlib.sha256(repr((self.images.shape, self.classes)).encode())
        digest.update(self.labels.tobytes())
        for part in blocks.parts(self.images[:: max(1, len(self.images) // SAMPLED)]):
            digest.update(np.ascontiguousarray(part).data)
        if self.validation is not None:
            digest.update(f"{self.validation} {len(self.held)}".encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class Prepared:
    """Everything that a run needs, before the first step: complete settings, data, and the network on its device."""

    settings: Settings
    data: Data
    assembly: Assembly
    preprocess: Preprocess
    policy: devices.DevicePolicy
    augmentation: Augmentation
    share: Rank

    @property
    def frozen(self) -> bool:
        return self.settings.freeze == "backbone"

    @cached_property
    def footprint(self) -> Footprint:
        """The memory that an image takes in the network."""
        return measure(self.assembly.network, self.preprocess, self.data.size, self.policy)

    @property
    def at_once(self) -> int:
        """How many images to evaluate at a time."""
        return evaluated_at_once(self.footprint, self.policy)

    @cached_property
    def mapped_at_once(self) -> int:
        """How many images to pass through the backbone at a time, whatever the pooling behind it."""
        network = self.assembly.network
        taken = measure(network, self.preprocess, self.data.size, self.policy, network.forward_map)
        return evaluated_at_once(taken, self.policy)


def prepare(settings: Settings, *, initial: bool = True) -> Prepared:
    """Reads the data, assembles the network and fills in the defaults that depend on them.

    Args:
        settings: What was asked for.
        initial: Whether to fill in initial weights; a run that is resumed has its own.

    Raises:
        PoolzooError: Something that was asked for cannot be; nothing has been written.
    """
    return prepare_heads(settings, [settings.pool], initial=initial)[0]


def prepare_heads(settings: Settings, pools: Sequence[str], *, initial: bool = True) -> list[Prepared]:
    """The same for several poolings behind one backbone, whose module they share; each head is as if it were alone.

    Args:
        settings: What was asked for; of its pooling no notice is taken.
        pools: Specs of the poolings.
        initial: Whether to fill in initial weights.

    Raises:
        PoolzooError: Something that was asked for cannot be; nothing has been written.
    """
    alike = [_pinned(replace(settings, pool=pool)) for pool in pools]
    settings = alike[0]
    learnt = settings.pretrained or settings.weights is not None  # weights from before, published or of a file
    lr = settings.lr or optimizer.default_lr(settings.optimizer, fine=learnt and settings.freeze != "backbone")
    optimizer.require(settings.optimizer)
    for each in alike:
        check_names(_plan(each, initial))  # a misspelt name fails before any data is read
    if settings.weights and initial:
        require_weights(Path(settings.weights))
    policy = devices.policy(settings.device, settings.precision, settings.compile, deterministic=settings.deterministic)
    if policy.device.type == "cpu":
        allocator.keep()
    devices.set_threads(settings.threads)
    share = distributed.join(policy)
    with distributed.agreed(share), distributed.rank_zero_first(share):
        data = read_data(settings)
    distributed.require_alike("the data", data.identity.digest, share)
    with distributed.agreed(share):
        classes.require(data.name, data.classes, data.labels, settings.limit)
        classes.tell_unlearnable(data.classes, data.labels, data.test[1])
        settings = completed(settings, data, policy, lr, share)
    statistics = None if learnt else distributed.from_first(lambda: data_statistics(data), share)
    with distributed.agreed(share):
        return _assembled(settings, data, policy, share, statistics, [each.pool for each in alike], initial=initial)


def _assembled(
    settings: Settings,
    data: Data,
    policy: devices.DevicePolicy,
    share: Rank,
    statistics: tuple[tuple[float, float, float], tuple[float, float, float]] | None,
    pools: Sequence[str],
    *,
    initial: bool,
) -> list[Prepared]:
    """The networks for data that was read, one for each pooling; `statistics` None stands for the backbone's own."""
    plan = replace(_plan(settings, initial), num_classes=len(data.classes), data_size=data.size)
    torch.manual_seed(settings.seed)
    backbone = assemble_backbone(plan)
    mean, std = statistics or (backbone.resolved.item.mean, backbone.resolved.item.std)
    preprocess = Preprocess(mean, std, data.size, backbone.image_size).to(policy.device)
    augmentation = _augmentation(settings, data)
    prepared = []
    for pool in pools:
        torch.manual_seed(settings.seed)  # so that a head starts the same whatever was built before it
        assembly = attach_head(backbone, replace(plan, pool=pool))
        if settings.weights and initial:
            weights = load_weights(assembly.network, Path(settings.weights), backbone.resolved.item.classifier)
            assembly = replace(assembly, weights=weights)
        distributed.synchronized(assembly.network, share, policy)
        policy.place(assembly.network)
        completed = replace(settings, pool=pool)
        prepared.append(Prepared(completed, data, assembly, preprocess, policy, augmentation, share))
    _say_what_is_done(settings, backbone, data)
    if initial and (border := unseen_border(backbone)) is not None:
        output.warn(border.line(settings.backbone))
    for each_head in prepared:
        _say_what_is_loaded(each_head.assembly)
    _freeze(settings, prepared)
    return prepared


def _plan(settings: Settings, initial: bool) -> ModelConfig:
    """The network's plan; the number of classes and the size of the images are known when the data is read."""
    return ModelConfig(
        backbone=settings.backbone,
        pool=settings.pool,
        num_classes=0,
        data_size=(0, 0),
        image_size=settings.input_size,
        local_pool=settings.local_pool,
        stem=settings.stem,
        head=settings.head,
        pretrained=settings.pretrained and initial,
        final_norm="head" if settings.final_norm == "head" else "backbone",
    )


def read_data(settings: Settings) -> Data:
    """Both splits of the data that settings name, limited and divided as they say.

    Raises:
        PoolzooError: The data cannot be read, or not be held in memory.
    """
    seed = settings.seed if settings.split_seed is None else settings.split_seed
    dataset = source.open_dataset(
        *(settings.data, settings.input_size),
        limit=settings.limit,
        seed=seed,
        validation=settings.validation is not None,
        skip=settings.skip_broken,
        how=settings.fit,
    )
    reader = source.reader(dataset)
    everything, test = source.load_split(dataset, "train"), source.load_split(dataset, "test")
    if test[0].shape[1:] != everything[0].shape[1:]:
        raise UsageError(f"training and test images of {settings.data} differ in size", "add --image-size")
    names = source.class_names(dataset, np.concatenate([everything[1], test[1]]))
    if reader is None:
        everything, test = (source.limited(*arrays, settings.limit, seed) for arrays in (everything, test))
        native = (everything[0].shape[1], everything[0].shape[2])
        everything, test = _with_aspect(native, settings.input_size, everything, test)
    else:
        native = reader.native
    validation = "val" if reader is not None and reader.validation else None
    if validation:
        assert reader is not None
        chosen, held = np.split(np.arange(len(everything[1])), [-reader.validation])
    elif settings.validation == "val":
        raise UsageError(f"{settings.data} holds no val/ beside test/", "bring it back, or start another run")
    else:
        chosen, held = validation_part(everything[1], seed)
    facts = {"train": source.facts_about(dataset, "train", everything[0])}
    facts["test"] = source.facts_about(dataset, "test", test[0])
    return Data(
        name=settings.data,
        images=everything[0],
        labels=everything[1],
        chosen=chosen,
        held=held,
        test=test,
        classes=names,
        flip=dataset.flip and settings.flip != "off",  # whoever says off says that a mirrored image is another thing
        identity=DataIdentity.of(facts, {"train": everything[1], "test": test[1]}, names),
        sums=facts["train"].sums,
        native=native,
        validation=validation,
        skipped=tuple(reader.skipped) if reader is not None else (),
    )


def _with_aspect(native: Size, wanted: Size | None, *splits: Arrays) -> Sequence[Arrays]:
    """Images and labels of splits, their center alone where the network sees them at another aspect; says so."""
    if wanted is None or native[0] * wanted[1] == native[1] * wanted[0]:
        return splits  # the network resizes them on the device
    if sentence := sizes.change(native, wanted, overruled=True):
        output.say(sentence)
    return [(fit_array(images, sizes.stored(native, wanted)), labels) for images, labels in splits]


def completed(settings: Settings, data: Data, policy: devices.DevicePolicy, lr: float, share: Rank) -> Settings:
    """The settings with every default filled in."""
    count = len(data.chosen)
    batch_size = _batch_size(settings.batch_size, count, share)
    for what, images in (("to validate on", len(data.held)), ("to test on", len(data.test[1]))):
        if images < share.size:
            text = f"{images} images {what} are too few for {share.size} processes, which need one each"
            raise UsageError(text, f"start at most {images}")
    decay = optimizer.WEIGHT_DECAYS.get(settings.optimizer, 0.0)
    return replace(
        settings,
        epochs=settings.epochs or default_epochs(count),
        batch_size=batch_size,
        lr=lr,
        weight_decay=decay if settings.weight_decay is None else settings.weight_decay,
        threads=torch.get_num_threads(),
        device=policy.device.type if share.size > 1 else str(policy.device),
        shift=min(max(1, min(data.size) // 16), min(data.size) - 1) if settings.shift is None else settings.shift,
        flip=("alternating" if data.flip else "off") if settings.flip == "auto" else settings.flip,
        precision="bfloat16" if policy.autocast is not None else "float32",
        compile="on" if policy.compiled else "off",
        validation=data.validation,
    )


def _batch_size(typed: int | None, count: int, share: Rank) -> int:
    """The batch size over all processes: what was typed or a default, at most all images, the same in each process."""
    if count < share.size:
        asked = f"--batch-size {typed}: " if typed is not None else ""
        text = f"{asked}{count} images to train on are too few for {share.size} processes, which need one each"
        raise UsageError(text, f"start at most {count}")
    if typed is not None and typed <= count and typed % share.size:
        hint = f"such as --batch-size {typed - typed % share.size or share.size}"
        raise UsageError(f"--batch-size {typed} cannot be divided among {share.size} processes", hint)
    batch_size = min(typed or default_batch_size(count), count)
    return max(share.size, batch_size - batch_size % share.size)


def _augmentation(settings: Settings, data: Data) -> Augmentation:
    shift, side = settings.shift or 0, min(data.size)
    for flag, pixels in (("--shift", shift), ("--cutout", settings.cutout)):
        if pixels >= side:
            raise UsageError(f"{flag} {pixels} is too large for images of {side} pixels", f"at most {side - 1}")
    return Augmentation(shift, settings.flip, settings.cutout, settings.mixup, settings.cutmix)  # type: ignore[arg-type]


def _freeze(settings: Settings, heads: Sequence[Prepared]) -> None:
    backbone = heads[0].assembly.backbone
    if settings.freeze == "backbone":
        backbone.module.requires_grad_(False)
        for head in heads:
            if head.assembly.network.norm is not None:  # published with the backbone
                head.assembly.network.norm.requires_grad_(False)
        if not (settings.pretrained or settings.weights):
            output.warn("the frozen backbone has random weights", "add --pretrained or --weights FILE")
    elif settings.freeze_stages is not None:
        found = stages.stages(backbone.module)
        if settings.freeze_stages > len(found):
            names = ", ".join(name for name, _ in found)
            text = f"--freeze {settings.freeze}: {settings.backbone} has {len(found)} stages ({names})"
            raise UsageError(text, f"at most stages:{len(found)}, or --freeze backbone")
        frozen = stages.freeze(backbone.module, settings.freeze_stages)
        output.say(f"frozen: {', '.join(frozen)}; learning: {', '.join(n for n, _ in found[len(frozen) :]) or 'head'}")


def _say_what_is_done(settings: Settings, backbone: AssembledBackbone, data: Data) -> None:
    if backbone.image_size != data.size:
        shape = sizes.show((backbone.layout.channels, *backbone.layout.map_size))
        kept = "images of" if data.native == data.size else "images kept at"
        output.say(f"{kept} {sizes.show(data.size)} are seen at {sizes.show(backbone.image_size)}: the map is {shape}")
    seen = backbone.resolved.item.trained_on
    if settings.pretrained and seen and _same_classes(seen, data):
        output.say(
            f"{settings.backbone} was trained on {seen}'s training images: if these are the same, the validation part "
            "was seen, and only the test figure is worth something"
        )


def _say_what_is_loaded(assembly: Assembly) -> None:
    published, weights = assembly.backbone.published, assembly.weights
    if published.changes:
        output.say(f"published head: {published.line(assembly.norm_place, assembly.out_features)}")
    if weights.source:
        output.say(f"weights: {weights.line()}")
        for what, names in (("fresh", weights.fresh), ("left out of the file", weights.left_out)):
            if names:
                output.detail(f"weights, {what}: {', '.join(names)}")


def _same_classes(name: str, data: Data) -> bool:
    """Whether data has the classes of a known data set, and so may be the same images."""
    try:
        item = loader.catalog().dataset(name).item
    except UsageError:
        return False
    return data.name == name or tuple(getattr(item, "classes", None) or ()) == data.classes


def _pinned(settings: Settings) -> Settings:
    """The settings with names that will mean the same plugin's parts tomorrow, without `--prefer`."""
    catalog = loader.catalog()
    return replace(
        settings,
        backbone=catalog.pinned(settings.backbone, spec.Backbone),
        pool=catalog.pinned(settings.pool, spec.Pooling),
        local_pool=settings.local_pool and catalog.pinned(settings.local_pool, spec.Pooling),
    )


def data_statistics(data: Data) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Channel means and deviations of the images that are learnt from."""
    return batches.statistics(data.images, data.chosen, data.sums)


def validation_part(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the training images in two: those to train on, and a tenth of each class (at most 5,000) to choose by.

    Raises:
        UsageError: There are too few images for both.
    """
    share = min(VALIDATION_SHARE, VALIDATION_MOST / len(labels))
    order = np.random.default_rng(seed).permutation(len(labels))
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        if len(members) > 1:
            held[members[: max(1, round(share * len(members)))]] = True
    if held.sum() == 0 or (~held).sum() < 2:
        raise UsageError(
            f"{len(labels)} training images are too few to train on and to choose by",
            "give at least two a class, or a larger --limit",
        )
    return np.flatnonzero(~held), np.flatnonzero(held)
