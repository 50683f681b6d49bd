"""Bundles whose graph takes photographs of any size: the names in their graph, and the check of their stored ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from poolzoo.runtime import tolerance
from poolzoo.runtime.ort_session import OnnxModel

PREFIX: Final = "photo/"  # of the names of what was added to the graph, and of arrays in golden.npz
PIXELS: Final = f"{PREFIX}pixels"  # what the network sees of the photograph: whole levels, float32[1, h, w, 3]
STORED: Final = tuple(
    PREFIX + name for name in ("logits", "probabilities", "allowed")
)  # beside `photo/0`, `photo/1`, …


def to_arrays(photographs: list[np.ndarray], *expected: np.ndarray) -> dict[str, np.ndarray]:
    """Photographs and what is expected of them, as arrays of `golden.npz`.

    Args:
        photographs: `uint8[H, W, 3]`, each of its own size.
        expected: Logits and probabilities, `float[N, classes]`, and the tolerance of each photograph, `float[N]`.
    """
    stored = dict(zip(STORED, expected, strict=True))
    return {f"{PREFIX}{index}": photograph for index, photograph in enumerate(photographs)} | stored


def from_arrays(arrays: Mapping[str, np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """What `to_arrays` was given.

    Raises:
        KeyError: An array is missing.
    """
    expected = [arrays[name] for name in STORED]
    return [arrays[f"{PREFIX}{index}"] for index in range(len(expected[0]))], expected


def compare(model: OnnxModel, arrays: Mapping[str, np.ndarray]) -> tuple[bool, str]:
    """Whether an opened graph gives what is expected of stored photographs, and a detail in words.

    Raises:
        KeyError, ValueError: The arrays are not those of `to_arrays`, or not of this graph.
    """
    photographs, (*expected, allowed) = from_arrays(arrays)
    outputs = model.run_list(photographs)
    rows = [tolerance.distances(a, b).max(1) for a, b in zip(outputs, expected, strict=True)]
    difference = np.maximum(*rows)
    worst, _ = tolerance.closest_to_limit(difference, allowed)
    height, width = photographs[worst].shape[:2]
    detail = (
        f"of {len(photographs)} photographs the one of {height}×{width} is closest to its limit: "
        f"difference {difference[worst]:.2e}, allowed {allowed[worst]:.2e}"
    )
    return bool((difference <= allowed).all()), detail
