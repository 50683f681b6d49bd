"""One fine-tuning, or that of several heads, from settings to finished run directories; resumable after any step."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from poolzoo.artifacts import manifest, result_card, run, samples
from poolzoo.common import files, json_writer, output, resources
from poolzoo.common.errors import BATCH_HINT, CheckFailed, EnvironmentProblem, UsageError
from poolzoo.data import identity, unreadable
from poolzoo.data.batches import BatchLoader
from poolzoo.data.unreadable import BrokenImages
from poolzoo.metrics import classification
from poolzoo.model.accounting import Accounting
from poolzoo.model.network import Network
from poolzoo.plugin import loader
from poolzoo.report import curves
from poolzoo.train import distributed, features, inference, memory
from poolzoo.train.checkpoint import FILE, Checkpoint, Identity
from poolzoo.train.engine import Engine, Line
from poolzoo.train.loaders import IMAGES, MAP, FeatureLoader, ImageLoader, Loader
from poolzoo.train.prepare import Prepared, prepare, prepare_heads
from poolzoo.train.settings import BEFORE, Settings, read_toml
from poolzoo.train.training_module import TrainingModule

WEIGHTS = "weights.json"  # in an unfinished run: the account of the weights that it began with
Note = Callable[[dict[str, Any]], None]
Figures = dict[str, dict[str, Any]]


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
        `{"run", "test", "val", "seconds", "images_per_s"}`, as `finetune --json` ends with; also "skipped" where files
        could not be read.
    """
    if out is not None and distributed.is_first():
        files.require_free(out)
    prepared = prepare(settings)
    if not settings.pretrained and settings.weights is None:
        output.say("training from scratch; --pretrained or --weights FILE start from weights")
    if before is not None:
        with distributed.agreed(prepared.share):
            before(prepared)
    path = out or run.new_path(Path("runs"), settings.backbone, settings.pool)
    if prepared.share.rank == 0:
        path.mkdir(parents=True)
        try:
            files.write_atomically(path / "run.toml", prepared.settings.to_toml())
            if prepared.assembly.weights.source:
                files.write_json(path / WEIGHTS, prepared.assembly.weights.to_json())
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise
    return _run(prepared, path, note, fresh=True)


def resume(path: Path, note: Note | None = None) -> dict[str, Any]:
    """Goes on with a run that was interrupted, from its last checkpoint.

    Raises:
        UsageError: There is no run, it is finished, or its arguments were changed.
        CheckFailed: Its checkpoint is damaged, or its data was changed.
    """
    if not (path / "run.toml").is_file():
        raise UsageError(f"{path} is no run: it has no run.toml", "give the directory of an interrupted run")
    if (path / manifest.MANIFEST).is_file():
        raise UsageError(f"run {path} is finished", f"poolzoo evaluate {path}, or poolzoo export {path}")
    settings = Settings(**{**BEFORE, **read_toml(path / "run.toml")})
    loader.settings.files = list(dict.fromkeys([*loader.settings.files, *map(Path, settings.plugins)]))
    begun = (path / FILE).is_file()
    try:
        prepared = prepare(settings, initial=not begun)
    except BrokenImages as error:
        raise CheckFailed(error.message, "bring them back: a run goes on with the images that it began with") from None
    with distributed.agreed(prepared.share):
        _require_same_data(path, prepared)
    if begun and (path / WEIGHTS).is_file():
        prepared = _with_weights_of(path, prepared)
    return _run(prepared, path, note, fresh=False)


def _require_same_data(path: Path, prepared: Prepared) -> None:
    """Refuses other data than a run was begun with; a run without a checkpoint begins anew, with a warning."""
    kept, hint = identity.DataIdentity.load(path / identity.FILE), f"delete {path / FILE} to start that run anew"
    try:
        identity.require_same(kept, prepared.data.identity, f"bring it back, or {hint}")
    except CheckFailed as error:
        if (path / FILE).is_file():
            raise
        output.warn(error.message, "the run has no checkpoint yet and starts with the data as it is")
        if prepared.share.rank == 0:
            (path / identity.FILE).unlink()


