"""What a runtime is judged on: the golden images of the bundle, and cases that the bundle does not store.

A runtime that knows the stored answers still has to compute the others. Their reference is ONNX Runtime on the CPU,
which the host opens in the same run. A faithful runtime and ONNX Runtime are each within the tolerance of the golden
images of the network, so two of these lie between both. An edge case is allowed sixteen times the noise of ONNX
Runtime itself in addition: that is its distance to the same graph without optimizations, and to batches of one. Golden
images have their stored tolerance twice, and golden edge cases four times: another order of sums on extreme values
moves more than the noise that export measured. Of an edge case, a ten-thousandth of its largest logit is allowed in any
case: that is what convolutions by Winograd's method may cost.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from poolzoo.artifacts import reading
from poolzoo.artifacts.schema import Parity
from poolzoo.common import files
from poolzoo.common.errors import CheckFailed
from poolzoo.metrics.decisions import ONE_LABEL, Decision
from poolzoo.runtime import ort_session, photo_input

SOURCES: Final = 4  # golden images that each kind of natural case is made of
EDGE_FACTOR: Final = 16.0
EDGE_SHARE: Final = 1e-4  # of the largest logit of an edge case
GOLDEN_FACTORS: Final = (2.0, 4.0)  # of the stored tolerances of natural images and of edge cases
MAX_FLOOR: Final = 1e-3  # of the largest logit; above it only NaN and infinity fail, since rounding decides
LOWER: Final = 1 / 16  # of the largest logit: what lower arithmetic may cost
AGREEMENT: Final = 0.99  # of predicted classes, where a bundle states no limit


@dataclass(frozen=True, kw_only=True)
class Cases:
    """Images with their reference.

    Attributes:
        names: A name for each.
        images: `uint8[N, h, w, 3]`.
        logits, probabilities: The reference, `float[N, K]`.
        allowed: The tolerance of each, in float32 arithmetic, `[N]`.
        natural: Which are natural images, whose predicted class counts, `bool[N]`.
    """

    names: tuple[str, ...]
    images: np.ndarray
    logits: np.ndarray
    probabilities: np.ndarray
    allowed: np.ndarray
    natural: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def rows(self, rows: np.ndarray) -> Cases:
        """Some of the cases, `int[N]`, each as often as it is named."""
        return Cases(
            names=tuple(self.names[row] for row in rows.tolist()),
            images=self.images[rows],
            logits=self.logits[rows],
            probabilities=self.probabilities[rows],
            allowed=self.allowed[rows],
            natural=self.natural[rows],
        )


@dataclass(frozen=True, kw_only=True)
class CaseSet:
    """Everything that a runtime is judged on.

    Attributes:
        golden: What the bundle stores.
        synthetic: What it does not store.
        photographs: One case each, of a size of its own, where the graph takes them so: those that the bundle stores,
            and their mirror images.
        lower: Whether the graph itself is in lower precision, and is judged by the limits of such.
        agreement: The least fraction of natural images whose class must be that of the reference, in lower precision;
            of several labels, the least mean Jaccard index of the sets.
        decision: How logits become labels.
    """

    golden: Cases
    synthetic: Cases
    photographs: tuple[Cases, ...]
    lower: bool
    agreement: float
    decision: Decision = ONE_LABEL


def make_cases(bundle: Path) -> CaseSet:
    """The cases of a bundle.

    Raises:
        CheckFailed: The stored ones cannot be read, or ONNX Runtime does not open the graph.
    """
    golden, file = golden_cases(bundle), bundle / "model.onnx"
    model = ort_session.open_model(file, "cpu", 1)
    return CaseSet(
        golden=golden,
        synthetic=_synthetic(golden, model, ort_session.open_model(file, "cpu", 1, optimized=False)),
        photographs=_photographs(bundle, model) if model.takes_photos else (),
        lower=is_lower(model),
        agreement=float(_parity(bundle).get("limits", {}).get("agreement", AGREEMENT)),
        decision=model.decision,
    )


def is_lower(model: ort_session.OnnxModel) -> bool:
    """Whether a graph is in lower precision than float32."""
    return str(model.metadata.get("precision", '"fp32"')).strip('"') != "fp32"


def golden_cases(bundle: Path) -> Cases:
    """What a bundle stores.

    Raises:
        CheckFailed: It cannot be read.
    """
    names = ("images", "logits", "probabilities", "allowed")
    images, logits, probabilities, allowed = files.read_arrays(bundle / "golden.npz", names)
    require_images(images)
    if logits.ndim != 2 or len(logits) != len(images) or probabilities.shape != logits.shape or not logits.size:
        raise CheckFailed(f"golden.npz holds no outputs of its {len(images)} images", "export it again")
    if {logits.dtype.kind, probabilities.dtype.kind, allowed.dtype.kind} != {"f"}:
        raise CheckFailed("golden.npz holds outputs or tolerances that are no floats", "export it again")
    if allowed.shape != (len(images),):
        raise CheckFailed(f"golden.npz holds no tolerance of each of its {len(images)} images", "export it again")
    edges = list(_parity(bundle).get("max_abs_by_edge", {}))[: len(images) - 1]
    natural = np.arange(len(images)) >= len(edges)
    share = EDGE_SHARE * np.abs(logits).max(1).astype(np.float64)
    return Cases(
        names=(*edges, *(f"golden image {index}" for index in range(len(images) - len(edges)))),
        images=images,
        logits=logits,
        probabilities=probabilities,
        allowed=np.where(natural, GOLDEN_FACTORS[0] * allowed, np.maximum(GOLDEN_FACTORS[1] * allowed, share)),
        natural=natural,
    )


def _parity(bundle: Path) -> Parity:
    return reading.read_parity(bundle)


def require_images(images: np.ndarray) -> None:
    """Makes sure that the golden images are images.

    Raises:
        CheckFailed: They are not.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or not len(images):
        found = f"{images.dtype}{list(images.shape)}"
        raise CheckFailed(f"golden.npz holds {found}, no images uint8[N, height, width, 3]", "export it again")


