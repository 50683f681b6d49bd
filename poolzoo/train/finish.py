"""The end of a run: the best weights are tested, and the run directory is completed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from poolzoo.artifacts import manifest, result_card, run, run_report, samples
from poolzoo.artifacts.run_report import RunReport
from poolzoo.common import files, output
from poolzoo.common.errors import EnvironmentProblem
from poolzoo.common.text import data_title
from poolzoo.data import blocks, identity, unreadable
from poolzoo.metrics import calibration_fit, evaluation, reliability
from poolzoo.metrics.calibration_fit import CalibrationFit
from poolzoo.metrics.decisions import Decision
from poolzoo.metrics.reliability import ReliabilityChange
from poolzoo.metrics.results import AnyMetrics
from poolzoo.report import curves
from poolzoo.train import checkpoint, distributed, feature_entries, feature_writer, features, inference, memory
from poolzoo.train.cores import Replicas, cores, evaluation_threads
from poolzoo.train.engine import Engine
from poolzoo.train.loaders import Features, LazyInputs
from poolzoo.train.prepare import PreparedRun
from poolzoo.train.splits import DataSplits

INITIAL_WEIGHTS: Final = checkpoint.FILE.with_name("weights.json")  # the origin of the initial weights of a run


@dataclass(frozen=True)
class FinalMetrics:
    """What a network with its best weights achieves.

    Attributes:
        val: Metrics on the validation images.
        test: Metrics on the test images.
        test_flip_tta: Test accuracy, or mAP, averaged over each image and its mirror image; None where mirroring
            changes labels.
        predicted: The predicted class of every test image, `int64[N]`, or the predicted labels, `bool[N, K]`.
        decision: How logits become labels, chosen on the validation images.
        validation: Logits and labels of these.
        test_logits: Logits of the test images, `float32[N, C]`.
        fit: What the validation images say about calibration; None where the settings leave it out.
        reliability: How far probabilities of test images can be believed; None in a trial of a comparison.
    """

    val: AnyMetrics
    test: AnyMetrics
    test_flip_tta: float | None
    predicted: np.ndarray
    decision: Decision
    validation: samples.ValidationLogits
    test_logits: np.ndarray
    fit: CalibrationFit | None
    reliability: ReliabilityChange | None


def evaluate_best_weights(heads: Sequence[PreparedRun], engine: Engine, *, alone: bool = True) -> list[FinalMetrics]:
    """Loads the best weights of every head and tests them; every process tests its shard of the images.

    No other function reads the test images, and this one runs once.

    Args:
        heads: Runs on one backbone, in the order of the engine's modules.
        engine: After its last epoch.
        alone: Whether the run is no trial of a comparison. Trials get a temperature alone, which changes no prediction,
            and no bootstrap intervals: `poolzoo evaluate` computes these.
    """
    data = heads[0].data
    for module in engine.modules.values():
        module.module.load_state_dict(module.best.weights)
    val_logits = _logits(heads, "val")
    test_logits = _logits(heads, "test")
    flipped_logits = _logits(heads, "mirrored") if data.flip else None
    results = []
    val_labels = data.labels[data.val_indices]
    for index in range(len(heads)):
        validation = samples.ValidationLogits(logits=val_logits[:, index], labels=val_labels)
        fit = None
        if heads[index].settings.calibration:
            fit = calibration_fit.fit(validation.logits, val_labels, smoothing=alone, vector=alone)
        decision = evaluation.choose_decision(
            validation.logits, val_labels, calibration=None if fit is None else fit.calibration
        )
        flip_tta = None
        if flipped_logits is not None:
            plain, mirrored = (decision.calibrated(each[:, index]) for each in (test_logits, flipped_logits))
            flip_tta = evaluation.flip_averaged_score(plain, mirrored, data.test.labels)
        results.append(
            FinalMetrics(
                val=evaluation.compute(val_logits[:, index], val_labels, data.classes, decision),
                test=evaluation.compute(test_logits[:, index], data.test.labels, data.classes, decision),
                test_flip_tta=flip_tta,
                predicted=decision.decide(test_logits[:, index]),
                decision=decision,
                validation=validation,
                test_logits=test_logits[:, index],
                fit=fit,
                reliability=reliability.measure(test_logits[:, index], data.test.labels, decision) if alone else None,
            )
        )
    return results


def _logits(heads: Sequence[PreparedRun], part: feature_entries.Part) -> np.ndarray:
    """`float32[n, heads, classes]` of the images of a part, from all processes: of stored features where it can be."""
    first, data = heads[0], heads[0].data
    images = data.images if part == "val" else data.test.images
    indices = data.val_indices if part == "val" else np.arange(len(images))
    stores = None
    if first.settings.caches_features:
        with distributed.fail_together(first.rank), distributed.rank_zero_first(first.rank):
            stores = features.open_features(heads, part)
    if stores is not None:
        keys = [feature_entries.part_key(head, part) for head in heads]
        shard = _logits_of_features(heads, keys, stores, first.rank.shard(np.arange(len(indices))))
    else:
        networks = inference.inference_networks(
            [head.assembly.network for head in heads], first.preprocess, data.size, first.policy
        )
        shard = inference.predict_logits(
            inference.Stacked(networks, [head.head_batch_size for head in heads]),
            first.preprocess,
            images,
            first.policy,
            batch_size=first.backbone_batch_size,
            label=f"evaluating on {_LABELS[part]}",
            indices=first.rank.shard(indices),
            mirrored=part == "mirrored",
        )
    return distributed.all_gather(shard, len(indices), first.rank)


READ_BYTES: Final = 8 << 20  # of stored feature maps that are read at once
_LABELS: Final = {"val": "val", "test": "test", "mirrored": "test, mirrored"}


def _logits_of_features(
    heads: Sequence[PreparedRun],
    keys: Sequence[str],
    stores: Mapping[str, Features],
    indices: np.ndarray,
) -> np.ndarray:
    """`float32[n, heads, classes]`: each batch of features is read once, for all heads."""
    first = heads[0]
    modules = nn.ModuleList([feature_entries.behind(head, key) for head, key in zip(heads, keys, strict=True)]).eval()
    size = first.backbone_batch_size  # of the batches that a whole network gets, for the same last bits
    layout = first.assembly.layout
    together = max(1, blocks.rows(4 * layout.channels * math.prod(layout.map_size), READ_BYTES) // size)

    def logits_of(part: np.ndarray) -> Tensor:
        with torch.inference_mode(), first.policy.context(), replicas.taken() as taken:
            x = LazyInputs(stores, views=np.zeros_like(part), indices=indices[part], device=first.policy.device)
            found = []
            for module, key, head in zip(taken, keys, heads, strict=True):
                batches = torch.split(x[key], size)
                found.append(torch.cat([inference.in_parts(module, one, head.head_batch_size) for one in batches]))
            return torch.stack(found, 1)

    with cores(first.policy.device, evaluation_threads()) as pool:
        replicas = Replicas(modules, pool.count)
        parts = list(pool.stream(logits_of, feature_writer.parts_of(len(indices), size * together)))
    return torch.cat(parts).cpu().numpy()


def draw_curves(prepared: PreparedRun, path: Path, engine: Engine) -> None:
    """Draws the learning curves of a run into its directory.

    Args:
        prepared: The run.
        path: The run directory.
        engine: After its last epoch.
    """
    settings = prepared.settings
    points = [curves.CurvePoint.from_json(epoch.to_json()) for epoch in engine.progress.history[settings.pool]]
    try:
        curves.draw(
            points, path / "curves.png", f"{settings.backbone} with {settings.pool} on {data_title(settings.data)}"
        )
    except EnvironmentProblem as problem:  # a missing picture must not lose the run
        output.warn(f"no learning curves: {problem}", problem.hint)


def images_to_keep(data: DataSplits) -> bytes:
    """What `samples.npz` of a run on this data has; the same for all heads."""
    return samples.samples_bytes(data.train, data.train_indices, data.test)


def finish_run(prepared: PreparedRun, path: Path, engine: Engine, result: FinalMetrics, kept: bytes) -> RunReport:
    """Completes a run directory and writes its manifest.

    Args:
        prepared: The run; its pooling is the name of its module in the engine.
        path: The run directory.
        engine: After its last epoch.
        result: What the best weights achieve.
        kept: Its `images_to_keep`.
    """
    settings, data = prepared.settings, prepared.data
    assert settings.batch_size is not None  # `prepare` fills in every default
    config = run.configuration(
        prepared.assembly,
        prepared.preprocess,
        classes=data.classes,
        data=settings.data,
        how=settings.fit,
        decision=result.decision,
        test_part=settings.test_part,
    )
    if not settings.pretrained:
        config["pretrained_cfg"]["license"] = None  # that of weights which this network never had
    if prepared.teacher is not None:
        config["poolzoo"]["teacher"] = prepared.teacher.to_json(settings)
    seconds = engine.progress.seconds
    ending = engine.ending(settings.pool)
    images = ending.steps * settings.batch_size
    if ending.epochs < engine.progress.epoch:  # other heads trained on
        seconds = sum(epoch.seconds for epoch in engine.progress.history[settings.pool])
    if settings.time_budget is not None:
        settings = replace(settings, steps=str(engine.plan))
        files.write_atomically(path / "run.toml", settings.to_toml())
    report = RunReport(
        path=path,
        val=result.val,
        best_epoch=engine.modules[settings.pool].best.epoch,
        test=result.test,
        test_flip_tta=result.test_flip_tta,
        seconds=round(seconds, 3),
        images_per_s=round(images / seconds, 1),
        peak_memory=memory.peak_memory(prepared.policy.device),
        processes=prepared.rank.world_size,
        skipped=tuple(unreadable.to_json(data.skipped)),
        ending=ending,
        fit=result.fit,
        reliability=result.reliability,
    )
    files.write_json(path / "config.json", config)
    files.write_atomically(path / "model.safetensors", run.weights_bytes(prepared.assembly.network.state_dict()))
    files.write_json(path / "env.json", run.environment(prepared.policy.device))
    files.write_json(path / run_report.FILE, report.to_json())
    files.write_atomically(path / "README.md", result_card.render(config, asdict(settings), report))
    if not files.has_file(path / identity.FILE):  # several heads have it in their common directory until now
        data.identity.save(path / identity.FILE)
    samples.save_predictions(path / "predictions.npz", result.predicted, data.test.labels)
    files.write_atomically(path / samples.VALIDATION, samples.validation_bytes(result.validation))
    tested = samples.ValidationLogits(logits=result.test_logits, labels=data.test.labels)
    files.write_atomically(path / samples.TEST, samples.validation_bytes(tested))
    files.write_atomically(path / "samples.npz", kept)
    manifest.write_manifest(path, "run")
    return report
