"""Whether the exported graph computes what the network computes, judged by the network's own rounding noise.

The reference is the network in float64. Its distance to the same network in float32 is the noise floor; the graph may
be four times as far away on photographs, sixteen times on edge images (see `reference.py`), plus a millionth of the
reach of the logits. The few photographs that are further away are looked at again, each with its own floor. Healthy
graphs lie at about one time the floor, faults (a dropped eps, an ignored divisor) thousands of times above it; a fixed
1e-5 would fail healthy networks, and 1e-3 would pass broken ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from torch import nn

from poolzoo.common.errors import CheckFailed
from poolzoo.metrics import classification
from poolzoo.model.inference import batch_of
from poolzoo.parity.reference import Reference, by_row
from poolzoo.runtime import ort_session, tolerance

BATCHES: Final = (1, 2, 7)
GOLDEN_IMAGES: Final = 16
MOST_AGAIN: Final = 16  # images that are looked at again; where more are too far away, it is not they that are special


@dataclass(frozen=True)
class Parity:
    """The verdict, as `parity.json` holds it, and the inputs and reference outputs that let others repeat it."""

    report: dict[str, Any]
    golden: dict[str, np.ndarray]
    logits: np.ndarray  # the graph's, of all images but the edge ones

    @property
    def passed(self) -> bool:
        return bool(self.report["passed"])


@dataclass(frozen=True)
class Distance:
    """How far a graph is from its network, image by image, whatever batch the image came in.

    Attributes:
        outputs: The graph's logits and probabilities of all images, in batches as large as `reference.batch_of`.
        by_batch: The largest difference of each image, `[N]`, by batch size; infinite where anything is not a number,
            0 where the image was not in such a batch.
    """

    outputs: tuple[np.ndarray, np.ndarray]
    by_batch: dict[int, np.ndarray]

    @property
    def worst(self) -> np.ndarray:
        """The largest difference of each image at any batch size, `[N]`."""
        return np.maximum.reduce(list(self.by_batch.values()))


def measure(reference: Reference, graph: ort_session.OnnxModel) -> Distance:
    """Runs a graph on all images, and on some of them in small batches.

    Raises:
        CheckFailed: It gives arrays of another shape.
    """
    everything = reference.images
    by_batch: dict[int, np.ndarray] = {}
    tries = [(size, rows) for size in BATCHES for rows in _rows_for(size, reference.edge_count, len(everything))]
    tries.append((batch_of(reference.model, everything.shape[1:3]), np.arange(len(everything))))
    for size, rows in tries:
        got = ort_session.run_in_batches(graph, everything[rows], size)
        for one, other in zip(got, reference.expected, strict=True):
            if one.shape != other[rows].shape:
                text = f"the graph gives {one.shape} where the network gives {other[rows].shape}"
                raise CheckFailed(text, "this is a bug of the exporter's or of ours; please report it")
        by_image = np.maximum(*(by_row(a - b[rows]) for a, b in zip(got, reference.expected, strict=True)))
        worst = by_batch.setdefault(size, np.zeros(len(everything)))
        np.maximum.at(worst, rows, by_image)
    return Distance(got, by_batch)


def check(model: nn.Module, graph: ort_session.OnnxModel, images: np.ndarray, labels: np.ndarray | None) -> Parity:
    """Compares a graph in float32 with its network, at several batch sizes; judged by the network's own noise.

    Args:
        model: The network with its preprocessing, `uint8[N, H, W, 3]` to logits and probabilities, on the CPU.
        graph: The exported graph, opened.
        images: Test images, or synthetic ones, `uint8[N, H, W, 3]`.
        labels: The labels of test images; None says that the images are synthetic, and accuracy is not measured.

    Raises:
        CheckFailed: The network itself gives NaN or infinity, so that there is nothing to compare with.
    """
    return by_noise(Reference.compute(model, images, labels), graph)


def by_noise(reference: Reference, graph: ort_session.OnnxModel) -> Parity:
    """The gate for float32: a small multiple of the network's own rounding noise, image by image."""
    found, on_images = measure(reference, graph), float(reference.allowed[reference.regular].max())
    far = np.flatnonzero(found.worst > reference.allowed)
    if 0 < len(far) <= MOST_AGAIN and np.isfinite(found.worst).all():
        reference = reference.rechecked(far)
        found = measure(reference, graph)
    else:
        far = far[:0]
    _, ratio = tolerance.closest_to_limit(found.worst, reference.allowed)
    flipped = classification.predictions(found.outputs[0]) != classification.predictions(reference.float32[0])
    far_flips = flipped & (_margins(reference.float32[0]) > 2 * reference.allowed)
    report = {
        "passed": bool(np.isfinite(found.worst).all()) and ratio <= 1.0 and not bool(far_flips.any()),
        "gate": "noise",
        "tolerance": float(reference.allowed[found.worst.argmax()]),  # for the image with the largest difference
        "allowed_on_images": on_images,
        "looked_at_again": [reference.names[row] for row in far],
        "worst": _nearest(reference, found.worst),
        "worst_by_batch": {str(size): _nearest(reference, found.by_batch[size]) for size in sorted(found.by_batch)},
        "allowed_by_edge": dict(
            zip(reference.names[: reference.edge_count], map(float, reference.allowed), strict=False)
        ),
        **_figures(reference, found, graph),
    }
    return Parity(
        report, _golden(reference, reference.expected, reference.allowed), found.outputs[0][reference.regular]
    )


