"""The end of a run: the best weights are tested, and the run directory is completed."""

from __future__ import annotations

from collections.abc import Sequence
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
from poolzoo.data import identity, unreadable
from poolzoo.data.blocks import ImageArray
from poolzoo.metrics import evaluation
from poolzoo.metrics.decisions import Decision
from poolzoo.metrics.results import AnyMetrics
from poolzoo.model.network import Network
from poolzoo.report import curves
from poolzoo.train import distributed, inference, memory
from poolzoo.train.engine import Engine
from poolzoo.train.prepare import PreparedRun

INITIAL_WEIGHTS: Final = "weights.json"  # in an unfinished run: the origin of its initial weights


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
    """

    val: AnyMetrics
    test: AnyMetrics
    test_flip_tta: float | None
    predicted: np.ndarray
    decision: Decision


class _SharedBackbone(nn.Module):
    """Networks with one backbone, which runs once for all: normalized images to `float[n, networks, classes]`."""

    def __init__(self, networks: Sequence[Network]) -> None:
        super().__init__()
        self.networks = networks
        self.members = nn.ModuleList(networks)  # so that training mode reaches them

    def forward(self, x: Tensor) -> Tensor:
        features = self.networks[0].forward_map(x)
        return torch.stack([network.head(features) for network in self.networks], 1)


def evaluate_best_weights(heads: Sequence[PreparedRun], engine: Engine) -> list[FinalMetrics]:
    """Loads the best weights of every head and tests them; every process tests its shard of the images.

    No other function reads the test images, and this one runs once.

    Args:
        heads: Runs on one backbone, in the order of the engine's modules.
        engine: After its last epoch.
    """
    first, data = heads[0], heads[0].data
    for module in engine.modules.values():
        module.module.load_state_dict(module.best.weights)
    networks = _SharedBackbone([head.assembly.network for head in heads])
    batch_size = min(head.eval_batch_size for head in heads)

    def logits(images: ImageArray, indices: np.ndarray, label: str, *, mirrored: bool = False) -> np.ndarray:
        """`float32[n, heads, classes]` of the images `indices`, from all processes."""
        shard = inference.predict_logits(
            networks,
            first.preprocess,
            images,
            first.policy,
            batch_size=batch_size,
            label=f"evaluating on {label}",
            indices=first.rank.shard(indices),
            mirrored=mirrored,
        )
        return distributed.all_gather(shard, len(indices), first.rank)

    every_test_image = np.arange(len(data.test.images))
    val_logits = logits(data.images, data.val_indices, "val")
    test_logits = logits(data.test.images, every_test_image, "test")
    flipped_logits = logits(data.test.images, every_test_image, "test, mirrored", mirrored=True) if data.flip else None
    results = []
    val_labels = data.labels[data.val_indices]
    for index in range(len(heads)):
        decision = evaluation.choose_decision(val_logits[:, index], val_labels)
        flip_tta = None
        if flipped_logits is not None:
            flip_tta = evaluation.flip_averaged_score(test_logits[:, index], flipped_logits[:, index], data.test.labels)
        results.append(
            FinalMetrics(
                val=evaluation.compute(val_logits[:, index], val_labels, data.classes, decision),
                test=evaluation.compute(test_logits[:, index], data.test.labels, data.classes, decision),
                test_flip_tta=flip_tta,
                predicted=decision.decide(test_logits[:, index]),
                decision=decision,
            )
        )
    return results


def finish_run(prepared: PreparedRun, path: Path, engine: Engine, result: FinalMetrics) -> RunReport:
    """Completes a run directory and writes its manifest.

    Args:
        prepared: The run; its pooling is the name of its module in the engine.
        path: The run directory.
        engine: After its last epoch.
        result: What the best weights achieve.
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
    )
    files.write_json(path / "config.json", config)
    (path / INITIAL_WEIGHTS).unlink(missing_ok=True)  # config.json has it now
    files.write_atomically(path / "model.safetensors", run.weights_bytes(prepared.assembly.network.state_dict()))
    files.write_json(path / "env.json", run.environment(prepared.policy.device))
    files.write_json(path / run_report.FILE, report.to_json())
    points = [curves.CurvePoint.from_json(epoch.to_json()) for epoch in engine.progress.history[settings.pool]]
    try:
        curves.draw(
            points, path / "curves.png", f"{settings.backbone} with {settings.pool} on {data_title(settings.data)}"
        )
    except EnvironmentProblem as problem:  # a missing picture must not lose the run
        output.warn(f"no learning curves: {problem}", problem.hint)
    files.write_atomically(path / "README.md", result_card.render(config, asdict(settings), report))
    if not (path / identity.FILE).is_file():  # several heads have it in their common directory until now
        data.identity.save(path / identity.FILE)
    samples.save_predictions(path / "predictions.npz", result.predicted, data.test.labels)
    samples.save_samples(path / "samples.npz", data.train, data.train_indices, data.test)
    manifest.write_manifest(path, "run")
    return report
