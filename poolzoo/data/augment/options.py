"""The values of `--crop-scale` and `--policy` as they are typed. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MAGNITUDES: Final = 31  # of an operator, evenly spaced
MAX_OPERATORS: Final = 14  # an image passes at most
RAND: Final = "2,9"  # torchvision's operators and magnitude


@dataclass(frozen=True)
class Policy:
    """Which operators an image passes.

    Attributes:
        kind: "trivial" or "rand".
        operators: Operators an image; TrivialAugment has one.
        magnitude: Of RandAugment, 0–30; None for TrivialAugment, which draws it.
    """

    kind: str
    operators: int = 1
    magnitude: int | None = None

    def __str__(self) -> str:
        return self.kind if self.magnitude is None else f"{self.kind}:{self.operators},{self.magnitude}"


def parse_policy(text: str) -> Policy | None:
    """The policy that `none`, `trivial`, `rand` or `rand:N,M` means; None for none.

    Raises:
        ValueError: It is none of these.
    """
    if text == "none":
        return None
    if text == "trivial":
        return Policy("trivial")
    kind, colon, numbers = text.partition(":")
    operators, magnitude = _pair(numbers if colon else RAND, int)
    if kind != "rand" or not 1 <= operators <= MAX_OPERATORS or not 0 <= magnitude < MAGNITUDES:
        raise ValueError(text)
    return Policy("rand", operators=int(operators), magnitude=int(magnitude))


def parse_crop_scale(text: str) -> tuple[float, float] | None:
    """The least and the largest share of an image's area that `LOW,HIGH` means; None for `none`.

    Raises:
        ValueError: It is none of these, or not 0 < LOW ≤ HIGH ≤ 1.
    """
    if text == "none":
        return None
    low, high = _pair(text, float)
    if not 0 < low <= high <= 1:
        raise ValueError(text)
    return low, high


def _pair(text: str, kind: type[int] | type[float]) -> tuple[float, float]:
    first, second = (kind(part) for part in text.split(","))
    return first, second