def _with_weights_of(path: Path, prepared: Prepared) -> Prepared:
    """What was prepared, with the account of the weights that the run began with, which are not read again."""
    found = files.read_json(path / WEIGHTS)
    weights = Accounting.from_json(found, prepared.assembly.network.state_dict())
    return replace(prepared, assembly=replace(prepared.assembly, weights=weights))


def finetune_heads(
    settings: Settings, pools: Sequence[str], out: Path, note: Callable[[str, Line], None] | None = None
) -> dict[str, dict[str, Any]]:
    """Trains several poolings' heads at once on one frozen backbone, each as if it were alone.

    On a CPU each head gets the very bits that `finetune` with that pooling gives. A call with the same arguments goes
    on where an interrupted one stopped.

    Args:
        settings: What to train on what, and how; `freeze` is "backbone", and the pooling is not looked at.
        pools: Specs of the poolings.
        out: A directory; every pooling's run directory is made in it.
        note: Called with a pooling and the line of every finished epoch.

    Returns:
        The report of every pooling, as `finetune` gives it; of several processes, in the first.

    Raises:
        UsageError: The backbone is not frozen, or two poolings are the same.
    """
    if settings.freeze != "backbone":
        raise UsageError("several heads need a frozen backbone", "--freeze backbone")
    if len({files.slug(pool) for pool in pools}) < len(pools) or not pools:
        raise UsageError(f"the poolings {', '.join(pools)} are not all different", "name each once")
    heads = prepare_heads(settings, pools)
    out.mkdir(parents=True, exist_ok=True)
    places = [out / files.slug(pool) for pool in pools]
    with distributed.agreed(heads[0].share):
        _require_same_data(out, heads[0])
    arguments = {**asdict(heads[0].settings), "pool": ",".join(pools), "plugins": ""}
    data = heads[0].data
    checkpoint = Checkpoint(out, Identity(arguments, data.identity.digest, data.fingerprint))
    engine = _begun(heads, checkpoint, out)

    def finished(epoch: int, lines: dict[str, Line]) -> None:
        for pool, line in lines.items():
            if note is not None:
                note(pool, line)

    engine.run(finished)
    done = [(place / manifest.MANIFEST).is_file() for place in places]
    figures, predicted = ([], []) if all(done) else _evaluate(heads, engine)
    if heads[0].share.rank > 0:
        return {}
    for index, (name, head, place) in enumerate(zip(engine.learners, heads, places, strict=True)):
        if done[index]:
            manifest.check(place, "run")
            continue
        shutil.rmtree(place, ignore_errors=True)  # half of it, from an interrupted call
        place.mkdir()
        files.write_atomically(place / "run.toml", head.settings.to_toml())
        _write_lines(place, engine.progress.lines[name])
        _finish(head, place, engine, name, figures[index], predicted[index])
    return {name: _report(place) for name, place in zip(engine.learners, places, strict=True)}


def _run(prepared: Prepared, path: Path, note: Note | None, *, fresh: bool) -> dict[str, Any]:
    begun = (path / FILE).is_file
    try:
        return _train(prepared, path, note)
    except KeyboardInterrupt as stop:
        where = "goes on there" if begun() else "starts it again"
        stop.args = (f"poolzoo finetune --resume {path} {where}",)
        raise
    except BrokenPipeError:
        raise CheckFailed("nobody reads stdout any more", f"poolzoo finetune --resume {path}") from None
    except BaseException:
        if fresh and not begun() and prepared.share.rank == 0:  # there is nothing in it that could be resumed
            shutil.rmtree(path, ignore_errors=True)
        raise


