"""What `--test-fraction` asks for, as plain values that runs and bundles keep."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HeldOut:
    """Which of the training images are test images: a share of them, chosen by a seed."""

    fraction: float
    seed: int = 0
