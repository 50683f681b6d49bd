"""From settings to everything that training needs: data, network, device, and the defaults that depend on them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from poolzoo import host, output, spec
from poolzoo.assemble import Assembly, Body, Plan, Preprocess, attach_head, build_body, resolve
from poolzoo.data import batches, classes, source
from poolzoo.data.batches import Augmentation, Share
from poolzoo.errors import UsageError
from poolzoo.train import device as devices
from poolzoo.train import group, memory, optimiser, stages
from poolzoo.train.settings import Settings, default_batch_size, default_epochs
from poolzoo.weights import load_weights, require_weights

VALIDATION_SHARE, VALIDATION_MOST = 0.1, 5000  # of the training images, in all
SAMPLED = 1000  # images that tell whether data is the same; their labels are all compared
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
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    chosen: np.ndarray
    held: np.ndarray
    test: Arrays
    classes: tuple[str, ...]
    flip: bool

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        return self.images.shape[1], self.images.shape[2]

    @cached_property
    def digest(self) -> str:
        """A digest of every training image."""
        digest = hashlib.sha256(repr(self.images.shape).encode())
        for start in range(0, len(self.images), 4096):
            digest.update(np.ascontiguousarray(self.images[start : start + 4096]).data)
        return digest.hexdigest()

    def fingerprint(self) -> str:
        """A digest of all labels and of a thousand images, evenly spaced: quick to compute, equal for equal data."""
        digest = hashlib.sha256(repr((self.images.shape, self.classes)).encode())
        digest.update(self.labels.tobytes())
        digest.update(np.ascontiguousarray(self.images[:: max(1, len(self.images) // SAMPLED)]).data)
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
    share: Share

    @property
    def frozen(self) -> bool:
        return self.settings.freeze == "backbone"


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
    lr = settings.lr or optimiser.default_lr(settings.optimizer, fine=learnt and settings.freeze != "backbone")
    optimiser.require(settings.optimizer)
    for each in alike:
        resolve(_plan(each, initial))  # a misspelt name fails before any data is read
    if settings.weights and initial:
        require_weights(Path(settings.weights))
    policy = devices.policy(settings.device, settings.precision, settings.compile, deterministic=settings.deterministic)
    if policy.device.type == "cpu":
        memory.keep()
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)

    share = group.join(policy)
    with group.first_alone(share):
        data = _read(settings)
    try:
        classes.require(data.name, data.classes, data.labels, settings.limit)
    except UsageError:
        group.speak_once(share)
        raise
    classes.tell_unlearnable(data.classes, data.labels, data.test[1])
    settings = _completed(settings, data, policy, lr, share)
    plan = replace(_plan(settings, initial), num_classes=len(data.classes), data_size=data.size)
    torch.manual_seed(settings.seed)
    body = build_body(plan)
    mean, std = (body.backbone.item.mean, body.backbone.item.std) if learnt else data_statistics(data)
    preprocess = Preprocess(mean, std, data.size, body.image_size).to(policy.device)
    augmentation = _augmentation(settings, data)
    prepared = []
    for each in alike:
        torch.manual_seed(settings.seed)  # so that a head starts the same whatever was built before it
        assembly = attach_head(body, replace(plan, pool=each.pool))
        if settings.weights and initial:
            load_weights(assembly.network, Path(settings.weights), body.backbone.item.classifier)
        group.synchronised(assembly.network, share, policy)
        policy.place(assembly.network)
        completed = replace(settings, pool=each.pool)
        prepared.append(Prepared(completed, data, assembly, preprocess, policy, augmentation, share))
    _say_what_is_done(settings, body, data)
    _freeze(settings, body)
    return prepared


def _plan(settings: Settings, initial: bool) -> Plan:
    """The network's plan; the number of classes and the size of the images are known when the data is read."""
    return Plan(
        backbone=settings.backbone,
        pool=settings.pool,
        num_classes=0,
        data_size=(0, 0),
        image_size=(settings.image_size, settings.image_size) if settings.image_size else None,
        local_pool=settings.local_pool,
        stem=settings.stem,
        head=settings.head,
        pretrained=settings.pretrained and initial,
    )


def _read(settings: Settings) -> Data:
    size = (settings.image_size, settings.image_size) if settings.image_size else None
    seed = settings.seed if settings.split_seed is None else settings.split_seed
    dataset = source.open_dataset(settings.data, size, limit=settings.limit, seed=seed)
    everything, test = source.load_split(dataset, "train"), source.load_split(dataset, "test")
    if test[0].shape[1:] != everything[0].shape[1:]:
        raise UsageError(f"training and test images of {settings.data} differ in size", "add --image-size")
    names = source.class_names(dataset, np.concatenate([everything[1], test[1]]))
    everything, test = (source.limited(*arrays, settings.limit, seed) for arrays in (everything, test))
    chosen, held = validation_part(everything[1], seed)
    flip = dataset.flip and settings.flip != "off"  # whoever says off says that a mirrored image is another thing
    return Data(settings.data, *everything, chosen, held, test, names, flip)


