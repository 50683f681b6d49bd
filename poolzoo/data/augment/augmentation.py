"""Random changes of training images kept as uint8: crop, flip, shift, policy, color, boxes and mixtures, in this order.

A batch is changed at once; only a random crop on the CPU runs Python code for each image. The parameters of an image
depend on the seed, the epoch and its index only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from poolzoo.data import blocks
from poolzoo.data.augment import erasing, policy
from poolzoo.data.augment.color_jitter import jitter
from poolzoo.data.augment.crops import CropSampler, random_crops_array, random_crops_tensor
from poolzoo.data.augment.options import Policy
from poolzoo.data.sizes import Size
from poolzoo.data.transfer import to_device

Flip = Literal["off", "random", "alternating"]
Positions = TypeVar("Positions", np.ndarray, Tensor)
RESIDENT_FRACTION: Final = 0.25  # of a GPU's free memory for all images; more are copied batch by batch
MEAN_COLOR_SAMPLES: Final = 1000  # at least so many images, evenly spaced, give the color of cutouts


@dataclass(frozen=True)
class Augmentation:
    """Which random changes are made.

    Attributes:
        shift: Largest shift along each axis in pixels; the border is mirrored.
        flip: "random" mirrors half of the images left to right, drawn anew in every epoch. "alternating" mirrors the
            other half in the next epoch (Jordan, 2024, arXiv 2404.00498), so that two epochs show both forms of each.
        cutout: Side in pixels of a square filled with the mean color (DeVries and Taylor, 2017); 0: none.
        mixup: α of mixup (Zhang et al., 2018); the weight of an image is drawn from Beta(α, α) once a batch; 0: none.
        cutmix: α of CutMix (Yun et al., 2019), which replaces a box; with both, each batch draws one of them.
        crop_scale: Range of the share of an image's area that a random crop shows, such as (0.08, 1); None for no crop.
        crop_ratio: Range of the crop's width through its height.
        policy: Automatic augmentation; None for none.
        color_jitter: Largest change of brightness, contrast and saturation, 0–1; 0: none.
        erasing: Probability that a random box is filled with the mean color; 0: none.
    """

    shift: int = 0
    flip: Flip = "off"
    cutout: int = 0
    mixup: float = 0.0
    cutmix: float = 0.0
    crop_scale: tuple[float, float] | None = None
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    policy: Policy | None = None
    color_jitter: float = 0.0
    erasing: float = 0.0

    def changes(self) -> list[str]:
        """Each change as the option of `finetune` and its value, without dashes."""
        crop = [f"crop-scale {','.join(f'{share:g}' for share in self.crop_scale)}"] if self.crop_scale else []
        numbers = {
            "shift": self.shift,
            "color-jitter": self.color_jitter,
            "cutout": self.cutout,
            "erasing": self.erasing,
            "mixup": self.mixup,
            "cutmix": self.cutmix,
        }
        named = {"flip": self.flip if self.flip != "off" else None, "policy": self.policy}
        return [
            *crop,
            *(f"{name} {value}" for name, value in named.items() if value),
            *(f"{name} {value:g}" for name, value in numbers.items() if value),
        ]


NO_AUGMENTATION: Final = Augmentation()


@dataclass(frozen=True)
class EpochParams:
    """The order of the images and their random parameters in one epoch.

    Attributes:
        order: A permutation of the N images, `int64[N]`.
        shifts: Rows and columns to shift by, `int64[N, 2]`.
        flipped: Whether the image is mirrored, `bool[N]`.
        centers: Row and column of the cutout's center, `int64[N, 2]`.
        seed: Of the run.
        epoch: Its number.
    """

    order: np.ndarray
    shifts: np.ndarray
    flipped: np.ndarray
    centers: np.ndarray
    seed: int
    epoch: int

    @classmethod
    def sample(cls, count: int, size: Size, augmentation: Augmentation, seed: int, epoch: int) -> EpochParams:
        """Draws the parameters of an epoch; the same arguments give the same parameters.

        Args:
            count: Number N of images.
            size: Their height and width.
            augmentation: Which changes are made.
            seed: Of the run.
            epoch: Its number.
        """
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = torch.randperm(count, generator=generator)
        shift = augmentation.shift
        shifts = torch.randint(-shift, shift + 1, (count, 2), generator=generator)
        flipped = torch.rand(count, generator=generator).lt(0.5)
        if augmentation.flip == "alternating":
            first = torch.rand(count, generator=torch.Generator().manual_seed(seed * 1_000_003)).lt(0.5)
            flipped = first ^ bool(epoch % 2)
        elif augmentation.flip == "off":
            flipped = torch.zeros(count, dtype=torch.bool)
        centers = torch.zeros(count, 2, dtype=torch.int64)
        if augmentation.cutout:
            centers = (torch.rand(count, 2, generator=generator) * torch.tensor(size)).long()
        return cls(
            order=order.numpy(),
            shifts=shifts.numpy(),
            flipped=flipped.numpy(),
            centers=centers.numpy(),
            seed=seed,
            epoch=epoch,
        )


@dataclass(frozen=True)
class MixParams:
    """How each image of a batch is mixed with another one.

    Attributes:
        weight: Of the image's own label, 0–1.
        box: Top, bottom, left and right of the box that comes from the other image (CutMix); None to blend (mixup).
    """

    weight: float
    box: tuple[int, int, int, int] | None

    @classmethod
    def sample(cls, augmentation: Augmentation, size: Size, seed: tuple[int, ...]) -> MixParams | None:
        """Draws as timm's `Mixup` does in batch mode; None where neither mixup nor CutMix is asked for."""
        if not augmentation.mixup and not augmentation.cutmix:
            return None
        generator = np.random.default_rng(seed)
        use_cutmix = augmentation.cutmix > 0 and (not augmentation.mixup or generator.random() < 0.5)
        alpha = augmentation.cutmix if use_cutmix else augmentation.mixup
        weight = float(generator.beta(alpha, alpha))
        if not use_cutmix:
            return cls(weight=weight, box=None)
        height, width = size
        cut_height, cut_width = (int(side * (1 - weight) ** 0.5) for side in size)
        y, x = int(generator.integers(height)), int(generator.integers(width))
        top, bottom = max(0, y - cut_height // 2), min(height, y + cut_height // 2)
        left, right = max(0, x - cut_width // 2), min(width, x + cut_width // 2)
        visible = 1 - (bottom - top) * (right - left) / (height * width)
        return cls(weight=visible, box=(top, bottom, left, right))

    def apply(self, images: Tensor, others: Tensor) -> Tensor:
        """Mixes two batches `uint8[n, H, W, 3]`; the result is `uint8` for CutMix and `float32` for mixup."""
        if self.box is None:
            return torch.lerp(others.float(), images.float(), self.weight)
        top, bottom, left, right = self.box
        mixed = images.clone()
        mixed[:, top:bottom, left:right] = others[:, top:bottom, left:right]
        return mixed


class AugmentedImages:
    """All images of a split, from which augmented batches are taken.

    On a GPU all images stay in device memory if they fit; otherwise each batch is copied there.

    Args:
        images: `uint8[N, H, W, 3]`, in memory, mapped from a file, or decoded when asked.
        device: Where batches are needed.
    """

    def __init__(self, images: blocks.ImageArray, device: torch.device) -> None:
        self.images = images
        self.device = device
        self.size: Size = (images.shape[1], images.shape[2])
        self.resident: Tensor | None = None
        self._rows = blocks.Rows(images)
        if isinstance(images, np.ndarray) and _fits_device(images.nbytes, device):
            self.resident = torch.from_numpy(np.array(images)).to(device)

    @cached_property
    def mean_color(self) -> np.ndarray:
        """The mean color of a sample of the images, `uint8[3]`, with which cutouts are filled."""
        sample = np.arange(0, len(self.images), max(1, len(self.images) // MEAN_COLOR_SAMPLES))
        total = sum(part.sum((0, 1, 2), np.int64) for part in blocks.parts(self.images, sample))
        pixels = len(sample) * self.size[0] * self.size[1]
        color: np.ndarray = np.rint(total / pixels).astype(np.uint8)
        return color

    def take(
        self,
        indices: np.ndarray,
        params: EpochParams,
        positions: np.ndarray,
        how: Augmentation,
        keys: np.ndarray | None = None,
    ) -> Tensor:
        """Augmented images.

        Args:
            indices: `int64[n]`.
            params: Of the epoch.
            positions: Places of the images in these parameters, `int64[n]`.
            how: Which changes are made.
            keys: Numbers that random crops and operators depend on, `int64[n]`; None for `indices`.

        Returns:
            `uint8[n, H, W, 3]` on the device.
        """
        keys = indices if keys is None else keys
        if self.resident is None:
            batch = self._rows[indices]
            if how.crop_scale is not None:
                batch = random_crops_array(batch, self._boxes(keys, params, how))
            return self.change(batch, keys, params, positions, how)
        resident = self.resident[to_device(indices, self.device)]
        if how.crop_scale is not None:
            resident = random_crops_tensor(resident, to_device(self._boxes(keys, params, how), self.device))
        return self._distort(_flip_and_shift(resident, params, positions), keys, params, positions, how)

    def change(
        self, batch: np.ndarray, keys: np.ndarray, params: EpochParams, positions: np.ndarray, how: Augmentation
    ) -> Tensor:
        """The same for images `uint8[n, H, W, 3]` that were read and cropped already, whose content may change."""
        if self.device.type == "cpu":
            changed = flip_and_shift_array(batch, params.shifts[positions], params.flipped[positions])
            return self._distort(torch.from_numpy(changed), keys, params, positions, how)
        changed_tensor = _flip_and_shift(to_device(batch, self.device), params, positions)
        return self._distort(changed_tensor, keys, params, positions, how)

    def _boxes(self, keys: np.ndarray, params: EpochParams, how: Augmentation) -> np.ndarray:
        assert how.crop_scale is not None
        sampler = CropSampler(how.crop_scale, how.crop_ratio, seed=params.seed, epoch=params.epoch)
        return np.array([sampler.box(index, self.size) for index in keys.tolist()], np.int64)

    def _distort(
        self, images: Tensor, keys: np.ndarray, params: EpochParams, positions: np.ndarray, how: Augmentation
    ) -> Tensor:
        """Policy, color jitter, cutout and random erasing, in this order, so that covered parts have one color."""
        seed, epoch = params.seed, params.epoch
        if how.policy is not None:
            images = policy.distort(images, how.policy, seed=seed, epoch=epoch, positions=keys)
        if how.color_jitter:
            images = jitter(images, how.color_jitter, seed=seed, epoch=epoch, positions=keys)
        if how.cutout:
            images = erasing.erase(images, erasing.squares(params.centers[positions], how.cutout), self.mean_color)
        if how.erasing:
            edges = erasing.boxes(how.erasing, self.size, seed=seed, epoch=epoch, positions=keys)
            images = erasing.erase(images, edges, self.mean_color)
        return images


def _fits_device(count: int, device: torch.device) -> bool:
    return device.type == "cuda" and count < RESIDENT_FRACTION * torch.cuda.mem_get_info(device)[0]


def _flip_and_shift(batch: Tensor, params: EpochParams, positions: np.ndarray) -> Tensor:
    shifts, flipped = params.shifts[positions], params.flipped[positions]
    return flip_and_shift_tensor(batch, to_device(shifts, batch.device), to_device(flipped, batch.device))


def flip_and_shift_array(batch: np.ndarray, shifts: np.ndarray, flipped: np.ndarray) -> np.ndarray:
    """Mirrors and shifts images on the CPU by copying whole rows: 5 µs an image of 32 × 32.

    Args:
        batch: `uint8[n, H, W, 3]`; its content changes.
        shifts: Rows and columns, `int64[n, 2]`, smaller than the sides.
        flipped: `bool[n]`.

    Returns:
        `uint8[n, H, W, 3]`.
    """
    count, height, width, _ = batch.shape
    batch[flipped] = batch[flipped][:, :, ::-1]
    most = int(np.abs(shifts).max(initial=0))
    if most == 0:
        return batch
    padded = np.empty((count, height, width + 2 * most, 3), np.uint8)
    columns = reflect(np.arange(-most, width + most), width)
    padded[:, :, most : most + width] = batch
    padded[:, :, :most] = batch[:, :, columns[:most]]
    padded[:, :, most + width :] = batch[:, :, columns[most + width :]]
    row_bytes = padded.strides[1]
    # Each element is a run of `width` pixels in a padded row: 3 · width bytes that numpy copies at once.
    runs: np.ndarray = np.ndarray(
        shape=(count, height, 2 * most + 1),
        dtype=f"V{3 * width}",
        buffer=padded.data,
        strides=(height * row_bytes, row_bytes, 3),
    )
    rows = reflect(np.arange(height) + shifts[:, :1], height)
    taken: np.ndarray = runs[np.arange(count)[:, None], rows, most + shifts[:, 1:]]
    return taken.view(np.uint8).reshape(count, height, width, 3)


def flip_and_shift_tensor(batch: Tensor, shifts: Tensor, flipped: Tensor) -> Tensor:
    """The same as `flip_and_shift_array` for tensors on any device, as one gather; `batch` does not change."""
    count, height, width, _ = batch.shape
    device = batch.device
    y = reflect(torch.arange(height, device=device) + shifts[:, :1], height)
    x = reflect(torch.arange(width, device=device) + shifts[:, 1:], width)
    x = torch.where(flipped[:, None], width - 1 - x, x)
    return batch[torch.arange(count, device=device)[:, None, None], y[:, :, None], x[:, None, :]]


def reflect(positions: Positions, length: int) -> Positions:
    """Positions on an axis, mirrored at both ends; the ends are not repeated."""
    return (length - 1) - abs((length - 1) - abs(positions))
