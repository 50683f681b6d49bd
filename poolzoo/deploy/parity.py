"""Whether the exported graph computes what the network computes, judged by the network's own rounding noise.

The reference is the network in float64. Its distance to the same network in float32 is the noise floor; the graph may
be four times as far away on each image, plus a millionth of the largest logit. Healthy graphs lie at about one time the
floor, and faults (a dropped eps, an ignored divisor) thousands of times above it; a fixed 1e-5 would fail healthy
networks, and 1e-3 would pass broken ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from poolzoo import metrics, output
from poolzoo.deploy import runtime
from poolzoo.errors import CheckFailed

BATCHES: Final = (1, 2, 7)
BULK: Final = 64  # batch size for the rest of the images
FLOOR_FACTOR: Final = 4.0
RELATIVE: Final = 1e-6  # of the largest logit
LARGEST_FLOOR: Final = (
    1e-3  # of the largest logit; above it the gate would pass anything (healthy networks: below 1e-5)
)
REFERENCE_IMAGES: Final = 256  # of the other images that are also computed in float64
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


def _outputs(model: nn.Module, images: np.ndarray, dtype: torch.dtype, label: str) -> tuple[np.ndarray, np.ndarray]:
    """The network's logits and probabilities in a precision, on the CPU: two `[N, classes]`."""
    parts = []
    with torch.inference_mode(), output.progress(label, len(images)) as bar:
        for start in range(0, len(images), BULK):
            batch = torch.from_numpy(np.ascontiguousarray(images[start : start + BULK]))
            parts.append([out.to(dtype) for out in model(batch)])
            bar.update(start + len(batch))
    logits, chances = (torch.cat(outs).numpy() for outs in zip(*parts, strict=True))
    return logits, chances


def _reference(
    model: nn.Module, images: np.ndarray, single: tuple[np.ndarray, np.ndarray]
) -> tuple[str, tuple[np.ndarray, np.ndarray], np.ndarray]:
    """The reference's precision, its logits and probabilities, and the noise floor of each image.

    A network that insists on float32 (a layer that casts) is its own reference, with a floor of 1e-6 of its logits.
    """
    try:
        double = _outputs(model.double(), images, torch.float64, "torch, float64")
    except RuntimeError:
        single = single[0][: len(images)], single[1][: len(images)]
        return "float32", single, np.full(len(images), RELATIVE * _largest(single[0]))
    finally:
        model.float()  # exact: every float32 is a float64; a copy would trust that modules can be copied
    return "float64", double, _by_row(single[0][: len(images)] - double[0])