def _train(prepared: Prepared, path: Path, note: Note | None) -> dict[str, Any]:
    event = {"path": str(path), "settings": asdict(prepared.settings)}
    catalog, epochs = loader.catalog(), prepared.settings.epochs
    data = prepared.data
    checkpoint = Checkpoint(path, Identity(asdict(prepared.settings), data.identity.digest, data.fingerprint))
    engine = _begun([prepared], checkpoint, path)
    (name,) = engine.learners
    first = prepared.share.rank == 0
    if first:
        if engine.progress.epoch:  # after a kill the file may be an epoch ahead of the checkpoint
            _write_lines(path, engine.progress.lines[name])
        catalog.emit("poolzoo_run_started", run=event)

    def finished(epoch: int, lines: dict[str, Line]) -> None:
        line = lines[name]
        _write_lines(path, engine.progress.lines[name])
        output.say(
            f"epoch {epoch}/{epochs}  loss {line['loss']:.3f}  accuracy {line['train_accuracy']:.3f}  "
            f"validation {line['val_accuracy']:.3f}  {line['images_per_s']:.0f} images/s"
        )
        if note is not None:
            note(line)
        catalog.emit("poolzoo_epoch_finished", run=event, epoch=epoch, metrics=line)

    engine.run(finished)
    (figures,), (predicted,) = _evaluate([prepared], engine)
    report = {}
    if first:
        _finish(prepared, path, engine, name, figures, predicted)
        report = _report(path)
        catalog.emit("poolzoo_run_finished", run=event, metrics=report)
    distributed.leave()
    return report


def _begun(heads: Sequence[Prepared], checkpoint: Checkpoint, path: Path) -> Engine:
    """The engine at the last checkpoint, or at the start; which data it trains on is kept in the directory."""
    engine = build_engine(heads, checkpoint)
    with distributed.agreed(heads[0].share):
        engine.restore()
        if heads[0].share.rank == 0 and not (path / identity.FILE).is_file():
            heads[0].data.identity.save(path / identity.FILE)
    return engine


