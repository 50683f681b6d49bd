"""Random resized crops (Szegedy et al., 2015, arXiv 1409.4842, section 6): which part of an image, and its pixels.

The box of an image depends on the seed, the epoch and the image's position alone. The resize is torch's antialiased one
for `uint8`: within one level of Pillow's, in a fifth of its time.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from poolzoo.data.sizes import Size

_TRIES: Final = 10
ALONE: Final = (1 << 15) - 1  # values up to which torch computes in the calling thread


class Box(NamedTuple):
    """A part of an image in pixels."""

    top: int
    left: int
    height: int
    width: int


class _Generators(threading.local):
    """A generator of random numbers for each thread, which is set and not made: that takes a tenth of the time."""

    def __init__(self) -> None:
        self._bits = np.random.Philox(0)
        self._generator = np.random.Generator(self._bits)

    def at(self, key: tuple[int, int], position: int) -> np.random.Generator:
        """The generator `Philox(key=key, counter=position << 64)`: each position has a row of counters of its own."""
        counter, words = np.array([0, position, 0, 0], np.uint64), np.array(key, np.uint64)
        self._bits.state = {
            "bit_generator": "Philox",
            "state": {"counter": counter, "key": words},
            "buffer": np.zeros(4, np.uint64),
            "buffer_pos": 4,  # empty
            "has_uint32": 0,
            "uinteger": 0,
        }
        return self._generator


_GENERATORS: Final = _Generators()


@dataclass(frozen=True)
class CropSampler:
    """Draws the box of an image in an epoch, as torchvision's `RandomResizedCrop` does.

    Attributes:
        scale: Range of the box's share of the image's area.
        ratio: Range of its width through its height, drawn on a logarithmic scale.
        seed: Of the run.
        epoch: Its number.
    """

    scale: tuple[float, float]
    ratio: tuple[float, float]
    seed: int
    epoch: int

    def box(self, position: int, full: Size) -> Box:
        """The box of the image at a position of the training split, whose size is `full`."""
        draws = _GENERATORS.at((self.seed, self.epoch), int(position)).random((_TRIES, 4)).tolist()
        height, width = full
        low, high = (math.log(value) for value in self.ratio)
        for area, ratio, top, left in draws:
            pixels = height * width * (self.scale[0] + area * (self.scale[1] - self.scale[0]))
            aspect = math.exp(low + ratio * (high - low))
            rows, columns = round(math.sqrt(pixels / aspect)), round(math.sqrt(pixels * aspect))
            if 0 < rows <= height and 0 < columns <= width:
                return Box(int(top * (height - rows + 1)), int(left * (width - columns + 1)), rows, columns)
        return self._center(full)

    def _center(self, full: Size) -> Box:
        """The largest box in the middle whose ratio is allowed, for an image that is too wide or too high."""
        height, width = full
        ratio = min(max(width / height, self.ratio[0]), self.ratio[1])
        rows, columns = min(height, round(width / ratio)), min(width, round(height * ratio))
        return Box((height - rows) // 2, (width - columns) // 2, max(1, rows), max(1, columns))


def scaled_box(box: Box, full: Size, stored: Size, start: tuple[float, float] = (0.0, 0.0), part: float = 0) -> Box:
    """A box of an image of size `full` in its smaller version of size `stored`, in whole pixels.

    Args:
        box: In the full image.
        full: Height and width of that.
        stored: Those of the smaller version.
        start: Row and column where the image begins in it.
        part: Pixels of the full image along one of the smaller one; 0 where that shows the whole image.
    """
    edges = []
    for axis, (first, length) in enumerate(((box.top, box.height), (box.left, box.width))):
        step = part or full[axis] / stored[axis]
        low = min(round(start[axis] + first / step), stored[axis] - 1)
        high = min(round(start[axis] + (first + length) / step), stored[axis])
        edges.append((low, max(high, low + 1)))
    (top, bottom), (left, right) = edges
    return Box(top, left, bottom - top, right - left)


def part_of(box: Box, wanted: Size, spare: float = 1.0) -> int:
    """1, 2, 4 or 8: at this part of its size a JPEG still has as many pixels in the box as are wanted.

    Args:
        box: In the full image.
        wanted: Height and width of the crop.
        spare: How many times as many pixels along a side must be left.
    """
    ratio = min(box.height / wanted[0], box.width / wanted[1])
    return next((part for part in (8, 4, 2) if ratio >= spare * part), 1)


def resize_into(pixels: np.ndarray, box: Box, out: np.ndarray) -> None:
    """Resizes a part of an image bilinearly, with antialiasing.

    Args:
        pixels: `uint8[H, W, 3]`, writable.
        box: Which part.
        out: Where it goes, `uint8[h, w, 3]`, contiguous.
    """
    part = np.ascontiguousarray(pixels[box.top : box.top + box.height, box.left : box.left + box.width])
    if part.shape == out.shape:
        out[:] = part
        return
    batch, found = _channels_last(part), _channels_last(out)
    # What `F.interpolate(…, antialias=True)` calls, which cannot write into an array that is there.
    torch.ops.aten._upsample_bilinear2d_aa.out(batch, out.shape[:2], False, None, None, out=found)


def _channels_last(image: np.ndarray) -> Tensor:
    """An image as a batch that torch knows to be channels-last, which is four times as fast: by the batch's stride."""
    return torch.from_numpy(image[None].transpose(0, 3, 1, 2))


def mirror(image: np.ndarray) -> None:
    """Mirrors an image `uint8[H, W, 3]` left to right where it lies.

    torch takes a seventh of numpy's time. It divides a large image among threads of its own, for which the calling
    thread waits while others compute, as threads that load images do. So it is given a few rows at a time.
    """
    step = max(1, ALONE // max(1, image[:1].size))
    for start in range(0, len(image), step):
        rows = image[start : start + step]
        rows[:] = torch.from_numpy(rows).flip(1).numpy()


def random_crops_array(images: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Parts of images, each resized to the size of the whole, on the CPU.

    Args:
        images: `uint8[n, H, W, 3]`.
        boxes: Top, left, height and width, `int64[n, 4]`.

    Returns:
        `uint8[n, H, W, 3]`.
    """
    out = np.empty_like(images)
    for pixels, box, resized in zip(images, boxes.tolist(), out, strict=True):
        resize_into(pixels, Box(*box), resized)
    return out


def random_crops_tensor(images: Tensor, boxes: Tensor) -> Tensor:
    """The same for tensors on any device, as one operation; within one level of `random_crops_array`.

    A part is never larger than the whole, so that nothing has to be antialiased.
    """
    _, height, width, _ = images.shape
    top, left, rows, columns = boxes.float().T[..., None]
    y, x = (
        # Places between the centers of the first and the last pixel of the box, in the units of `grid_sample`.
        (2 * (first + (_centers(full, images.device) * (length / full) - 0.5).clamp_(min=0).minimum(length - 1)) + 1)
        / full
        - 1
        for first, length, full in ((top, rows, height), (left, columns, width))
    )
    grid = torch.stack([x[:, None, :].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], -1)
    planes = images.permute(0, 3, 1, 2).float()
    sampled = F.grid_sample(planes, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return sampled.round_().to(torch.uint8).permute(0, 2, 3, 1)


def _centers(count: int, device: torch.device) -> Tensor:
    return torch.arange(count, device=device) + 0.5
