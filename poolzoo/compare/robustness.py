"""Robustness of trained networks: accuracy on corrupted images, and consistency of predictions under shifts.

Networks that share a frozen backbone are measured together, and it runs once for all of their heads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from poolzoo.artifacts.run import Run, load_run
from poolzoo.common import output
from poolzoo.compare.records import Consistency, Robustness
from poolzoo.data import blocks
from poolzoo.metrics import classification, corruptions, shifts
from poolzoo.model.network import Network
from poolzoo.report.results import CorruptionAccuracy
from poolzoo.train import device as devices
from poolzoo.train import footprint, inference

# Logits of all networks on all images, `float[N, networks, classes]`, after a change of the images. The change takes a
# block of images and the index of its first image.
Predict = Callable[[Callable[[np.ndarray, int], np.ndarray]], np.ndarray]


class _Stacked(nn.Module):
    """Networks side by side: normalized images to `float[n, networks, classes]`. A shared backbone runs once."""

    def __init__(self, networks: Sequence[Network]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor) -> Tensor:
        features: dict[nn.Module, Tensor] = {}
        logits = []
        for network in self.networks:
            assert isinstance(network, Network)
            if network.backbone not in features:
                features[network.backbone] = network.forward_map(x)
            logits.append(network.head(features[network.backbone]))
        return torch.stack(logits, 1)


def measure(
    paths: Mapping[str, Path], images: np.ndarray, labels: np.ndarray, device: str = "auto", label: str = ""
) -> dict[str, Robustness]:
    """Measures several runs on the same images.

    Args:
        paths: Run directories by name; their networks take images of the same size, mean and std.
        images: Test images, `uint8[N, H, W, 3]`.
        labels: `int[N]`.
        device: Where the networks run.
        label: For the progress bar.

    Returns:
        By name.
    """
    runs = _load(paths.values())
    policy = devices.policy(device)
    stacked = _Stacked([run.network for run in runs])
    policy.place(stacked)
    preprocess = runs[0].preprocess.to(policy.device)

    memory = footprint.measure(stacked, preprocess, images.shape[1:3], policy)
    batch_size = footprint.eval_batch_size(memory, policy)

    def predict(change: Callable[[np.ndarray, int], np.ndarray]) -> np.ndarray:
        return np.concatenate(
            [
                inference.predict_logits(
                    stacked, preprocess, change(images[start:end], start), policy, batch_size, label=""
                )
                for start, end in blocks.starts(len(images), images[:1].nbytes)
            ]
        )

    accuracies = _corruption_accuracies(predict, labels, len(runs), label)
    reach = shifts.default_reach(images)
    crops = _consistencies(predict, labels, len(runs), "crop", reach)
    circular = _consistencies(predict, labels, len(runs), "circular", reach)
    return {
        name: Robustness(crop_consistency=crop, shift_consistency=shift, corruption_accuracy=accuracy)
        for name, crop, shift, accuracy in zip(paths, crops, circular, accuracies, strict=True)
    }


def _corruption_accuracies(predict: Predict, labels: np.ndarray, networks: int, label: str) -> list[CorruptionAccuracy]:
    """Accuracy of each network by corruption and severity; the mean is over both."""
    found = np.zeros((networks, len(corruptions.NAMES), len(corruptions.SEVERITIES)))
    with output.progress(label, found[0].size) as bar:
        for row, kind in enumerate(corruptions.NAMES):
            for column, severity in enumerate(corruptions.SEVERITIES):
                logits = predict(partial(_corrupt, kind=kind, severity=severity))
                for network in range(networks):
                    found[network, row, column] = classification.accuracy(logits[:, network], labels)
                bar.update(row * found.shape[2] + column + 1)
    return [
        CorruptionAccuracy(
            mean=float(table.mean()),
            by_severity=table.mean(0).tolist(),
            by_kind=dict(zip(corruptions.NAMES, table.tolist(), strict=True)),
        )
        for table in found
    ]


def _consistencies(predict: Predict, labels: np.ndarray, networks: int, kind: str, reach: int) -> list[Consistency]:
    """Consistency of each network between two shifted copies of every image."""
    first, second = (predict(partial(_shift, kind=kind, copy=copy)) for copy in (0, 1))
    found = []
    for network in range(networks):
        compared = shifts.consistency_of_logits(first[:, network], second[:, network], labels, kind=kind, reach=reach)
        found.append(Consistency(compared.consistency, compared.stability, compared.reach))
    return found


def _corrupt(images: np.ndarray, first: int, kind: str, severity: int) -> np.ndarray:
    return corruptions.corrupt(images, kind, severity, offset=first)


def _shift(images: np.ndarray, first: int, kind: str, copy: int) -> np.ndarray:
    return shifts.pairs(images, kind, offset=first)[copy]


def _load(paths: Iterable[Path]) -> list[Run]:
    """Loads runs; those whose backbones are bitwise the same share one."""
    found: list[Run] = []
    for path in paths:
        run = load_run(path)
        twin = next((other for other in found if _same_backbone(other, run)), None)
        if twin is not None:
            run.network.backbone = twin.network.backbone
        found.append(run)
    return found


def _same_backbone(one: Run, other: Run) -> bool:
    """Whether two runs differ behind the backbone alone: not in its weights, its statistics, nor its config."""
    mine, theirs = one.network.backbone.state_dict(), other.network.backbone.state_dict()
    my_config: Mapping[str, object] = one.config["poolzoo"]
    their_config: Mapping[str, object] = other.config["poolzoo"]
    parts = ("backbone", "local_pool", "stem", "image_size")
    return (
        mine.keys() == theirs.keys()
        and one.preprocess.statistics == other.preprocess.statistics
        and all(my_config[part] == their_config[part] for part in parts)
        and all(torch.equal(mine[key], theirs[key]) for key in mine)
    )