def _synthetic(golden: Cases, model: ort_session.OnnxModel, plain: ort_session.OnnxModel) -> Cases:
    photos = golden.images[golden.natural]
    generator = np.random.default_rng()  # new ones in each run, which no runtime can have seen
    natural = list(_natural(photos[:SOURCES], photos[-SOURCES:][::-1], generator))
    edges = list(_edges(golden.images.shape[1:3], generator))
    images = np.stack([image for _, image in natural + edges])
    logits, probabilities = model.run(images)
    others = [
        ort_session.run_in_batches(model, images, 1)[0],
        ort_session.run_in_batches(plain, images, len(images))[0],
    ]
    floors = np.maximum.reduce([np.abs(one - logits).max(1) for one in others]).astype(np.float64)
    usual = float(np.abs(golden.logits[golden.natural]).max())
    scale = np.maximum(1.0, np.abs(logits).max(1) / usual) if usual else np.ones(len(images))
    allowed = float(golden.allowed[golden.natural].max()) * scale
    is_edge = np.arange(len(images)) >= len(natural)
    allowed = allowed + np.where(is_edge, EDGE_FACTOR * floors, 2 * floors)
    allowed[is_edge] = np.maximum(allowed, EDGE_SHARE * np.abs(logits).max(1))[is_edge]
    unstable = floors > MAX_FLOOR * np.maximum(np.abs(logits).max(1), usual)
    allowed[is_edge & unstable] = 2 * np.abs(logits).max()
    return Cases(
        names=tuple(name for name, _ in natural + edges),
        images=images,
        logits=logits,
        probabilities=probabilities,
        allowed=allowed,
        natural=~is_edge,
    )


def _photographs(bundle: Path, model: ort_session.OnnxModel) -> tuple[Cases, ...]:
    """The photographs that a bundle stores, and their mirror images, with ONNX Runtime's answers as the reference.

    Raises:
        CheckFailed: They cannot be read.
    """
    try:
        arrays = files.read_archive(bundle / "golden.npz")
        stored, (logits, probabilities, allowed) = photo_input.from_arrays(arrays)
    except (KeyError, ValueError) as error:
        raise CheckFailed(f"golden.npz holds no photographs: {error}", "export it again") from error
    found = []
    for index, photograph in enumerate(stored):
        mirrored = np.ascontiguousarray(photograph[:, ::-1])
        its_logits, its_probabilities = model.run(mirrored[None])
        answers = (
            (photograph, logits[index], probabilities[index]),
            (mirrored, its_logits[0], its_probabilities[0]),
        )
        height, width = photograph.shape[:2]
        for kind, (image, expected, chances) in zip(("photograph", "mirrored photograph"), answers, strict=True):
            one = Cases(
                names=(f"{kind} of {height}×{width}",),
                images=image[None],
                logits=expected[None],
                probabilities=chances[None],
                allowed=GOLDEN_FACTORS[0] * allowed[index : index + 1],
                natural=np.array([True]),
            )
            found.append(one)
    return tuple(found)


def _natural(first: np.ndarray, second: np.ndarray, generator: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
    """Images made of natural ones: mirrored, shifted, darker, and mixtures of two."""
    height, width = first.shape[1:3]
    for index, (one, other) in enumerate(zip(first, second, strict=True)):
        yield f"mirrored {index}", one[:, ::-1].copy()
        yield f"shifted {index}", np.roll(one, (max(1, height // 7), max(1, width // 5)), (0, 1))
        yield f"darker {index}", (one * generator.uniform(0.6, 0.9)).astype(np.uint8)
        part = generator.uniform(0.3, 0.7)
        mixed = part * one + (1 - part) * np.roll(other, 1, 1)
        yield f"mixed {index}", mixed.astype(np.uint8)


def _edges(size: tuple[int, int], generator: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
    """Extreme images that no bundle stores."""
    height, width = size
    rows, columns = np.indices((height, width))
    ramp = (columns * 255 // max(1, width - 1)).astype(np.uint8)
    yield "ramp", np.stack([ramp, ramp[:, ::-1], (rows * 255 // max(1, height - 1)).astype(np.uint8)], -1)
    yield "stripes", np.repeat(((rows // 2 % 2) * 255).astype(np.uint8)[..., None], 3, -1)
    blue = np.zeros((height, width, 3), np.uint8)
    blue[..., 2] = 255
    yield "blue", blue
    dark = np.zeros((height, width, 3), np.uint8)
    dark[0, -1] = 1
    yield "nearly black", dark
    yield "few levels of noise", generator.integers(120, 124, (height, width, 3), dtype=np.uint8)
    yield "black and white noise", (generator.integers(0, 2, (height, width, 3)) * 255).astype(np.uint8)
