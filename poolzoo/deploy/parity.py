"""Whether the exported graph computes what the network computes, judged by the network's own rounding noise.

The reference is the network in float64. Its distance to the same network in float32 is the noise floor; the graph may
be four times as far away, plus a millionth of the largest logit. Healthy graphs lie at about one time the floor, and
faults (a dropped eps, an ignored divisor) thousands of times above it; a fixed 1e-5 would fail healthy networks, and
1e-3 would pass broken ones.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from poolzoo import metrics, output
from poolzoo.deploy import runtime

BATCHES: Final = (1, 2, 7)
BULK: Final = 64  # batch size for the rest of the images
FLOOR_FACTOR: Final = 4.0
RELATIVE: Final = 1e-6  # of the largest logit
REFERENCE_IMAGES: Final = 256  # of the test images that are also computed in float64
GOLDEN_IMAGES: Final = 16


@dataclass(frozen=True)
class Parity:
    """The verdict, as `parity.json` holds it, and the inputs and reference outputs that let others repeat it."""

    report: dict[str, Any]
    golden: dict[str, np.ndarray]

    @property
    def passed(self) -> bool:
        return bool(self.report["passed"])


def edge_images(size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Images at the edges of what can come in, by name: `uint8[H, W, 3]` each."""
    height, width = size
    board = np.indices((height, width)).sum(0) % 2 * 255
    flat = np.zeros((height, width, 3), np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    red = flat.copy()
    red[..., 0] = 255
    dot = flat.copy()
    dot[height // 2, width // 2] = 255
    return {
        "black": flat,
        "white": flat + np.uint8(255),
        "grey": flat + np.uint8(128),
        "checkerboard": np.repeat(board[..., None], 3, -1).astype(np.uint8),
        "red": red,
        "one bright pixel": dot,
        "noise": noise,
    }


def _logits(model: nn.Module, images: np.ndarray, dtype: torch.dtype, label: str) -> np.ndarray:
    """The network's logits in a precision, on the CPU: `[N, classes]`."""
    parts = []
    with torch.inference_mode(), output.progress(label, len(images)) as bar:
        for start in range(0, len(images), BULK):
            batch = torch.from_numpy(np.ascontiguousarray(images[start : start + BULK]))
            parts.append(model(batch)[0].to(dtype))
            bar.update(start + len(batch))
    return torch.cat(parts).numpy()


def check(model: nn.Module, graph: runtime.Model, images: np.ndarray, labels: np.ndarray) -> Parity:
    """Compares a graph with its network on real test images and on edge images, at several batch sizes.

    Args:
        model: The network with its preprocessing, `uint8[N, H, W, 3]` to logits and probabilities, on the CPU.
        graph: The exported graph, opened.
        images: Test images, `uint8[N, H, W, 3]`.
        labels: Their labels.
    """
    edges = edge_images(images.shape[1:3])
    names = [*edges, *(f"test image {index}" for index in range(len(images)))]
    everything = np.concatenate([np.stack(list(edges.values())), images])
    exact = everything[: len(edges) + REFERENCE_IMAGES]

    torch32 = _logits(model, everything, torch.float32, "torch, float32")
    torch64 = _logits(copy.deepcopy(model).double(), exact, torch.float64, "torch, float64")
    floor = _largest(torch32[: len(exact)] - torch64)
    tolerance = FLOOR_FACTOR * floor + RELATIVE * _largest(torch64)

    ort = runtime.run_in_batches(graph, everything, BULK)
    errors = np.abs(ort[: len(exact)] - torch64).max(1)
    rest = np.abs(ort[len(exact) :] - torch32[len(exact) :]).max(1) - floor if len(ort) > len(exact) else np.empty(0)
    errors = np.concatenate([errors, rest]) if len(rest) else errors
    wrong_shape = ort.shape != torch32.shape
    batches: dict[str, float] = {str(BULK): _largest(errors)}
    for size in BATCHES:
        chosen = exact[np.arange(size) % len(exact)]
        by_batch = np.abs(graph.run(chosen)[0] - torch64[np.arange(size) % len(exact)])
        batches[str(size)] = _largest(by_batch)
    worst = int(np.nan_to_num(errors, nan=np.inf).argmax())
    margins = _margins(torch32)
    flips = ort.argmax(1) != torch32.argmax(1)
    far_flips = flips & (margins > 2 * tolerance)
    finite = bool(np.isfinite(ort).all())
    passed = finite and not wrong_shape and max(batches.values()) <= tolerance and not far_flips.any()
    real = slice(len(edges), None)
    report = {
        "passed": passed,
        "max_abs": _number(max(batches.values())),
        "tolerance": tolerance,
        "noise_floor": floor,
        "largest_logit": _largest(torch64),
        "top1_agreement": float((~flips[real]).mean()),
        "flips": [{"input": names[i], "margin": float(margins[i])} for i in np.flatnonzero(flips)[:20]],
        "batches": sorted(int(size) for size in batches),
        "max_abs_by_batch": {size: _number(value) for size, value in sorted(batches.items(), key=lambda b: int(b[0]))},
        "max_abs_by_edge": {name: _number(float(error)) for name, error in zip(edges, errors, strict=False)},
        "worst": {"input": names[worst], "max_abs": _number(float(errors[worst]))},
        "finite": finite,
        "accuracy": {
            "torch": metrics.accuracy(torch32[real], labels),
            "onnxruntime": metrics.accuracy(ort[real], labels),
        },
        "n": len(images),
        "provider": graph.provider,
    }
    kept = slice(0, len(edges) + GOLDEN_IMAGES)
    golden = {"images": exact[kept], "logits": torch64[kept].astype(np.float32)}
    return Parity(report, golden)


def _largest(values: np.ndarray) -> float:
    """The largest magnitude; infinite where anything is not a number."""
    return float(np.nan_to_num(np.abs(values), nan=np.inf).max())


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
    if not report["finite"]:
        return f"parity failed: the graph gives NaN or infinity, first on {report['worst']['input']}"
    batch = max(report["max_abs_by_batch"].items(), key=lambda item: np.inf if item[1] is None else item[1])
    return (
        f"parity failed: {report['max_abs']:.2e} above {report['tolerance']:.2e} at batch {batch[0]}, "
        f"worst on {report['worst']['input']}; agreement {report['top1_agreement']:.4f}"
    )
