"""What turns logits into logits whose probabilities can be believed: a temperature, alone or with more.

Beside it there may be a power, or a scale and bias of each class. Temperature, scale and bias are those of Guo, Pleiss,
Sun and Weinberger, On Calibration of Modern Neural Networks, ICML 2017, arXiv:1706.04599, section 4.2. With a power b,
calibrated logits are `-(d / T) ** b` of the distances d of logits to the largest one. This keeps the order of classes
(Rahimi, Shaban, Cheng, Hartley and Boots, Intra Order-preserving Functions for Calibration of Multi-Class Neural
Networks, NeurIPS 2020, arXiv:2003.06820). `calibration_fit.py` chooses the map. Needs numpy only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from poolzoo.common import json_reader

MOST: Final = 1e12  # of temperature, scale and bias, and the inverse of the least: float32 holds their ratios
# Beyond these, probabilities are 0 and 1, or all alike.
MIN_TEMPERATURE: Final = 0.05
MAX_TEMPERATURE: Final = 20.0
# Below 1 the slope at distance 0 is infinite, so that rounding decides there. Far above 1, small distances vanish.
MIN_POWER: Final = 1.0
MAX_POWER: Final = 2.0
# Added to distances in powers: ncnn computes powers with a logarithm, and is wrong at 0.
DISTANCE_EPS: Final = 1e-6


@dataclass(frozen=True)
class Calibration:
    """A map of logits before softmax or sigmoid.

    It is `z → z · scale / temperature + bias`, or with a power `z → -((max(z) - z) / temperature) ** power`.

    Attributes:
        temperature: T of temperature scaling: above 1 probabilities become less certain, below 1 more.
        scale: A positive factor of each class beside it (vector scaling), or of each label (Platt scaling).
        bias: What is added to each class or label; both or neither are None.
        power: Of the distance to the largest logit, above 1, for images with one label; None without, and beside a
            scale.
    """

    temperature: float
    scale: tuple[float, ...] | None = None
    bias: tuple[float, ...] | None = None
    power: float | None = None

    @property
    def method(self) -> str:
        """Its name: "temperature", "power" or "vector"."""
        if self.power is not None:
            return "power"
        return "temperature" if self.scale is None else "vector"

    @property
    def factors(self) -> np.ndarray:
        """What logits, or powers of their distances, are multiplied by: `float32[1]` or `float32[K]`, as in a graph."""
        if self.power is not None:
            return np.asarray([self.temperature**-self.power], np.float32)
        return (np.asarray(self.scale or (1.0,), np.float64) / self.temperature).astype(np.float32)

    @property
    def offsets(self) -> np.ndarray | None:
        """What is added then, `float32[K]`; None for nothing."""
        return None if self.bias is None else np.asarray(self.bias, np.float32)

    @property
    def exponent(self) -> np.ndarray | None:
        """What distances are raised to before they multiply themselves, `float32[1]`: power - 1; None without one."""
        return None if self.power is None else np.asarray([self.power - 1], np.float32)

    def apply(self, logits: np.ndarray) -> np.ndarray:
        """Calibrated logits, `float[…, K] → float64[…, K]`, of the same numbers that a graph holds."""
        factors, exponent = self.factors.astype(np.float64), self.exponent
        if exponent is not None:
            with np.errstate(invalid="ignore", over="ignore"):  # of logits that are infinite, or enormous
                below = logits.astype(np.float64) - logits.max(-1, keepdims=True)
                return np.asarray(below * (DISTANCE_EPS - below) ** exponent.astype(np.float64) * factors)
        scaled: np.ndarray = logits.astype(np.float64) * factors
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
        power = {} if self.power is None else {"power": self.power}
        return {"method": self.method, "temperature": self.temperature, **power, **vector}

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
        scale, bias, power = found.get("scale"), found.get("bias"), found.get("power")
        if power is not None:
            is_alone = scale is None and bias is None
            if not (is_alone and _is_finite(power) and MIN_POWER <= power <= MAX_POWER):
                raise ValueError(f"calibration with a power from {MIN_POWER:g} to {MAX_POWER:g}, without a scale")
            return cls(temperature, power=float(power))
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
