"""Does a graph that takes photographs see in them what training saw? Its resize against Pillow's, level by level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, cast

import numpy as np
from PIL import Image

from poolzoo.artifacts import schema
from poolzoo.data import images as pixels
from poolzoo.data.resize import Fit
from poolzoo.data.sizes import Size
from poolzoo.runtime import onnx_file, ort_session, photo_input, tolerance

MAX_LEVELS: Final = 3  # of 255 by which a value may differ; float32 and Pillow's integers round some to either side
MAX_MEAN: Final = 0.1  # levels; a resize without the filter differs by several
# A logit may change by four times what it changes where a tenth of the values are one level off, at random.
MOVED, DRAWS, FACTOR = 0.1, 8, 4.0


@dataclass(frozen=True, kw_only=True)
class PhotoCheck:
    """Photographs of several sizes in the graph, against Pillow's resize and the graph for images of one size.

    Attributes:
        passed: Whether levels and outputs are within their tolerances.
        photographs: How many were compared.
        max_levels, mean_levels: The difference of the resized photographs, in levels of 255.
        differing: The fraction of their values that differs.
        max_abs, allowed: The difference of the outputs and its tolerance, of the photograph closest to its limit.
        flips: On how many another class is predicted.
    """

    passed: bool
    photographs: int
    max_levels: int
    mean_levels: float
    differing: float
    max_abs: float | None
    allowed: float
    flips: int

    def to_json(self) -> schema.Photographs:
        """`photographs` in `parity.json`."""
        return cast(schema.Photographs, asdict(self))

    def describe(self) -> str:
        """What was found, in words."""
        difference = "not finite" if self.max_abs is None else f"{self.max_abs:.2e} of {self.allowed:.2e} allowed"
        return (
            f"on {self.photographs} photographs at most {self.max_levels} of 255 levels from Pillow's resize, "
            f"{self.mean_levels:.4f} in the mean; difference {difference}"
        )


def check(
    graph: ort_session.OnnxModel, file: Path, stored: ort_session.OnnxModel, images: np.ndarray
) -> tuple[PhotoCheck, dict[str, np.ndarray]]:
    """Compares a graph that takes photographs with the one that it was made of.

    Args:
        graph: The graph, opened.
        file: Its file.
        stored: The graph for images of one size, which parity has been checked of.
        images: Images to make photographs of, `uint8[N, h, w, 3]`.

    Returns:
        The result, and arrays for `golden.npz`.
    """
    photographs = make_photographs(images)
    fitted = np.stack([_fitted(photograph, stored.size, stored.fit) for photograph in photographs])
    content = onnx_file.read(file).with_outputs([photo_input.PIXELS])
    session = ort_session.open_session(content, graph.provider)
    seen = [session.run([photo_input.PIXELS], {"images": photograph[None]})[0] for photograph in photographs]
    levels = np.abs(np.concatenate(seen) - fitted.astype(np.float32))
    outputs, expected = graph.run_list(photographs), stored.run(fitted)
    difference = _difference(outputs, expected)
    allowed = np.maximum(FACTOR * _sensitivity(stored, fitted, expected), 1e-6 * np.abs(expected[0]).max())
    worst, ratio = tolerance.closest_to_limit(difference, allowed)
    found = PhotoCheck(
        passed=bool(levels.max() <= MAX_LEVELS and levels.mean() <= MAX_MEAN and ratio <= 1),
        photographs=len(photographs),
        max_levels=int(levels.max()),
        mean_levels=float(levels.mean()),
        differing=float((levels > 0).mean()),
        max_abs=float(difference[worst]) if np.isfinite(difference[worst]) else None,
        allowed=float(allowed[worst]),
        flips=int((stored.decision.agreement(outputs[0], expected[0]) < 1).sum()),
    )
    return found, photo_input.to_arrays(photographs, *expected, allowed)


def make_photographs(images: np.ndarray) -> list[np.ndarray]:
    """Photographs of odd sizes, smaller and larger than the images: these side by side, cut to size.

    Args:
        images: `uint8[N, h, w, 3]`.
    """
    height, width = images.shape[1:3]
    wanted = [
        (height // 2 + 1, width // 2 + 2),
        (height + 1, width + 2),
        (height, width + width // 2 + 1),
        (2 * height + 1, 2 * width + 5),
        (3 * height - 1, 3 * width + 1),
    ]
    return [_mosaic(np.roll(images, -index, 0), size) for index, size in enumerate(wanted)]


def _mosaic(images: np.ndarray, size: Size) -> np.ndarray:
    height, width = images.shape[1:3]
    rows, columns = -(-size[0] // height), -(-size[1] // width)
    grid = images[np.arange(rows * columns) % len(images)].reshape(rows, columns, height, width, 3)
    whole = grid.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, 3)
    return np.ascontiguousarray(whole[: size[0], : size[1]])


def _fitted(photograph: np.ndarray, size: Size, how: Fit) -> np.ndarray:
    return np.asarray(pixels.fit(Image.fromarray(photograph), size, how))


def _sensitivity(stored: ort_session.OnnxModel, fitted: np.ndarray, expected: Sequence[np.ndarray]) -> np.ndarray:
    """How far the outputs of each image move where some values are one level off, `float[N]`."""
    generator = np.random.default_rng(0)
    moved = np.zeros(len(fitted))
    for _ in range(DRAWS):
        steps = generator.choice((-1, 0, 1), fitted.shape, p=(MOVED / 2, 1 - MOVED, MOVED / 2))
        near = (fitted + steps).clip(0, 255).astype(np.uint8)
        moved = np.maximum(moved, _difference(stored.run(near), expected))
    return moved


def _difference(outputs: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> np.ndarray:
    """The largest difference of each image, `float[N]`; infinite where an output is not finite."""
    rows = [tolerance.distances(a, b).max(1) for a, b in zip(outputs, expected, strict=True)]
    return np.asarray(np.maximum(*rows), np.float64)
