"""What else there is to know of trained variants: robustness to corruptions and shifts, size, latency, parity.

Networks that share a frozen backbone are measured together: it runs once for all of their heads.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from poolzoo.artifacts.run import Run, load_run
from poolzoo.common import output, timing
from poolzoo.data import blocks
from poolzoo.metrics import classification, corruptions, shifts
from poolzoo.model import surgery
from poolzoo.model.assemble import Network
from poolzoo.train import device as devices
from poolzoo.train import footprint, inference

SHIFTS: Final = {"zhang": "crop", "circular": "circular"}  # as the report calls them, and as `shifts` does
TIMED: Final = (1, 32)  # batch sizes under ONNX Runtime


class _Stacked(nn.Module):
    """Networks side by side: normalized images to `float[n, networks, classes]`; a backbone of several runs once."""

    def __init__(self, networks: Sequence[Network]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor) -> Tensor:
        features: dict[nn.Module, Tensor] = {}
        answers = []
        for network in self.networks:
            if network.backbone not in features:
                features[network.backbone] = network.forward_map(x)
            answers.append(network.head(features[network.backbone]))
        return torch.stack(answers, 1)


def robustness(
    paths: Mapping[str, Path], images: np.ndarray, labels: np.ndarray, device: str = "auto", label: str = ""
) -> dict[str, dict[str, Any]]:
    """Accuracy under corruptions, and consistency under shifts, of several runs on the same images.

    Args:
        paths: Run directories by name, with networks that take images of the same size, mean and std.
        images: Test images, `uint8[N, H, W, 3]`.
        labels: `int[N]`.
        device: Where the networks run.
        label: For the progress bar.

    Returns:
        By name, `{"shift": {"zhang", "circular": {"consistency", "stability", "reach"}}, "corruption": {"mean",
        "by_severity": [5], "by_kind": {name: [5]}}}`; the mean is over kinds and severities.
    """
    loaded = _loaded(paths.values())
    policy = devices.policy(device)
    stacked = _Stacked([run.network for run in loaded])
    policy.place(stacked)
    preprocess = loaded[0].preprocess.to(policy.device)

    taken = footprint.measure(stacked, preprocess, images.shape[1:3], policy)
    at_once = footprint.eval_batch_size(taken, policy)

    def logits(change: Callable[[np.ndarray, int], np.ndarray]) -> np.ndarray:
        """Of all images after a change, which is told the index of the first image of each block."""
        return np.concatenate(
            [
                inference.predict_logits(
                    stacked, preprocess, change(images[start:end], start), policy, at_once, label=""
                )
                for start, end in blocks.starts(len(images), images[:1].nbytes)
            ]
        )

    found: dict[str, dict[str, Any]] = {name: {"shift": {}, "corruption": {"by_kind": {}}} for name in paths}
    severities = corruptions.SEVERITIES
    with output.progress(label, len(corruptions.NAMES) * len(severities)) as bar:
        for step, kind in enumerate(corruptions.NAMES):
            rows = []
            for severity in severities:
                answers = logits(partial(_corrupted, kind=kind, severity=severity))
                rows.append([classification.accuracy(answers[:, place], labels) for place in range(len(loaded))])
                bar.update(step * len(severities) + severity)
            for place, name in enumerate(paths):
                found[name]["corruption"]["by_kind"][kind] = [row[place] for row in rows]
    for title, kind in SHIFTS.items():
        pair = [logits(partial(_shifted, kind=kind, copy=copy)) for copy in (0, 1)]
        for place, name in enumerate(paths):
            first, second = (answers[:, place] for answers in pair)
            reach = shifts.default_reach(images)
            measured = shifts.consistency_of_logits(first, second, labels, kind=kind, reach=reach)
            found[name]["shift"][title] = {
                "consistency": measured.consistency,
                "stability": measured.stability,
                "reach": measured.reach,
            }
    for one in found.values():
        table = np.array(list(one["corruption"]["by_kind"].values()))
        one["corruption"] |= {"mean": float(table.mean()), "by_severity": table.mean(0).tolist()}
    return found


def _corrupted(images: np.ndarray, first: int, kind: str, severity: int) -> np.ndarray:
    return corruptions.corrupt(images, kind, severity, offset=first)


def _shifted(images: np.ndarray, first: int, kind: str, copy: int) -> np.ndarray:
    return shifts.pairs(images, kind, offset=first)[copy]


def _loaded(paths: Iterable[Path]) -> list[Run]:
    """Runs, those whose backbones are the same in every bit with one between them."""
    found: list[Run] = []
    for path in paths:
        run = load_run(path)
        twin = next((other for other in found if _same_backbone(other, run)), None)
        if twin is not None:
            run.network.backbone = twin.network.backbone
        found.append(run)
    return found


def _same_backbone(one: Run, other: Run) -> bool:
    """Whether two runs differ behind the backbone alone: not in weights, statistics, nor what it is built of."""
    mine, theirs = one.network.backbone.state_dict(), other.network.backbone.state_dict()
    parts = ("backbone", "local_pool", "stem", "image_size")
    return (
        mine.keys() == theirs.keys()
        and one.preprocess.statistics == other.preprocess.statistics
        and all(one.config["poolzoo"][part] == other.config["poolzoo"][part] for part in parts)
        and all(torch.equal(mine[key], theirs[key]) for key in mine)
    )


def size(path: Path) -> dict[str, int]:
    """Parameters, and multiply–accumulate operations for one image (half of torch's count of FLOPs)."""
    from torch.utils.flop_counter import FlopCounterMode

    run = load_run(path)
    shape = run.config["pretrained_cfg"]["input_size"]
    with FlopCounterMode(display=False) as counter:
        surgery.dry_run(run.network, torch.randn(1, *shape))
    return {"params": sum(p.numel() for p in run.network.parameters()), "macs": counter.get_total_flops() // 2}


def deployed(path: Path, provider: str, threads: int | None, folder: Path) -> dict[str, Any]:
    """Parity and latency of a run's graph under ONNX Runtime, with the machinery of `export`.

    Returns:
        `{"parity", "latency_ms", "latency_ms_32"}`.
    """
    from poolzoo.export import export, graph
    from poolzoo.export.source import of_run
    from poolzoo.parity.reference import Reference
    from poolzoo.runtime import ort_session

    count = threads or torch.get_num_threads()
    subject, file = of_run(load_run(path)), folder / "model.onnx"
    written = graph.export_graph(subject, file)
    opened = ort_session.open_model(file, provider, count)
    reference = Reference.of(subject.model, subject.images, subject.image_labels)
    verdict = export.judge(subject, reference, file, written, opened, count)
    times = {}
    for batch in TIMED:
        images = subject.images[np.arange(batch) % len(subject.images)]
        taken = timing.interleaved({"ort": lambda images=images: opened.run(images)}, seconds=1.0)["ort"]
        times[batch] = round(statistics.median(taken), 4)
    return {"parity": verdict.passed, "latency_ms": times[1], "latency_ms_32": times[32]}