def _nearest(reference: Reference, differences: np.ndarray) -> dict[str, Any]:
    """The image that is nearest to its limit, with its own difference and limit."""
    where, ratio = tolerance.closest_to_limit(differences, reference.allowed)
    return {
        "input": reference.names[where],
        "max_abs": _number(float(differences[where])),
        "allowed": float(reference.allowed[where]),
        "ratio": _number(ratio),
    }


@dataclass(frozen=True)
class Limits:
    """What a network in lower precision may lose: at least so much agreement, at most so much accuracy (0–1)."""

    agreement: float = 0.99
    accuracy_drop: float = 0.005


def by_limits(reference: Reference, graph: ort_session.OnnxModel, limits: Limits) -> Parity:
    """The gate for lower precisions: the user's limits on what the network may lose on the images.

    Its golden outputs are the graph's own, with what rounding has cost each image here as what it may cost elsewhere.
    """
    found = measure(reference, graph)
    figures = _figures(reference, found, graph)
    lost = [f"agreement {figures['top1_agreement']:.4f} is below {limits.agreement:g}"]
    kept = [figures["top1_agreement"] >= limits.agreement]
    if "accuracy" in figures:
        drop = figures["accuracy"]["torch"] - figures["accuracy"]["onnxruntime"]
        lost.append(f"accuracy falls by {drop:.4f}, more than {limits.accuracy_drop:g}")
        kept.append(drop <= limits.accuracy_drop + 1e-12)  # 0.805 − 0.8 is a little more than 0.005
    lost.append("it gives NaN or infinity")
    kept.append(figures["finite"])
    report = {
        "passed": all(kept),
        "gate": "limits",
        "limits": {"agreement": limits.agreement, "accuracy_drop": limits.accuracy_drop},
        "lost": "; ".join(text for text, fine in zip(lost, kept, strict=True) if not fine) or None,
        "tolerance": _number(float(found.worst.max())),
        **figures,
    }
    golden = _golden(reference, found.outputs, np.maximum(found.worst, reference.allowed))
    return Parity(report, golden, found.outputs[0][reference.regular])


def _figures(reference: Reference, found: Distance, graph: ort_session.OnnxModel) -> dict[str, Any]:
    """What is reported under either gate."""
    ours, theirs = found.outputs[0], reference.float32[0]
    flipped = classification.predictions(ours) != classification.predictions(theirs)
    margins, real, reach = _margins(theirs), reference.regular, reference.scale
    figures: dict[str, Any] = {
        "max_abs": _number(float(found.worst.max())),
        "relative": _number(float((found.worst / reach).max())) if reach.all() else None,
        "cosine": _number(float(_cosine(ours, theirs)[real].min())),
        "noise_floor": reference.noise_floor,
        "reference": reference.precision,
        "largest_logit": float(reach[real].max()),
        "top1_agreement": float((~flipped[real]).mean()),
        "flips": [{"input": reference.names[i], "margin": float(margins[i])} for i in np.flatnonzero(flipped)[:20]],
        "batches": sorted(found.by_batch),
        "max_abs_by_batch": {str(size): _number(float(found.by_batch[size].max())) for size in sorted(found.by_batch)},
        "max_abs_by_edge": {
            name: _number(float(error))
            for name, error in zip(reference.names[: reference.edge_count], found.worst, strict=False)
        },
        "finite": bool(np.isfinite(found.worst).all()),
        "images": reference.kind,
        "n": len(reference.images) - reference.edge_count,
        "provider": graph.provider,
        "optimization": "all",
    }
    if reference.labels is not None:
        figures["accuracy"] = {
            "torch": classification.accuracy(theirs[real], reference.labels),
            "onnxruntime": classification.accuracy(ours[real], reference.labels),
        }
    return figures


def _golden(reference: Reference, outputs: tuple[np.ndarray, np.ndarray], allowed: np.ndarray) -> dict[str, np.ndarray]:
    kept = np.arange(min(reference.float64_count, reference.edge_count + GOLDEN_IMAGES))
    return {
        "images": reference.images[kept],
        "logits": outputs[0][kept].astype(np.float32),
        "probabilities": outputs[1][kept].astype(np.float32),
        "allowed": allowed[kept],
    }


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of the angle between the rows; 1 where both are zero."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    same = np.all(a == b, axis=1)
    return np.where(same, 1.0, (a * b).sum(1) / np.where(lengths == 0, 1.0, lengths))


def _rows_for(size: int, edges: int, total: int) -> list[np.ndarray]:
    """The images that are run at a small batch size: all edge images, and three batches of the others."""
    return [np.arange(edges), edges + np.arange(min(3 * size, total - edges))]


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None  # JSON has no infinity


def _margins(logits: np.ndarray) -> np.ndarray:
    """How far the best logit of each row lies above the second."""
    if logits.shape[1] < 2:
        return np.full(len(logits), np.inf)
    two = np.sort(logits, 1)[:, -2:]
    return two[:, 1] - two[:, 0]


def explain(report: dict[str, Any]) -> str:
    """Where and by how much a graph fails, in one line."""
    if report["gate"] == "limits":
        return f"parity failed: {report['lost']}"
    worst = report["worst"]
    probe = next((one for one in report.get("probes", ()) if not one["passed"]), None)
    if not report["finite"]:
        text = f"the graph gives NaN or infinity, first on {worst['input']}"
    elif worst["max_abs"] > worst["allowed"] or probe is None:
        text = f"{worst['max_abs']:.2e} on {worst['input']}, where {worst['allowed']:.2e} is allowed"
        text += f"; agreement {report['top1_agreement']:.4f}"
    else:
        text = f"{probe['part']} on {probe['probe']}: {probe['note']}"
    layer = f"; the first layer that differs is {report['diverges']['layer']}" if report.get("diverges") else ""
    return f"parity failed: {text}{layer}"
