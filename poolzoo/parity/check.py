"""Checks that a graph computes what its network computes: within the network's own rounding noise, or within limits.

The reference is the network in float64. Its distance to the same network in float32 is the noise floor. The graph may
be four times as far away, sixteen times on synthetic edge cases (see `reference.py`), plus a millionth of the largest
logit. A few images that are further away are checked again, each with its own floor. Healthy graphs lie at about one
time the floor, faults (a dropped eps, an ignored divisor) thousands of times above it. A fixed 1e-5 would fail healthy
networks, and 1e-3 would pass broken ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import onnxruntime

from poolzoo.common.errors import CheckFailed
from poolzoo.metrics import evaluation
from poolzoo.model.inference import batch_of
from poolzoo.parity import probes
from poolzoo.parity.first_difference import find_first_difference
from poolzoo.parity.layers import Layers
from poolzoo.parity.reference import Reference
from poolzoo.parity.report import (
    Accuracies,
    Extreme,
    Flip,
    Limits,
    LimitsCheck,
    NoiseFloorCheck,
    OutputStatistics,
    ParityReport,
)
from poolzoo.runtime import ort_session, tolerance

BATCHES: Final = (1, 2, 7)
GOLDEN_IMAGES: Final = 16
MAX_RECHECKED: Final = 16  # images; where more are too far away, the graph is at fault and not their noise
MAX_FLIPS: Final = 20  # that a report names


@dataclass(frozen=True)
class Differences:
    """How far a graph is from its network, image by image.

    Attributes:
        outputs: The graph's logits and probabilities of all images, in batches as large as `batch_of` allows.
        by_batch: The largest difference of each image, `[N]`, by batch size; infinite where an output is NaN, 0 where
            the image was not in such a batch.
    """

    outputs: tuple[np.ndarray, np.ndarray]
    by_batch: Mapping[int, np.ndarray]

    @property
    def worst(self) -> np.ndarray:
        """The largest difference of each image at any batch size, `[N]`."""
        return np.asarray(np.maximum.reduce(list(self.by_batch.values())))


def check_parity(
    reference: Reference, file: Path, layers: Layers, graph: ort_session.OnnxModel, threads: int
) -> ParityReport:
    """Checks a graph in fp32: its outputs, its parts on extreme inputs, and where it fails, which layer differs first.

    Args:
        reference: What the network answers.
        file: The graph.
        layers: Which of the graph's values are which layers'.
        graph: The graph, opened.
        threads: Threads to run parts of the graph with.

    Raises:
        CheckFailed: The graph gives outputs of another shape.
    """
    report, proto = check_outputs(reference, graph), onnx.load(file)
    height, width = reference.images.shape[1:3]

    def open_part(content: bytes) -> onnxruntime.InferenceSession:
        return ort_session.open_session(content, graph.provider, threads)

    results = probes.run_probes(reference.model, proto, layers, (height, width), open_part)
    report = replace(report, probes=tuple(results), passed=report.passed and all(one.passed for one in results))
    if report.passed or report.noise is None:
        return report
    image = reference.images[reference.names.index(report.noise.worst.input)]
    found = find_first_difference(
        model=reference.model,
        proto=proto,
        layers=layers.within(proto),
        open_part=open_part,
        image=image,
        inputs=graph.to_input(image[None]),
    )
    return replace(report, first_difference=found, located=True)


def check_outputs(reference: Reference, graph: ort_session.OnnxModel) -> ParityReport:
    """Checks the outputs of a graph in fp32 against a small multiple of the network's rounding noise, by image.

    Raises:
        CheckFailed: The graph gives outputs of another shape.
    """
    found, allowed_on_images = measure(reference, graph), float(reference.allowed[reference.regular].max())
    far = np.flatnonzero(found.worst > reference.allowed)
    if 0 < len(far) <= MAX_RECHECKED and np.isfinite(found.worst).all():
        reference = reference.rechecked(far)
        found = measure(reference, graph)
    else:
        far = far[:0]
    _, ratio = tolerance.closest_to_limit(found.worst, reference.allowed)
    decision = reference.decision
    flipped = decision.agreement(found.outputs[0], reference.float32[0]) < 1
    far_flips = flipped & (decision.margins(reference.float32[0]) > reference.allowed)
    edge_names = reference.names[: reference.edge_count]
    noise = NoiseFloorCheck(
        allowed_on_images=allowed_on_images,
        rechecked=tuple(reference.names[row] for row in far),
        worst=_extreme(reference, found.worst),
        worst_by_batch={size: _extreme(reference, found.by_batch[size]) for size in sorted(found.by_batch)},
        allowed_by_edge=dict(zip(edge_names, map(float, reference.allowed), strict=False)),
    )
    return ParityReport(
        passed=bool(np.isfinite(found.worst).all()) and ratio <= 1.0 and not bool(far_flips.any()),
        tolerance=float(reference.allowed[found.worst.argmax()]),
        outputs=_statistics(reference, found, graph),
        noise=noise,
        golden=_golden(reference, reference.expected, reference.allowed),
        logits=found.outputs[0][reference.regular],
    )


def check_limits(reference: Reference, graph: ort_session.OnnxModel, limits: Limits) -> ParityReport:
    """Checks the outputs of a graph in lower precision against the user's limits.

    Its golden outputs are its own. Their tolerance is what rounding costs each image on this machine.

    Raises:
        CheckFailed: The graph gives outputs of another shape.
    """
    found = measure(reference, graph)
    outputs = _statistics(reference, found, graph)
    violations = []
    if outputs.top1_agreement < limits.agreement:
        violations.append(f"agreement {outputs.top1_agreement:.4f} is below {limits.agreement:g}")
    accuracy = outputs.accuracy
    if accuracy is not None and accuracy.drop > limits.accuracy_drop + 1e-12:  # 0.805 − 0.8 is a little above 0.005
        violations.append(f"{accuracy.task.val_score} falls by {accuracy.drop:.4f}, more than {limits.accuracy_drop:g}")
    if not outputs.finite:
        violations.append("it gives NaN or infinity")
    return ParityReport(
        passed=not violations,
        tolerance=_finite(float(found.worst.max())),
        outputs=outputs,
        limits=LimitsCheck(limits=limits, violations=tuple(violations)),
        golden=_golden(reference, found.outputs, np.maximum(found.worst, reference.allowed)),
        logits=found.outputs[0][reference.regular],
    )


def measure(reference: Reference, graph: ort_session.OnnxModel) -> Differences:
    """Runs a graph on all images, and on some of them in small batches.

    Raises:
        CheckFailed: It gives outputs of another shape.
    """
    images = reference.images
    by_batch: dict[int, np.ndarray] = {}
    for size, rows in _runs(reference):
        outputs = ort_session.run_in_batches(graph, images[rows], size)
        for one, other in zip(outputs, reference.expected, strict=True):
            if one.shape != other[rows].shape:
                text = f"the graph gives {one.shape} where the network gives {other[rows].shape}"
                raise CheckFailed(text, "this is a bug in torch's exporter or in poolzoo; please report it")
        by_image = tolerance.apart(outputs, [one[rows] for one in reference.expected])
        worst = by_batch.setdefault(size, np.zeros(len(images)))
        np.maximum.at(worst, rows, by_image)
    return Differences(outputs, by_batch)


def batches_of(reference: Reference, size: int) -> list[np.ndarray]:
    """The batches in which `measure` runs the images at a batch size, as row numbers."""
    runs = [rows for one, rows in _runs(reference) if one == size]
    return [rows[start : start + size] for rows in runs for start in range(0, len(rows), size)]


def _runs(reference: Reference) -> list[tuple[int, np.ndarray]]:
    """Batch sizes and the images that are run at each."""
    images = reference.images
    runs = [(size, rows) for size in BATCHES for rows in _rows_for(size, reference.edge_count, len(images))]
    return [*runs, (batch_of(reference.model, images.shape[1:3]), np.arange(len(images)))]


def _extreme(reference: Reference, differences: np.ndarray) -> Extreme:
    """The image closest to its limit."""
    row, ratio = tolerance.closest_to_limit(differences, reference.allowed)
    return Extreme(
        input=reference.names[row],
        max_abs=_finite(float(differences[row])),
        allowed=float(reference.allowed[row]),
        ratio=_finite(ratio),
    )


def _statistics(reference: Reference, found: Differences, graph: ort_session.OnnxModel) -> OutputStatistics:
    graph_logits, network_logits = found.outputs[0], reference.float32[0]
    decision, regular, scale = reference.decision, reference.regular, reference.scale
    agreement = decision.agreement(graph_logits, network_logits)
    # Of one label, the gap between the two best logits; of several, the distance of a logit to its threshold.
    gaps = decision.margins(network_logits) * (1 if decision.task.is_multilabel else 2)
    accuracy = None
    if reference.labels is not None and (reference.labels.ndim == 1 or reference.labels.any()):
        accuracy = Accuracies(
            torch=evaluation.score(decision.calibrated(network_logits[regular]), reference.labels),
            onnxruntime=evaluation.score(decision.calibrated(graph_logits[regular]), reference.labels),
            task=decision.task,
        )
    edge_names = reference.names[: reference.edge_count]
    flips = np.flatnonzero(agreement < 1)[:MAX_FLIPS]
    return OutputStatistics(
        max_abs=_finite(float(found.worst.max())),
        relative=_finite(float((found.worst / scale).max())) if scale.all() else None,
        cosine=_finite(float(_cosine(graph_logits, network_logits)[regular].min())),
        noise_floor=reference.noise_floor,
        reference=reference.precision,
        largest_logit=float(scale[regular].max()),
        top1_agreement=float(agreement[regular].mean()),
        flips=tuple(Flip(reference.names[row], float(gaps[row])) for row in flips),
        max_abs_by_batch={size: _finite(float(found.by_batch[size].max())) for size in sorted(found.by_batch)},
        max_abs_by_edge={name: _finite(float(error)) for name, error in zip(edge_names, found.worst, strict=False)},
        finite=bool(np.isfinite(found.worst).all()),
        images=reference.kind,
        n=len(reference.images) - reference.edge_count,
        provider=graph.provider,
        accuracy=accuracy,
    )


def _golden(reference: Reference, outputs: tuple[np.ndarray, np.ndarray], allowed: np.ndarray) -> dict[str, np.ndarray]:
    """Inputs, outputs and tolerances of the edge cases and the first images, for `golden.npz`."""
    kept = np.arange(min(reference.float64_count, reference.edge_count + GOLDEN_IMAGES))
    return {
        "images": reference.images[kept],
        "logits": outputs[0][kept].astype(np.float32),
        "probabilities": outputs[1][kept].astype(np.float32),
        "allowed": allowed[kept],
    }


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The cosine of the angle between rows, `[N]`; 1 where both are equal, as where both are zero."""
    same = np.all(a == b, axis=1)
    with np.errstate(invalid="ignore", over="ignore"):  # of infinite logits it is NaN
        lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        return np.where(same, 1.0, (a * b).sum(1) / np.where(lengths == 0, 1.0, lengths))


def _rows_for(size: int, edge_count: int, total: int) -> list[np.ndarray]:
    """The images that are run at a small batch size: all edge cases, and three batches of the others."""
    return [np.arange(edge_count), edge_count + np.arange(min(3 * size, total - edge_count))]


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None  # JSON has no infinity
