"""Robustness of trained networks: accuracy on corrupted images, and consistency of predictions under shifts.

Networks that share a frozen backbone are measured together. It runs once for all of their heads, on all cores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from poolzoo.artifacts.run import Run, load_runs
from poolzoo.common import output
from poolzoo.compare.changed_maps import ChangedMaps
from poolzoo.compare.records import Consistency, Robustness
from poolzoo.metrics import classification, corruptions, shifts
from poolzoo.report.results import CorruptionAccuracy
from poolzoo.train import device as devices
from poolzoo.train import footprint, inference
from poolzoo.train.cores import Cores, Replicas, cores, evaluation_threads
from poolzoo.train.device import DevicePolicy


@dataclass(frozen=True)
class Change:
    """A change of images.

    Attributes:
        name: Unique among changes.
        apply: The changed images; takes a block of images and the index of its first image.
    """

    name: str
    apply: Callable[[np.ndarray, int], np.ndarray]


def measure(
    paths: Mapping[str, Path],
    images: np.ndarray,
    labels: np.ndarray,
    device: str = "auto",
    label: str = "",
    *,
    keep: bool = False,
) -> dict[str, Robustness]:
    """Measures several runs on the same images.

    Args:
        paths: Run directories by name; their networks take images of the same size, mean and std.
        images: Test images, `uint8[N, H, W, 3]`.
        labels: `int[N]`.
        device: Where the networks run.
        label: For the progress bar.
        keep: Whether the feature maps of one backbone that all networks share are kept for later comparisons.

    Returns:
        By name.
    """
    policy = devices.policy(device)
    with cores(policy.device, evaluation_threads()) as pool:
        predictor = _Predictor(load_runs(paths.values()), images, policy, pool, keep=keep)
        accuracies = _corruption_accuracies(predictor, labels, label)
        reach = shifts.default_reach(images)
        crops = _consistencies(predictor, labels, "crop", reach)
        circular = _consistencies(predictor, labels, "circular", reach)
    return {
        name: Robustness(crop_consistency=crop, shift_consistency=shift, corruption_accuracy=accuracy)
        for name, crop, shift, accuracy in zip(paths, crops, circular, accuracies, strict=True)
    }


class _Predictor:
    """Networks and the images that they see, changed in one way after the other.

    Attributes:
        count: Number of networks.
    """

    def __init__(
        self, runs: Sequence[Run], images: np.ndarray, policy: DevicePolicy, pool: Cores, *, keep: bool
    ) -> None:
        self.count = len(runs)
        self._images = images
        self._policy = policy
        self._cores = pool
        size = (images.shape[1], images.shape[2])
        self._preprocess = runs[0].preprocess.to(policy.device)
        placed = nn.ModuleList([run.network for run in runs])
        policy.place(placed)
        networks = inference.inference_networks([run.network for run in runs], self._preprocess, size, policy)
        stacked = inference.Stacked(networks, [1] * len(networks))
        measured = footprint.measure(stacked, self._preprocess, size, policy)
        head_batch = footprint.eval_batch_size(measured, policy, beside=inference.BESIDE)
        self._batch_size, self._kept = head_batch, None
        if len({id(network.backbone) for network in networks}) == 1:
            self._batch_size = inference.backbone_batch_size(networks[0], self._preprocess, size, policy)
            if keep:
                self._kept = ChangedMaps(runs[0], images, self._batch_size, policy)
        stacked.head_batch_sizes = [min(head_batch, self._batch_size)] * len(networks)
        self._replicas = Replicas(stacked.eval(), pool.count)

    def logits(self, change: Change) -> np.ndarray:
        """Logits of all networks for the changed images, `float32[N, networks, classes]`."""
        kept = None if self._kept is None else self._kept.find(change.name)

        def work(start: int) -> tuple[Tensor | None, Tensor]:
            end = min(start + self._batch_size, len(self._images))
            with torch.inference_mode(), self._policy.context(), self._replicas.taken() as stacked:
                if kept is not None:
                    x = kept.take(np.zeros(end - start, np.int64), np.arange(start, end), self._policy.device)
                    return None, stacked.of_maps({stacked.networks[0].backbone: x})
                changed = torch.from_numpy(change.apply(self._images[start:end], start)).to(self._policy.device)
                x = self._preprocess(changed).contiguous(memory_format=self._policy.memory_format)
                maps = stacked.maps(x)
                return next(iter(maps.values())), stacked.of_maps(maps)

        parts = []
        with ExitStack() as stack:
            writer = None
            if self._kept is not None and kept is None:
                writer = stack.enter_context(self._kept.writing(change.name))
            for x, logits in self._cores.stream(work, range(0, len(self._images), self._batch_size)):
                if writer is not None and x is not None:
                    writer.add(x)
                parts.append(logits)
        return torch.cat(parts).cpu().numpy()


def _corruption_accuracies(predictor: _Predictor, labels: np.ndarray, label: str) -> list[CorruptionAccuracy]:
    """Accuracy of each network by corruption and severity; the mean is over both."""
    found = np.zeros((predictor.count, len(corruptions.NAMES), len(corruptions.SEVERITIES)))
    with output.progress(label, found[0].size) as bar:
        for row, kind in enumerate(corruptions.NAMES):
            for column, severity in enumerate(corruptions.SEVERITIES):
                logits = predictor.logits(Change(f"{kind} {severity}", partial(_corrupt, kind=kind, severity=severity)))
                for network in range(predictor.count):
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


def _consistencies(predictor: _Predictor, labels: np.ndarray, kind: str, reach: int) -> list[Consistency]:
    """Consistency of each network between two shifted copies of every image."""
    changes = (Change(f"{kind} {copy}", partial(_shift, kind=kind, copy=copy)) for copy in (0, 1))
    first, second = map(predictor.logits, changes)
    found = []
    for network in range(predictor.count):
        compared = shifts.consistency_of_logits(first[:, network], second[:, network], labels, kind=kind, reach=reach)
        found.append(Consistency(compared.consistency, compared.stability, compared.reach))
    return found


def _corrupt(images: np.ndarray, first: int, kind: str, severity: int) -> np.ndarray:
    return corruptions.corrupt(images, kind, severity, offset=first)


def _shift(images: np.ndarray, first: int, kind: str, copy: int) -> np.ndarray:
    return shifts.pairs(images, kind, offset=first)[copy]
