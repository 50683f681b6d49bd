"""A data set that lives on the device as uint8 and is cropped and flipped there, a batch at a time.

One gather picks the images, shifts them and mirrors them, so an image costs no Python of its own. What is drawn for an
image depends on the seed, the epoch and the image's index only, not on the batches around it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """Random changes that keep the label.

    Attributes:
        shift: Largest shift along each axis in pixels; what comes in at the border is mirrored.
        flip: Whether half of the images are mirrored left to right.
    """

    shift: int
    flip: bool


class Batches:
    """The training images on a device.

    Args:
        images: `uint8[N, H, W, 3]`.
        labels: `int64[N]`.
        batch_size: Images a batch; at most N.
        augmentation: What is done to them.
        seed: Seed of the order and of the augmentation.
        device: Where they live.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        batch_size: int,
        augmentation: Augmentation,
        seed: int,
        device: torch.device,
    ) -> None:
        self.images = torch.from_numpy(np.ascontiguousarray(images)).to(device)
        self.labels = torch.from_numpy(labels).to(device)
        self.batch_size = min(batch_size, len(images))
        self.augmentation, self.seed, self.device = augmentation, seed, device

    def __len__(self) -> int:
        """Batches an epoch; the images that do not fill the last one have their turn in another epoch."""
        return len(self.images) // self.batch_size

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of one epoch, `uint8[n, H, W, 3]` and `int64[n]`: the same for the same number."""
        count, (height, width) = len(self.images), self.images.shape[1:3]
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        order = torch.randperm(count, generator=generator).to(self.device)
        shift = self.augmentation.shift
        shifts = torch.randint(-shift, shift + 1, (count, 2), generator=generator).to(self.device)
        mirrored = torch.rand(count, generator=generator).lt(0.5).to(self.device) & self.augmentation.flip
        rows, columns = torch.arange(height, device=self.device), torch.arange(width, device=self.device)
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            chosen = order[start : start + self.batch_size]
            y = _reflected(rows + shifts[chosen, :1], height)
            x = _reflected(columns + shifts[chosen, 1:], width)
            x = torch.where(mirrored[chosen, None], x.flip(1), x)
            yield self.images[chosen[:, None, None], y[:, :, None], x[:, None, :]], self.labels[chosen]


def _reflected(position: Tensor, length: int) -> Tensor:
    """Positions mirrored at both ends of an axis, the end itself not repeated."""
    return (length - 1) - ((length - 1) - position.abs()).abs()


def statistics(images: np.ndarray) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and standard deviation of each channel on the 0–1 scale, from the histogram of the pixels."""
    counts = np.stack([np.bincount(images[..., channel].ravel(), minlength=256) for channel in range(3)])
    share, levels = counts / counts.sum(1, keepdims=True), np.arange(256) / 255
    mean = share @ levels
    deviation = np.sqrt(np.maximum(share @ levels**2 - mean**2, 0)).clip(1e-3)  # a constant channel stays constant
    return tuple(round(float(v), 6) for v in mean), tuple(round(float(v), 6) for v in deviation)  # type: ignore[return-value]