def build_engine(heads: Sequence[Prepared], checkpoint: Checkpoint) -> Engine:
    """The engine that trains networks, or heads on one frozen backbone."""
    first = heads[0]
    settings, share = first.settings, first.share
    assert settings.epochs is not None  # `prepare` has filled in every default
    stores = None
    if settings.caches_features:
        with distributed.agreed(share), distributed.rank_zero_first(share):
            stores = features.opened(heads)
    at_once = min(head.at_once for head in heads)
    feed: Loader = _image_feed(first, at_once) if stores is None else _feature_feed(first, stores, at_once)
    assert settings.batch_size is not None
    batch = -(-settings.batch_size // (share.size * settings.grad_accum))
    resources.hold(f"a batch of {batch} images", batch * sum(head.footprint.total for head in heads), BATCH_HINT)
    learners = {}
    for head in heads:
        reads = IMAGES if not head.frozen else features.reads(head) if stores is not None else MAP
        network = head.assembly.network
        module = network if reads == IMAGES else network.head if reads == MAP else network.behind_pool
        learners[head.settings.pool] = TrainingModule(module, reads, head.settings, len(feed), head.policy, share)
    labels = first.data.labels[first.data.held]
    return Engine(learners, feed, labels, settings.epochs, checkpoint, share)


def _image_feed(prepared: Prepared, at_once: int) -> ImageLoader:
    settings, data, policy, share = prepared.settings, prepared.data, prepared.policy, prepared.share
    assert settings.batch_size is not None
    served = BatchLoader(
        *(data.images, data.labels, settings.batch_size, prepared.augmentation, settings.seed, policy.device),
        share=share,
        chosen=data.chosen,
    )
    held = data.held[share.rank :: share.size]
    frozen = prepared.assembly.network if prepared.frozen else None
    return ImageLoader(served, data.images, held, prepared.preprocess, policy, at_once, frozen)


def _feature_feed(prepared: Prepared, stores: dict[str, features.Stored], at_once: int) -> FeatureLoader:
    settings, data = prepared.settings, prepared.data
    assert settings.batch_size is not None
    return FeatureLoader(
        *(stores, data.labels, data.chosen, data.held),
        *(settings.batch_size, settings.seed, prepared.policy.device, at_once, prepared.share),
    )


def _write_lines(path: Path, lines: Sequence[Line]) -> None:
    files.write_atomically(path / "metrics.jsonl", "".join(json_writer.dumps(line) + "\n" for line in lines))


class _Together(nn.Module):
    """Networks with one backbone, which runs once for all: normalized images to `float[n, networks, classes]`."""

    def __init__(self, networks: Sequence[Network]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor) -> Tensor:
        features = self.networks[0].forward_map(x)
        return torch.stack([network.head(features) for network in self.networks], 1)


def _evaluate(heads: Sequence[Prepared], engine: Engine) -> tuple[list[Figures], list[np.ndarray]]:
    """Fills in the best weights and touches the test images, for the first and last time; every process has a part.

    Returns:
        The figures of every head, and the classes that it predicts for the test images, `int64[N]`.
    """
    first, data = heads[0], heads[0].data
    for learner in engine.learners.values():
        learner.module.load_state_dict(learner.best.weights)
    together = _Together([head.assembly.network for head in heads])

    def logits(images: np.ndarray, chosen: np.ndarray, label: str) -> np.ndarray:
        mine, text = chosen[first.share.rank :: first.share.size], f"evaluating on {label}"
        found = inference.predict_logits(
            together, first.preprocess, images, first.policy, at_once, label=text, chosen=mine
        )
        return distributed.interleaved(found, len(chosen), first.share)

    (test, labels), held = data.test, data.labels[data.held]
    at_once, everything = min(head.at_once for head in heads), np.arange(len(test))
    val_logits, test_logits = logits(data.images, data.held, "val"), logits(test, everything, "test")
    mirrored = logits(test[:, :, ::-1], everything, "test, mirrored") if data.flip else None
    figures, predicted = [], []
    for index in range(len(heads)):
        found: Figures = {
            "val": classification.compute(val_logits[:, index], held, data.classes),
            "test": classification.compute(test_logits[:, index], labels, data.classes),
        }
        predicted.append(classification.predictions(test_logits[:, index]))
        if mirrored is not None:
            mean = classification.mean_of_views(test_logits[:, index], mirrored[:, index])
            found["test_flip_tta"] = {"accuracy": classification.accuracy(mean, labels)}
        figures.append(found)
    return figures, predicted


def _finish(prepared: Prepared, path: Path, engine: Engine, name: str, figures: Figures, predicted: np.ndarray) -> None:
    """Completes the run directory."""
    settings, network, data = prepared.settings, prepared.assembly.network, prepared.data
    learner = engine.learners[name]
    config = run.configuration(prepared.assembly, prepared.preprocess, data.classes, settings.data, settings.fit)
    lines, seconds = engine.progress.lines[name], engine.progress.seconds
    images = settings.epochs * len(engine.feed) * settings.batch_size  # type: ignore[operator]
    report = {
        "run": path.name,
        "val": {**figures["val"], "epoch": learner.best.epoch},
        "test": figures["test"],
        "test_flip_tta": figures.get("test_flip_tta"),
        "seconds": round(seconds, 3),
        "images_per_s": round(images / seconds, 1),
        "peak_memory": memory.peak_memory(prepared.policy.device),
        "processes": prepared.share.size,
    }
    if data.skipped:
        report["skipped"] = unreadable.to_json(data.skipped)
    files.write_json(path / "config.json", config)
    (path / WEIGHTS).unlink(missing_ok=True)  # it is in the configuration now
    files.write_atomically(path / "model.safetensors", run.weights_bytes(network.state_dict()))
    files.write_json(path / "env.json", run.environment(prepared.policy.device))
    files.write_json(path / "metrics.json", report)
    try:
        points = [curves.CurvePoint.from_json(line) for line in lines]
        curves.draw(points, path / "curves.png", f"{settings.backbone} with {settings.pool} on {settings.data}")
    except EnvironmentProblem as problem:  # a picture is no reason to lose a run
        output.warn(f"no learning curves: {problem}", problem.hint)
    files.write_atomically(path / "README.md", result_card.render(config, asdict(settings), report))
    if not (path / identity.FILE).is_file():  # several heads keep it in the directory that they share
        data.identity.save(path / identity.FILE)
    samples.save_predictions(path / "predictions.npz", predicted, data.test[1])
    samples.save_samples(path / "samples.npz", (data.images, data.labels), data.chosen, data.test)
    manifest.write_manifest(path, "run")


def _report(path: Path) -> dict[str, Any]:
    """What `finetune --json` ends with, from a finished run."""
    full = files.read_json(path / "metrics.json")
    val = {**classification.headline(full["val"]), "epoch": full["val"]["epoch"]}
    test = classification.headline(full["test"])
    rest = {key: full[key] for key in ("seconds", "images_per_s", "skipped") if key in full}
    return {"run": str(path), "test": test, "val": val, **rest}