def check(model: nn.Module, graph: runtime.Model, images: np.ndarray, labels: np.ndarray | None) -> Parity:
    """Compares a graph with its network on many images and on edge images, at several batch sizes.

    Args:
        model: The network with its preprocessing, `uint8[N, H, W, 3]` to logits and probabilities, on the CPU.
        graph: The exported graph, opened.
        images: Test images, or synthetic ones, `uint8[N, H, W, 3]`.
        labels: The labels of test images; None says that the images are synthetic, and accuracy is not measured.

    Raises:
        CheckFailed: The network itself gives NaN or infinity, so that there is nothing to compare with.
    """
    edges = edge_images(images.shape[1:3])
    kind = "synthetic" if labels is None else "test"
    names = [*edges, *(f"{kind} image {index}" for index in range(len(images)))]
    everything = np.concatenate([np.stack(list(edges.values())), images])
    exact = len(edges) + min(len(images), REFERENCE_IMAGES)
    real = slice(len(edges), None)

    torch32 = _outputs(model, everything, torch.float32, "torch, float32")
    precision, reference, floors = _reference(model, everything[:exact], torch32)
    broken = ~(np.isfinite(torch32[0]).all(1))
    broken[:exact] |= ~np.isfinite(reference[0]).all(1)
    if broken.any():
        name = names[int(broken.argmax())]
        raise CheckFailed(
            f"the network itself gives NaN or infinity on {name}", "train it again, or try another pooling or backbone"
        )
    # An edge image may be worse conditioned than photographs; it is judged by its own floor and loosens no other.
    common = float(floors[real].max())
    largest = _largest(reference[0])
    if common > LARGEST_FLOOR * largest:
        text = f"the network in float32 and in float64 differ by {common:.1e} where logits reach {largest:.1e}"
        raise CheckFailed(
            f"{text}: there is nothing firm to compare with", "is a layer random in eval mode? train it again?"
        )
    allowed = FLOOR_FACTOR * np.maximum(common, np.pad(floors, (0, len(everything) - exact))) + RELATIVE * largest
    allowed[exact:] += common  # these are compared with float32, which has noise of its own

    expected = [np.concatenate([near, far[exact:]]) for near, far in zip(reference, torch32, strict=True)]
    errors: dict[str, float] = {}
    excess = np.zeros(len(everything))
    worst = np.zeros(len(everything))
    tries = [(size, rows) for size in BATCHES for rows in _rows_for(size, len(edges), len(everything))]
    tries.append((BULK, np.arange(len(everything))))
    ort = np.empty(0)
    for size, rows in tries:
        got = runtime.run_in_batches(graph, everything[rows], size)
        if any(one.shape != other[rows].shape for one, other in zip(got, expected, strict=True)):
            raise CheckFailed(
                f"the graph gives {got[0].shape} where the network gives {expected[0][rows].shape}", "a bug"
            )
        ort = got[0]
        by_image = np.maximum(_by_row(got[0] - expected[0][rows]), _by_row(got[1] - expected[1][rows]))
        errors[str(size)] = max(errors.get(str(size), 0.0), float(by_image.max()))
        np.maximum.at(worst, rows, by_image)
        np.maximum.at(excess, rows, by_image / allowed[rows])
    where = int(excess.argmax())
    flips = ort.argmax(1) != torch32[0].argmax(1)
    margins = _margins(torch32[0])
    far_flips = flips & (margins > 2 * allowed)
    finite = bool(np.isfinite(worst).all())
    tolerance = float(allowed[real].max())
    report: dict[str, Any] = {
        "passed": finite and float(excess.max()) <= 1.0 and not bool(far_flips.any()),
        "max_abs": _number(float(worst.max())),
        "tolerance": tolerance,
        "noise_floor": common,
        "reference": precision,
        "largest_logit": largest,
        "top1_agreement": float((~flips[real]).mean()),
        "flips": [{"input": names[i], "margin": float(margins[i])} for i in np.flatnonzero(flips)[:20]],
        "batches": sorted(int(size) for size in errors),
        "max_abs_by_batch": {size: _number(errors[size]) for size in sorted(errors, key=int)},
        "max_abs_by_edge": {name: _number(float(error)) for name, error in zip(edges, worst, strict=False)},
        "worst": {"input": names[where], "max_abs": _number(float(worst[where])), "allowed": float(allowed[where])},
        "finite": finite,
        "images": kind,
        "n": len(images),
        "provider": graph.provider,
    }
    if labels is not None:
        report["accuracy"] = {
            "torch": metrics.accuracy(torch32[0][real], labels),
            "onnxruntime": metrics.accuracy(ort[real], labels),
        }
    kept = np.arange(min(exact, len(edges) + GOLDEN_IMAGES))
    golden = {
        "images": everything[kept],
        "logits": reference[0][kept].astype(np.float32),
        "probabilities": reference[1][kept].astype(np.float32),
        "allowed": allowed[kept],
    }
    return Parity(report, golden)


def _rows_for(size: int, edges: int, total: int) -> list[np.ndarray]:
    """The images that are run at a small batch size: all edge images, and three batches of the others."""
    return [np.arange(edges), edges + np.arange(min(3 * size, total - edges))]


def _by_row(differences: np.ndarray) -> np.ndarray:
    """The largest magnitude of each row; infinite where anything is not a number."""
    return np.nan_to_num(np.abs(differences), nan=np.inf).max(1)


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
    worst = report["worst"]
    if not report["finite"]:
        return f"parity failed: the graph gives NaN or infinity, first on {worst['input']}"
    return (
        f"parity failed: {worst['max_abs']:.2e} on {worst['input']}, where {worst['allowed']:.2e} is allowed; "
        f"agreement {report['top1_agreement']:.4f}"
    )