def _completed(settings: Settings, data: Data, policy: devices.DevicePolicy, lr: float, share: Share) -> Settings:
    """The settings with every default filled in."""
    count = len(data.chosen)
    batch_size = min(settings.batch_size or default_batch_size(count), count)
    if batch_size % share.size:
        if settings.batch_size:
            hint = f"such as --batch-size {batch_size - batch_size % share.size or share.size}"
            raise UsageError(f"--batch-size {batch_size} cannot be divided among {share.size} processes", hint)
        batch_size = max(share.size, batch_size - batch_size % share.size)
    if min(len(data.held), len(data.test[1])) < share.size:
        raise UsageError(f"{len(data.held)} validation images are too few for {share.size} processes", "start fewer")
    decay = optimiser.WEIGHT_DECAYS.get(settings.optimizer, 0.0)
    return replace(
        settings,
        epochs=settings.epochs or default_epochs(count),
        batch_size=batch_size,
        lr=lr,
        weight_decay=decay if settings.weight_decay is None else settings.weight_decay,
        threads=torch.get_num_threads(),
        device=policy.device.type if share.size > 1 else str(policy.device),
        shift=max(1, min(data.size) // 16) if settings.shift is None else settings.shift,
        flip=("alternating" if data.flip else "off") if settings.flip == "auto" else settings.flip,
        precision="bfloat16" if policy.autocast is not None else "float32",
        compile="on" if policy.compiled else "off",
    )


def _augmentation(settings: Settings, data: Data) -> Augmentation:
    shift, side = settings.shift or 0, min(data.size)
    if shift >= side or settings.cutout >= side:
        raise UsageError(f"--shift {shift} or --cutout {settings.cutout} is too large for {side} pixels", "use less")
    return Augmentation(shift, settings.flip, settings.cutout, settings.mixup, settings.cutmix)  # type: ignore[arg-type]


def _freeze(settings: Settings, body: Body) -> None:
    if settings.freeze == "backbone":
        body.module.requires_grad_(False)
        if not (settings.pretrained or settings.weights):
            output.warn("the frozen backbone has random weights", "add --pretrained or --weights FILE")
    elif settings.freeze_stages is not None:
        found = stages.stages(body.module)
        if settings.freeze_stages > len(found):
            names = ", ".join(name for name, _ in found)
            text = f"--freeze {settings.freeze}: {settings.backbone} has {len(found)} stages ({names})"
            raise UsageError(text, f"at most stages:{len(found)}, or --freeze backbone")
        frozen = stages.freeze(body.module, settings.freeze_stages)
        output.say(f"frozen: {', '.join(frozen)}; learning: {', '.join(n for n, _ in found[len(frozen) :]) or 'head'}")


def _say_what_is_done(settings: Settings, body: Body, data: Data) -> None:
    if body.image_size != data.size:
        (height, width), (rows, columns), layout = data.size, body.image_size, body.layout
        shape = "×".join(map(str, (layout.channels, *layout.map_size)))
        output.say(f"images of {width}×{height} are seen at {columns}×{rows}: the map is {shape}")
    seen = body.backbone.item.trained_on
    if settings.pretrained and seen and _same_classes(seen, data):
        output.say(
            f"{settings.backbone} was trained on {seen}'s training images: if these are the same, the validation part "
            "was seen, and only the test figure is worth something"
        )


def _same_classes(name: str, data: Data) -> bool:
    """Whether data has the classes of a known data set, and so may be the same images."""
    try:
        item = host.catalog().dataset(name).item
    except UsageError:
        return False
    return data.name == name or tuple(getattr(item, "classes", None) or ()) == data.classes


def _pinned(settings: Settings) -> Settings:
    """The settings with names that will mean the same plugin's parts tomorrow, without `--prefer`."""
    catalog = host.catalog()
    return replace(
        settings,
        backbone=catalog.pinned(settings.backbone, spec.Backbone),
        pool=catalog.pinned(settings.pool, spec.Pooling),
        local_pool=settings.local_pool and catalog.pinned(settings.local_pool, spec.Pooling),
    )


def data_statistics(data: Data) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Channel means and deviations of the images that are learnt from."""
    return batches.statistics(data.images, data.chosen)


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
