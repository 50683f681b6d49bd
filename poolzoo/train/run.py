"""One fine-tuning from its settings to a finished run directory, resumable after every epoch."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from poolzoo import bundle, host, metrics, output, runs, spec
from poolzoo.assemble import Assembly, Plan, Preprocess, assemble, resolve
from poolzoo.data import batches, source
from poolzoo.errors import CheckFailed, UsageError
from poolzoo.train import device as devices
from poolzoo.train import loop, memory, optimiser
from poolzoo.train.settings import Settings, default_batch_size, default_epochs
from poolzoo.weights import load_weights, require_weights

VALIDATION_SHARE, VALIDATION_MOST = 0.1, 5000  # of the training images, in all
CHECKPOINT = Path("checkpoint", "state.pt")
Arrays = tuple[np.ndarray, np.ndarray]
Note = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Prepared:
    """Everything that a run needs, before the first step: complete settings, data, and the network on its device."""

    settings: Settings
    classes: tuple[str, ...]
    train: Arrays
    val: Arrays
    test: Arrays
    assembly: Assembly
    preprocess: Preprocess
    policy: devices.DevicePolicy
    augmentation: batches.Augmentation

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
    if settings.freeze not in ("none", "backbone"):
        raise UsageError(f"--freeze {settings.freeze!r} is neither backbone nor none", "choose one of them")
    if settings.schedule not in ("linear", "cosine"):
        raise UsageError(f"--schedule {settings.schedule!r} is neither linear nor cosine", "choose one of them")
    settings = _pinned(settings)
    learnt = settings.pretrained or settings.weights is not None  # weights from before, published or of a file
    lr = optimiser.default_lr(settings.optimizer, fine=learnt and settings.freeze != "backbone")
    plan = Plan(
        backbone=settings.backbone,
        pool=settings.pool,
        num_classes=0,  # known when the data is read, as is the size of its images
        data_size=(0, 0),
        image_size=(settings.image_size, settings.image_size) if settings.image_size else None,
        local_pool=settings.local_pool,
        stem=settings.stem,
        head=settings.head,
        pretrained=settings.pretrained and initial,
    )
    resolve(plan)  # a misspelt name fails before any data is read
    if settings.weights and initial:
        require_weights(Path(settings.weights))
    policy = devices.policy(settings.device)
    if policy.device.type == "cpu":
        memory.keep()
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)

    dataset = source.open_dataset(settings.data, plan.image_size, limit=settings.limit, seed=settings.seed)
    everything, test = source.load_split(dataset, "train"), source.load_split(dataset, "test")
    if test[0].shape[1:] != everything[0].shape[1:]:
        raise UsageError(f"training and test images of {settings.data} differ in size", "add --image-size")
    classes = source.class_names(dataset, np.concatenate([everything[1], test[1]]))
    everything, test = (source.limited(*arrays, settings.limit, settings.seed) for arrays in (everything, test))
    train, val = _validation_part(everything, settings.seed)
    data_size = (train[0].shape[1], train[0].shape[2])

    torch.manual_seed(settings.seed)
    assembly = assemble(replace(plan, num_classes=len(classes), data_size=data_size))
    if assembly.upscaled:
        (height, width), (rows, columns), layout = data_size, assembly.image_size, assembly.layout
        shape = "×".join(map(str, (layout.channels, *layout.map_size)))
        output.say(f"images of {width}×{height} are seen at {columns}×{rows}: the map is {shape}")
    if settings.weights and initial:
        load_weights(assembly.network, Path(settings.weights), assembly.backbone.item.classifier)
    if settings.freeze == "backbone":
        assembly.network.backbone.requires_grad_(False)
    policy.place(assembly.network)
    item = assembly.backbone.item
    mean, std = (item.mean, item.std) if learnt else batches.statistics(train[0])
    preprocess = Preprocess(mean, std, data_size, assembly.image_size).to(policy.device)
    decay = settings.weight_decay
    settings = replace(
        settings,
        epochs=settings.epochs or default_epochs(len(train[0])),
        batch_size=min(settings.batch_size or default_batch_size(len(train[0])), len(train[0])),
        lr=settings.lr or lr,
        weight_decay=optimiser.WEIGHT_DECAYS[settings.optimizer] if decay is None else decay,
        threads=torch.get_num_threads(),
        device=str(policy.device),
    )
    augmentation = batches.Augmentation(shift=max(1, min(data_size) // 16), flip=dataset.flip)
    return Prepared(settings, classes, train, val, test, assembly, preprocess, policy, augmentation)


def _pinned(settings: Settings) -> Settings:
    """The settings with names that will mean the same plugin's parts tomorrow, without `--prefer`."""
    catalog = host.catalog()
    return replace(
        settings,
        backbone=catalog.pinned(settings.backbone, spec.Backbone),
        pool=catalog.pinned(settings.pool, spec.Pooling),
        local_pool=settings.local_pool and catalog.pinned(settings.local_pool, spec.Pooling),
    )


