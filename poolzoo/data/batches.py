"""BatchLoader of a data set that is kept as uint8: shifted, mirrored and mixed many images at a time.

An image costs no Python of its own. What is drawn for an image depends on the seed, the epoch and the image's index
only, not on the batches around it, so several processes that share a batch draw what one would.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
import torch
from torch import Tensor

from poolzoo.data import blocks

Flip = Literal["off", "random", "alternating"]
RESIDENT_SHARE: Final = 0.25  # of a GPU's free memory that a data set may take; a larger one is copied batch by batch


@dataclass(frozen=True)
class Augmentation:
    """Random changes of the training images.

    Attributes:
        shift: Largest shift along each axis in pixels; what comes in at the border is mirrored.
        flip: "random" mirrors half of the images left to right, drawn anew in every epoch; "alternating" mirrors the
            other half in the next epoch (Jordan, 2024, arXiv 2404.00498), so that two epochs show both forms of each.
        cutout: Side in pixels of a square that is painted in the mean color (DeVries and Taylor, 2017); 0: none.
        mixup: α of mixup (Zhang et al., 2018), the weight of an image drawn from Beta(α, α) once a batch; 0: none.
        cutmix: α of CutMix (Yun et al., 2019), which replaces a box instead; with both, a coin decides for each batch.
    """

    shift: int = 0
    flip: Flip = "off"
    cutout: int = 0
    mixup: float = 0.0
    cutmix: float = 0.0


PLAIN: Final = Augmentation()


@dataclass(frozen=True)
class Rank:
    """Which part of every batch this process works on: every `size`-th image from the `rank`-th on."""

    rank: int = 0
    size: int = 1


ALL: Final = Rank()


@dataclass(frozen=True)
class Batch:
    """Images on the device with their labels, or with the labels of both images of a mixture.

    Attributes:
        images: `uint8[n, H, W, 3]`, or `float32` of the same range where images were mixed.
        labels: `int64[n]`.
        other: Labels of the images that were mixed in, `int64[n]`; None where nothing was.
        weight: Weight of `labels` in the loss; `other` has the rest.
    """

    images: Tensor
    labels: Tensor
    other: Tensor | None = None
    weight: float = 1.0


@dataclass(frozen=True)
class Draws:
    """What was drawn for every image of a data set for one epoch: arrays of N entries."""

    order: np.ndarray
    shifts: np.ndarray
    mirrored: np.ndarray
    centers: np.ndarray

    @classmethod
    def of(cls, count: int, size: tuple[int, int], augmentation: Augmentation, seed: int, epoch: int) -> Draws:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = torch.randperm(count, generator=generator)
        shift = augmentation.shift
        shifts = torch.randint(-shift, shift + 1, (count, 2), generator=generator)
        mirrored = torch.rand(count, generator=generator).lt(0.5)
        if augmentation.flip == "alternating":
            first = torch.rand(count, generator=torch.Generator().manual_seed(seed * 1_000_003)).lt(0.5)
            mirrored = first ^ bool(epoch % 2)
        elif augmentation.flip == "off":
            mirrored = torch.zeros(count, dtype=torch.bool)
        centers = torch.zeros(count, 2, dtype=torch.int64)
        if augmentation.cutout:
            centers = (torch.rand(count, 2, generator=generator) * torch.tensor(size)).long()
        return cls(order.numpy(), shifts.numpy(), mirrored.numpy(), centers.numpy())


class BatchLoader:
    """The training images and how they are served.

    Args:
        images: `uint8[N, H, W, 3]`, in memory or mapped from a file.
        labels: `int64[N]`.
        batch_size: Images a batch over all processes; at most N.
        augmentation: What is done to them.
        seed: Seed of the order and of the augmentation.
        device: Where the batches are needed.
        share: Which part of each batch is this process's.
        chosen: Indices of the images that belong to the set, `int64[n]`; None for all. The draws follow them.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        batch_size: int,
        augmentation: Augmentation,
        seed: int,
        device: torch.device,
        share: Rank = ALL,
        chosen: np.ndarray | None = None,
    ) -> None:
        self.chosen = np.arange(len(images)) if chosen is None else chosen
        self.pixels = Pixels(images, device)
        self.labels = torch.from_numpy(labels[self.chosen]).to(device)
        self.batch_size = min(batch_size, len(self.chosen))
        self.augmentation, self.seed, self.device, self.share = augmentation, seed, device, share

    def __len__(self) -> int:
        """BatchLoader an epoch; the images that do not fill the last one have their turn in another epoch."""
        return len(self.chosen) // self.batch_size

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, from the `start`-th on: the same for the same number."""
        draws = Draws.of(len(self.chosen), self.pixels.size, self.augmentation, self.seed, number)
        for step in range(start, len(self)):
            everyone = draws.order[step * self.batch_size : (step + 1) * self.batch_size]
            mine = everyone[self.share.rank :: self.share.size]
            images, labels = self._augmented(draws, mine), self.labels[sent(mine, self.device)]
            mix = Mix.drawn(self.augmentation, self.pixels.size, (self.seed, number, step))
            if mix is None:
                yield Batch(images, labels)
                continue
            partners = everyone[::-1][self.share.rank :: self.share.size].copy()
            other = self.labels[sent(partners, self.device)]
            yield Batch(mix.apply(images, self._augmented(draws, partners)), labels, other, mix.weight)

    def _augmented(self, draws: Draws, chosen: np.ndarray) -> Tensor:
        centers = draws.centers[chosen] if self.augmentation.cutout else None
        return self.pixels.take(
            self.chosen[chosen], draws.shifts[chosen], draws.mirrored[chosen], centers, self.augmentation.cutout
        )


@dataclass(frozen=True)
class Mix:
    """How the images of a batch are mixed with those of the reversed batch.

    Attributes:
        weight: Of the image's own label.
        box: Rows and columns (top, bottom, left, right) that are taken from the other image; None to blend.
    """

    weight: float
    box: tuple[int, int, int, int] | None

    @classmethod
    def drawn(cls, augmentation: Augmentation, size: tuple[int, int], seed: tuple[int, ...]) -> Mix | None:
        """As timm's `Mixup` in batch mode draws it; None where neither kind is asked for."""
        if not augmentation.mixup and not augmentation.cutmix:
            return None
        generator = np.random.default_rng(seed)
        cut = augmentation.cutmix > 0 and (not augmentation.mixup or generator.random() < 0.5)
        alpha = augmentation.cutmix if cut else augmentation.mixup
        weight = float(generator.beta(alpha, alpha))
        if not cut:
            return cls(weight, None)
        height, width = size
        cut_height, cut_width = (int(side * (1 - weight) ** 0.5) for side in size)
        y, x = int(generator.integers(height)), int(generator.integers(width))
        top, bottom = max(0, y - cut_height // 2), min(height, y + cut_height // 2)
        left, right = max(0, x - cut_width // 2), min(width, x + cut_width // 2)
        return cls(1 - (bottom - top) * (right - left) / (height * width), (top, bottom, left, right))

    def apply(self, images: Tensor, others: Tensor) -> Tensor:
        """`uint8[n, H, W, 3]` twice → the mixture, `uint8` where boxes were exchanged, else `float32`."""
        if self.box is None:
            return torch.lerp(others.float(), images.float(), self.weight)
        top, bottom, left, right = self.box
        mixed = images.clone()
        mixed[:, top:bottom, left:right] = others[:, top:bottom, left:right]
        return mixed


class Pixels:
    """A set of images from which augmented batches are taken: on the device where they fit, else on the host."""

    def __init__(self, images: np.ndarray, device: torch.device) -> None:
        self.images, self.device = images, device
        self._rows = blocks.Rows(images)
        self.size = (images.shape[1], images.shape[2])
        self.resident: Tensor | None = None
        if device.type == "cuda" and images.nbytes < RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]:
            self.resident = torch.from_numpy(np.array(images)).to(device)

    @cached_property
    def fill(self) -> np.ndarray:
        """The mean color of up to two thousand images, evenly spaced, `uint8[3]`: what cutouts are painted in."""
        sample = self.images[:: max(1, len(self.images) // 1000)]
        total = sum(part.sum((0, 1, 2), np.int64) for part in blocks.parts(sample))
        return np.rint(total / sample[..., 0].size).astype(np.uint8)

    def take(
        self,
        chosen: np.ndarray,
        shifts: np.ndarray,
        mirrored: np.ndarray,
        centers: np.ndarray | None = None,
        side: int = 0,
    ) -> Tensor:
        """Images shifted by (rows, columns), mirrored, and with a square around a center painted over.

        Args:
            chosen: Indices, `int64[n]`.
            shifts: `int64[n, 2]`.
            mirrored: `bool[n]`; an image is mirrored first and shifted then.
            centers: Row and column of the squares' centers, `int64[n, 2]`, or None.
            side: Of the squares in pixels.

        Returns:
            `uint8[n, H, W, 3]` on the device.
        """
        if self.device.type == "cpu":
            batch = take_on_host(self._rows[chosen], shifts, mirrored)
            if centers is not None:
                batch[_square(centers, side, self.size)] = self.fill
            return torch.from_numpy(batch)
        if self.resident is not None:
            batch = self.resident[sent(chosen, self.device)]
        else:
            batch = sent(self._rows[chosen], self.device)
        batch = take_on_device(batch, sent(shifts, self.device), sent(mirrored, self.device))
        if centers is not None:
            square = sent(_square(centers, side, self.size), self.device)
            batch = torch.where(square[..., None], sent(self.fill, self.device), batch)
        return batch


def sent(array: np.ndarray, device: torch.device) -> Tensor:
    """An array on a device; a GPU gets it through pinned memory, so that nobody waits for what it is computing."""
    tensor = torch.from_numpy(array)
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def take_on_host(batch: np.ndarray, shifts: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
    """Mirrors and shifts `uint8[n, H, W, 3]`, which is changed, by copying whole rows: 5 µs an image of 32 × 32."""
    count, height, width, _ = batch.shape
    batch[mirrored] = batch[mirrored][:, :, ::-1]
    most = int(np.abs(shifts).max(initial=0))
    if most == 0:
        return batch
    padded = np.empty((count, height, width + 2 * most, 3), np.uint8)
    columns = reflected(np.arange(-most, width + most), width)
    padded[:, :, most : most + width] = batch
    padded[:, :, :most] = batch[:, :, columns[:most]]
    padded[:, :, most + width :] = batch[:, :, columns[most + width :]]
    row_bytes = padded.strides[1]
    # Every stretch of `width` pixels of a padded row as one element of 3 · width bytes.
    stretches = np.ndarray(
        (count, height, 2 * most + 1), f"V{3 * width}", padded, strides=(height * row_bytes, row_bytes, 3)
    )
    rows = reflected(np.arange(height) + shifts[:, :1], height)
    taken = stretches[np.arange(count)[:, None], rows, most + shifts[:, 1:]]
    return taken.view(np.uint8).reshape(count, height, width, 3)


def take_on_device(batch: Tensor, shifts: Tensor, mirrored: Tensor) -> Tensor:
    """The same as `take_on_host` on a device: one gather."""
    count, height, width, _ = batch.shape
    device = batch.device
    y = reflected(torch.arange(height, device=device) + shifts[:, :1], height)
    x = reflected(torch.arange(width, device=device) + shifts[:, 1:], width)
    x = torch.where(mirrored[:, None], width - 1 - x, x)
    return batch[torch.arange(count, device=device)[:, None, None], y[:, :, None], x[:, None, :]]


def reflected(position: Any, length: int) -> Any:
    """Positions mirrored at both ends of an axis, the end itself not repeated."""
    return (length - 1) - abs((length - 1) - abs(position))


def _square(centers: np.ndarray, side: int, size: tuple[int, int]) -> np.ndarray:
    """Where squares of a side around centers lie, `bool[n, H, W]`; what is outside of the image is cut off."""
    inside = []
    for axis in (0, 1):
        offset = np.arange(size[axis]) - centers[:, axis : axis + 1] + side // 2
        inside.append((offset >= 0) & (offset < side))
    return inside[0][:, :, None] & inside[1][:, None, :]


def statistics(
    images: np.ndarray, chosen: np.ndarray | None = None, sums: np.ndarray | None = None
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and standard deviation of each channel on the 0–1 scale, rounded to six decimals.

    They come from whole numbers, so that neither the order of the images nor the size of a block matters.

    Args:
        images: `uint8[N, H, W, 3]`.
        chosen: Indices of those that count; None for all.
        sums: `int64[N, 3, 2]`, sum and sum of squares of each image's channels; None to read the pixels.
    """
    if sums is not None:
        (height, width), count = images.shape[1:3], len(images) if chosen is None else len(chosen)
        total, squares = (sums if chosen is None else sums[chosen]).sum(0).T.tolist()
        values = count * height * width
        mean = [value / values / 255 for value in total]
        # The variance in whole numbers: nothing cancels.
        deviation = [
            math.sqrt(values * square - value**2) / values / 255 for value, square in zip(total, squares, strict=True)
        ]
    else:
        counts = np.zeros((3, 256), np.int64)
        for part in blocks.parts(images, chosen):
            counts += np.stack([np.bincount(part[..., channel].ravel(), minlength=256) for channel in range(3)])
        share, levels = counts / counts.sum(1, keepdims=True), np.arange(256) / 255
        means = share @ levels
        mean, deviation = means.tolist(), np.sqrt(np.maximum(share @ levels**2 - means**2, 0)).tolist()
    constant = 1e-3  # the least deviation: a constant channel stays constant
    return tuple(round(v, 6) for v in mean), tuple(round(max(v, constant), 6) for v in deviation)  # type: ignore[return-value]
