"""A call of a network in two precisions, and which of its values an array is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from poolzoo.parity.reduction.difference import compare
from poolzoo.parity.reduction.tape import Tape

NOISE_FACTOR: Final = 8.0  # of the distance between torch in float32 and in float64
RELATIVE: Final = 4e-6  # of the largest magnitude of the value
SAMPLES: Final = 16  # numbers that are compared before all are


@dataclass(frozen=True)
class _Shape:
    """The values of one shape: their numbers on the tape, a few of their entries, and their tolerances."""

    indices: np.ndarray
    places: np.ndarray
    samples: np.ndarray
    allowed: np.ndarray


@dataclass(frozen=True)
class Recordings:
    """The same call of a network in float32 and in float64; `single` is None where the two have other steps."""

    double: Tape
    single: Tape | None

    def tolerance(self, index: int) -> float:
        """How far a faithful value may be from torch's in float64."""
        expected = self.double.array(index)
        finite = np.isfinite(expected)
        scale = float(np.abs(expected[finite]).max(initial=0))
        noise = 0.0
        if self.single is not None:
            with np.errstate(invalid="ignore"):
                distance = np.abs(self.single.array(index) - expected)
            noise = float(distance[np.isfinite(distance)].max(initial=0))
        return NOISE_FACTOR * noise + RELATIVE * scale

    def agrees(self, found: np.ndarray, index: int) -> bool:
        """Whether an array is one of torch's values."""
        return index in self.equal(found)

    def equal(self, found: np.ndarray) -> list[int]:
        """The numbers of the values of torch that an array is equal to, in their order."""
        known = self._by_shape.get(found.shape)
        if known is None:
            return []
        with np.errstate(invalid="ignore"):
            distance = np.abs(found.ravel()[known.places] - known.samples)
        near = ~(distance > known.allowed[:, None]).any(1)
        return [
            int(index)
            for index, allowed in zip(known.indices[near], known.allowed[near], strict=True)
            if self._is_within(found, int(index), float(allowed))
        ]

    def _is_within(self, found: np.ndarray, index: int, allowed: float) -> bool:
        difference = compare(found, self.double.array(index))
        return not difference.non_finite and (difference.max_abs or 0.0) <= allowed

    @cached_property
    def _by_shape(self) -> dict[tuple[int, ...], _Shape]:
        grouped: dict[tuple[int, ...], list[int]] = {}
        for index in [*self.double.inputs, *self.double.makers]:
            value = self.double.values[index]
            if value.is_floating_point() and value.numel():
                grouped.setdefault(tuple(value.shape), []).append(index)
        found = {}
        for shape, indices in grouped.items():
            size = int(np.prod(shape))
            places = np.linspace(0, size - 1, min(size, SAMPLES)).astype(int)
            samples = np.stack([self.double.array(one).ravel()[places] for one in indices])
            allowed = np.array([self.tolerance(one) for one in indices])
            found[shape] = _Shape(np.array(indices), places, samples, allowed)
        return found
