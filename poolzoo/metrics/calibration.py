"""What turns logits into logits whose probabilities can be believed: a temperature, alone or with more.

Beside it there may be a scale and bias of each class. These three are those of Guo, Pleiss, Sun and Weinberger, On
Calibration of Modern Neural Networks, ICML 2017, arXiv:1706.04599, section 4.2. Or label smoothing is taken back. A
network that is trained with it learns `q = (1 - s) p + s / K` of the true probabilities p of K classes (Szegedy,
Vanhoucke, Ioffe, Shlens and Wojna, Rethinking the Inception Architecture for Computer Vision, CVPR 2016,
arXiv:1512.00567, section 7), so that p is proportional to `x = q - s / K`. No q is exact, and x may be negative: p is
taken as proportional to the hyperbola `x + sqrt(x ** 2 + (s / (5 K)) ** 2)`, which is above 0. It keeps the order of
classes. `calibration_fit.py` chooses the map. Needs numpy only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from poolzoo.common import json_reader
from poolzoo.metrics.activations import softmax

MOST: Final = 1e12  # of temperature, scale and bias, and the inverse of the least: float32 holds their ratios
# Beyond these, probabilities are 0 and 1, or all alike.
MIN_TEMPERATURE: Final = 0.05
MAX_TEMPERATURE: Final = 20.0
# Of the probability. Below MAX_SMOOTHING, the largest probability stays well above what is taken away.
MIN_SMOOTHING: Final = 1e-4
MAX_SMOOTHING: Final = 0.5
METHODS: Final = ("temperature", "unsmoothing", "vector")
CORNER: Final = 0.2  # the hyperbola's height at x = 0, as a share of what is taken away


@dataclass(frozen=True)
class Calibration:
    """A map of logits before softmax or sigmoid.

    It is `z → z · scale / temperature + bias`, or with smoothing s the logarithm of the hyperbola of
    `softmax(z / temperature) - s / K`.

    Attributes:
        temperature: T of temperature scaling: above 1 probabilities become less certain, below 1 more.
        scale: A positive factor of each class beside it (vector scaling), or of each label (Platt scaling).
        bias: What is added to each class or label; both or neither are None.
        smoothing: The share s of all probability that label smoothing gave to all classes alike, for images with one
            label; None where none is taken back, and beside a scale.
    """

    temperature: float
    scale: tuple[float, ...] | None = None
    bias: tuple[float, ...] | None = None
    smoothing: float | None = None

    @property
    def method(self) -> str:
        """Its name: "temperature", "unsmoothing" or "vector"."""
        if self.smoothing is not None:
            return "unsmoothing"
        return "temperature" if self.scale is None else "vector"

    @property
    def factors(self) -> np.ndarray:
        """What logits are multiplied by: `float32[1]` or `float32[K]`, as in a graph."""
        return (np.asarray(self.scale or (1.0,), np.float64) / self.temperature).astype(np.float32)

    @property
    def offsets(self) -> np.ndarray | None:
        """What is added then, `float32[K]`; None for nothing."""
        return None if self.bias is None else np.asarray(self.bias, np.float32)

    def hyperbola(self, classes: int) -> tuple[float, float, float] | None:
        """The float32 numbers a, b and c of `y = a q - b` and `y + sqrt(y ** 2 + c)`, which smoothing makes of q.

        This is the hyperbola of the module's docstring times `sqrt(K / s)`: squares then overflow and vanish last.

        Args:
            classes: Their number K.
        """
        if self.smoothing is None:
            return None
        level = self.smoothing / classes
        gain, shift, corner = np.array([level**-0.5, level**0.5, CORNER**2 * level], np.float32).tolist()
        return gain, shift, corner

    def apply(self, logits: np.ndarray) -> np.ndarray:
        """Calibrated logits, `float[…, K] → float64[…, K]`, of the same numbers that a graph holds."""
        scaled: np.ndarray = logits.astype(np.float64) * self.factors.astype(np.float64)
        numbers = self.hyperbola(logits.shape[-1])
        if numbers is not None:
            gain, shift, corner = numbers
            with np.errstate(invalid="ignore"):  # of logits that are infinite
                y = gain * softmax(scaled) - shift
            return np.asarray(np.log(y + np.sqrt(y**2 + corner)))
        return scaled if self.offsets is None else scaled + self.offsets.astype(np.float64)

    def calibrated_probabilities(self, plain: Sequence[float]) -> tuple[float, ...]:
        """What these sigmoids of plain logits become, one of each label, 0–1."""
        share = np.asarray(plain, np.float64)
        with np.errstate(divide="ignore", over="ignore"):
            return tuple(map(float, 1 / (1 + np.exp(-self.apply(np.log(share) - np.log1p(-share))))))

    def plain_probabilities(self, calibrated: Sequence[float]) -> tuple[float, ...]:
        """The sigmoids of plain logits that become these probabilities, one of each label, 0–1."""
        share = np.asarray(calibrated, np.float64)
        with np.errstate(divide="ignore"):
            logits = np.log(share) - np.log1p(-share)
        plain = (logits - (0.0 if self.offsets is None else self.offsets)) / self.factors
        with np.errstate(over="ignore"):
            return tuple(map(float, 1 / (1 + np.exp(-plain))))

    def to_json(self) -> dict[str, object]:
        """The value of `calibration` in `config.json` and in the metadata of a graph."""
        vector = {} if self.scale is None or self.bias is None else {"scale": [*self.scale], "bias": [*self.bias]}
        smoothing = {} if self.smoothing is None else {"smoothing": self.smoothing}
        return {"method": self.method, "temperature": self.temperature, **smoothing, **vector}

    @classmethod
    def from_json(cls, found: object, count: int) -> Calibration | None:
        """Reads what `to_json` wrote; None stands for no calibration.

        Args:
            found: The value, or None where a file has none.
            count: Number of classes or labels.

        Raises:
            ValueError: It is no calibration of so many classes.
        """
        if found is None:
            return None
        if not isinstance(found, dict):
            raise ValueError("calibration with a temperature above 0")
        if found.get("method", METHODS[0]) not in METHODS:
            raise ValueError(f"calibration by {' or '.join(METHODS)}, but one by {found['method']!r:.40}")
        read = cls._read(found, count)
        if found.get("method", read.method) != read.method:
            raise ValueError(f"calibration with the method of its numbers, {read.method}")
        return read

    @classmethod
    def _read(cls, found: Mapping[str, Any], count: int) -> Calibration:
        if not _is_finite(found.get("temperature")) or found["temperature"] <= 0:
            raise ValueError("calibration with a temperature above 0")
        temperature = float(found["temperature"])
        if not 1 / MOST <= temperature <= MOST:
            raise ValueError(f"calibration with a temperature up to {MOST:g}")
        scale, bias, smoothing = found.get("scale"), found.get("bias"), found.get("smoothing")
        if smoothing is not None:
            is_alone = scale is None and bias is None
            if not (is_alone and _is_finite(smoothing) and MIN_SMOOTHING <= smoothing <= MAX_SMOOTHING):
                raise ValueError(
                    f"calibration with a smoothing from {MIN_SMOOTHING:g} to {MAX_SMOOTHING:g}, without a scale"
                )
            return cls(temperature, smoothing=float(smoothing))
        if scale is None and bias is None:
            return cls(temperature)
        scales, biases = _numbers(scale, count), _numbers(bias, count)
        if not 1 / MOST <= min(scales) <= max(scales) <= MOST or max(map(abs, biases)) > MOST:
            raise ValueError("calibration with scales above 0")
        return cls(temperature, scales, biases)


def _numbers(found: object, count: int) -> tuple[float, ...]:
    """So many finite numbers."""
    if not isinstance(found, list) or len(found) != count or not all(map(_is_finite, found)):
        raise ValueError(f"calibration with scale and bias of {count} classes")
    return tuple(map(float, found))


def _is_finite(value: object) -> bool:
    return json_reader.number(value) is not None