def _validation_part(arrays: Arrays, seed: int) -> tuple[Arrays, Arrays]:
    """The training images in two: those to train on, and a tenth of each class (5,000 in all at most) to choose by.

    Raises:
        UsageError: There are too few images for both.
    """
    images, labels = arrays
    share = min(VALIDATION_SHARE, VALIDATION_MOST / len(images))
    order = np.random.default_rng(seed).permutation(len(images))
    held = np.zeros(len(images), bool)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        if len(members) > 1:
            held[members[: max(1, round(share * len(members)))]] = True
    if held.sum() == 0 or (~held).sum() < 2:
        raise UsageError(
            f"{len(images)} training images are too few to train on and to choose by",
            "give at least two a class, or a larger --limit",
        )
    return (images[~held], labels[~held]), (images[held], labels[held])


@dataclass
class State:
    """What changes from epoch to epoch, and what a resumed run needs to go on as if nothing had happened."""

    epoch: int
    best_epoch: int
    best_accuracy: float
    best_weights: dict[str, Tensor]
    seconds: float

    def save(self, path: Path, network: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        import io

        buffer = io.BytesIO()
        state = {**self.__dict__, "network": network.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save(state, buffer)
        path.parent.mkdir(exist_ok=True)
        bundle.write_atomically(path, buffer.getvalue())


def finetune(
    settings: Settings, out: Path | None, note: Note | None = None, before: Callable[[Prepared], None] | None = None
) -> dict[str, Any]:
    """Trains a network and leaves a finished run behind.

    Args:
        settings: What to train on what, and how.
        out: The run directory, which must not exist; None for a new one under `runs/`.
        note: Called with the line of every finished epoch.
        before: Called when all is ready and nothing is written yet; what it raises ends the matter.

    Returns:
        `{"run", "test", "val", "seconds", "images_per_s"}`, as `finetune --json` ends with.
    """
    if out is not None:
        bundle.require_free(out)
    prepared = prepare(settings)
    if not settings.pretrained and settings.weights is None:
        output.say("training from scratch; --pretrained or --weights FILE start from weights")
    if before is not None:
        before(prepared)
    path = out or runs.new_path(Path("runs"), settings.backbone, settings.pool)
    path.mkdir(parents=True)
    try:
        bundle.write_atomically(path / "run.toml", prepared.settings.to_toml())
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise
    return _run(prepared, path, note, fresh=True)


def resume(path: Path, note: Note | None = None) -> dict[str, Any]:
    """Goes on with a run that was interrupted, from its last finished epoch.

    Raises:
        UsageError: There is no run, or it is finished.
    """
    from poolzoo.train.settings import read_toml

    if not (path / "run.toml").is_file():
        raise UsageError(f"{path} is no run: it has no run.toml", "give the directory of an interrupted run")
    if (path / bundle.MANIFEST).is_file():
        raise UsageError(f"run {path} is finished", f"poolzoo evaluate {path}, or poolzoo export {path}")
    settings = Settings(**read_toml(path / "run.toml"))
    host.settings.files = list(dict.fromkeys([*host.settings.files, *map(Path, settings.plugins)]))
    return _run(prepare(settings, initial=not (path / CHECKPOINT).is_file()), path, note, fresh=False)


def _run(prepared: Prepared, path: Path, note: Note | None, *, fresh: bool) -> dict[str, Any]:
    begun = (path / CHECKPOINT).is_file
    try:
        return _train(prepared, path, note)
    except KeyboardInterrupt as stop:
        where = "goes on after the last finished epoch" if begun() else "starts it again"
        stop.args = (f"poolzoo finetune --resume {path} {where}",)
        raise
    except BrokenPipeError:
        raise CheckFailed("nobody reads stdout any more", f"poolzoo finetune --resume {path}") from None
    except BaseException:
        if fresh and not begun():  # there is nothing in it that could be resumed
            shutil.rmtree(path, ignore_errors=True)
        raise


def _train(prepared: Prepared, path: Path, note: Note | None) -> dict[str, Any]:
    settings, policy, network = prepared.settings, prepared.policy, prepared.assembly.network
    assert settings.epochs is not None  # `prepare` has filled in every default
    assert settings.batch_size is not None
    assert settings.lr is not None
    assert settings.weight_decay is not None
    event = {"path": str(path), "settings": runs.as_dict(settings)}
    catalog = host.catalog()
    served = batches.Batches(*prepared.train, settings.batch_size, prepared.augmentation, settings.seed, policy.device)
    optimizer = optimiser.build(settings.optimizer, network, settings.lr, settings.weight_decay)
    total = settings.epochs * len(served)
    schedule = loop.Schedule(settings.lr, total, max(1, round(settings.warmup * total)), settings.schedule)
    checkpoint = path / CHECKPOINT
    state = _restore(checkpoint, network, optimizer) or State(0, 0, -1.0, {}, 0.0)
    metrics_file = path / "metrics.jsonl"
    lines = metrics_file.read_text().splitlines()[: state.epoch] if metrics_file.is_file() else []
    catalog.announce("poolzoo_run_started", run=event)
    with output.progress("training", total) as bar:
        for epoch in range(state.epoch + 1, settings.epochs + 1):
            torch.manual_seed(settings.seed * 1_000_003 + epoch)  # for what is random in the network itself
            loop.set_training_mode(network, prepared.frozen)
            result = loop.train_epoch(
                network, prepared.preprocess, served, optimizer, schedule, epoch, policy, settings.label_smoothing, bar
            )
            if not math.isfinite(result.loss):
                hint = f"try a smaller --lr than {settings.lr:g}"
                raise CheckFailed(f"the loss is {result.loss} in epoch {epoch}", hint)
            line = _judge(prepared, state, epoch, result)
            bar.update(epoch * len(served), f"loss {result.loss:.3f}  acc {result.accuracy:.3f}")
            lines.append(json.dumps(line))
            bundle.write_atomically(metrics_file, "\n".join(lines) + "\n")  # first: resuming cuts what is too much
            state.save(checkpoint, network, optimizer)
            output.say(
                f"epoch {epoch}/{settings.epochs}  loss {line['loss']:.3f}  accuracy {line['train_accuracy']:.3f}  "
                f"validation {line['val_accuracy']:.3f}  {line['images_per_s']:.0f} images/s"
            )
            if note is not None:
                note(line)
            catalog.announce("poolzoo_epoch_finished", run=event, epoch=epoch, metrics=line)
    network.load_state_dict(state.best_weights)
    report = _finish(prepared, path, state, len(served) * served.batch_size)
    catalog.announce("poolzoo_run_finished", run=event, metrics=report)
    return report


def _judge(prepared: Prepared, state: State, epoch: int, result: loop.EpochResult) -> dict[str, Any]:
    """Measures an epoch's network on the validation part, keeps it if it is the best, and gives the epoch's line."""
    network = prepared.assembly.network
    logits = metrics.predict_logits(network, prepared.preprocess, prepared.val[0], prepared.policy, label="")
    accuracy = metrics.accuracy(logits, prepared.val[1])
    state.epoch, state.seconds = epoch, state.seconds + result.seconds
    if accuracy > state.best_accuracy:
        state.best_epoch, state.best_accuracy = epoch, accuracy
        state.best_weights = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    return {
        "epoch": epoch,
        "loss": result.loss,
        "train_accuracy": result.accuracy,
        "val_accuracy": accuracy,
        "seconds": round(result.seconds, 3),
        "images_per_s": round(result.images / result.seconds, 1),
    }


def _restore(path: Path, network: torch.nn.Module, optimizer: torch.optim.Optimizer) -> State | None:
    if not path.is_file():
        return None
    try:
        saved = torch.load(path, map_location=next(network.parameters()).device, weights_only=True)
        network.load_state_dict(saved.pop("network"))
        optimizer.load_state_dict(saved.pop("optimizer"))
        state = State(**saved)
    except Exception as error:
        raise CheckFailed(
            f"checkpoint {path} is damaged, or another run's", f"delete {path} to start that run anew"
        ) from error
    output.say(f"going on after epoch {state.epoch}")
    return state


def _finish(prepared: Prepared, path: Path, state: State, images: int) -> dict[str, Any]:
    """Touches the test images, for the first and last time, and completes the run directory."""
    settings, policy, network = prepared.settings, prepared.policy, prepared.assembly.network
    figures = {}
    for split, (pixels, labels) in (("val", prepared.val), ("test", prepared.test)):
        logits = metrics.predict_logits(network, prepared.preprocess, pixels, policy, label=f"evaluating on {split}")
        figures[split] = metrics.compute(logits, labels, prepared.classes)
    config = runs.configuration(prepared.assembly, prepared.preprocess, prepared.classes, settings.data)
    report = {
        "run": str(path),
        "test": metrics.headline(figures["test"]),
        "val": {**metrics.headline(figures["val"]), "epoch": state.best_epoch},
        "seconds": round(state.seconds, 3),
        "images_per_s": round(settings.epochs * images / state.seconds, 1),
    }
    bundle.write_json(path / "config.json", config)
    bundle.write_atomically(path / "model.safetensors", runs.weights_bytes(network.state_dict()))
    bundle.write_json(path / "env.json", runs.environment(policy.device))
    bundle.write_json(
        path / "metrics.json", {**report, "run": path.name, "test": figures["test"], "val": figures["val"]}
    )
    bundle.write_atomically(path / "README.md", runs.result_card(config, runs.as_dict(settings), figures["test"]))
    runs.save_samples(path / "samples.npz", prepared.train, prepared.test)
    bundle.seal(path, "run")
    return report
