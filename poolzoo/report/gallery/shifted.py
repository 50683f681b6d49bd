"""A local pooling at work: the pooled photograph, and its change when the photograph moves by one pixel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any, Final

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn

from poolzoo.plugin import loader

STRIDES: Final = (2, 4)
SEED: Final = 0  # of weights that are drawn
# The color of each input channel: as they are; in pairs, for a layer that gives one channel for two; repeated, for one
# that needs more channels.
ORDERS: Final = ((0, 1, 2), (0, 1, 1, 2, 2, 0), (0,) * 8 + (1,) * 8 + (2,) * 8)
ORDER_NOTES: Final = (
    "",
    "its pairs of channels are red and green, green and blue, blue and red",
    "each color in 8 channels",
)
MARGIN: Final = 3  # pixels at each side that are left out, where opposite borders of the photograph meet
MIN_GAIN: Final = 0.05  # output for white; below it, a layer's output is shown unscaled


@dataclass(frozen=True)
class Shifted:
    """The output of a layer for a photograph, and for the photograph moved by one pixel down and to the right.

    Attributes:
        stride: Side of the windows and their stride.
        pooled, moved: `float[h, w, 3]`, 0 black and 1 white.
        difference: `float[h, w]`, the mean over the colors of `moved` minus the aligned `pooled`; NaN in the margin.
        rms: Root mean square of that difference over positions and colors; 1 is black to white.
        by: The alignment: pixels of `pooled` down and to the right, chosen to minimize the difference.
        notes: What else was done to show the output as a picture.
    """

    stride: int
    pooled: np.ndarray
    moved: np.ndarray
    difference: np.ndarray
    rms: float
    by: tuple[float, float]
    notes: tuple[str, ...]


def look(resolved: loader.Resolved, photograph: np.ndarray, stride: int) -> Shifted:
    """Pools a photograph, `uint8[S, S, 3]`, with windows of stride × stride; it moves circularly, so no pixels are new.

    Raises:
        Exception: The layer's own code raises it, or its output is wrong.
    """
    pixels = torch.from_numpy(photograph / np.float32(255)).permute(2, 0, 1)
    inputs = torch.stack((pixels, pixels.roll((1, 1), (1, 2)), torch.ones_like(pixels)))
    outputs, order = _pooled(lambda channels: _layer(resolved, channels, stride), inputs, stride)
    notes = [ORDER_NOTES[order]] if ORDER_NOTES[order] else []
    colors, tiles = _colored(outputs.double().numpy(), order)
    notes += [tiles] if tiles else []
    gain = float(colors[2].mean())
    if abs(gain) < MIN_GAIN or not np.isfinite(colors).all():
        gain = 1.0
    if not np.isfinite(colors[:2]).all():
        raise ValueError("it gives values that are not finite")
    if abs(gain - 1) > 0.005:
        notes.append(f"divided by {gain:.3g}, its output for white")
    first, second = colors[:2] / gain
    by, rest = aligned(first, second, stride)
    rms = float(np.sqrt(np.square(rest).mean()))
    framed = np.pad(rest.mean(3), ((0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN)), constant_values=np.nan)
    pooled, moved, difference = (_mosaic(tiles) for tiles in (first, second, framed[..., None]))
    return Shifted(stride, pooled, moved, difference[..., 0], rms, by, tuple(notes))


def _layer(resolved: loader.Resolved, channels: int, stride: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        layer: nn.Module = resolved.build(channels, stride, stride, 0, False, **resolved.options)
        return layer.eval()


def _pooled(make: Callable[[int], nn.Module], inputs: Tensor, stride: int) -> tuple[Tensor, int]:
    """The outputs, `float[N, D, h, w]`, and the order of the colors in which D is a multiple of 3, if there is one."""
    fallback: tuple[Tensor, int] | None = None
    refusal: Exception | None = None
    for index, order in enumerate(ORDERS):
        try:
            with torch.inference_mode():
                outputs: Any = make(len(order))(inputs[:, list(order)])
            side = inputs.shape[2] // stride
            if not isinstance(outputs, Tensor) or outputs.ndim != 4 or outputs.shape[2:] != (side, side):
                shape = list(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
                raise ValueError(f"it gives {shape}, not [{len(inputs)}, D, {side}, {side}]")
        except Exception as error:
            refusal = refusal or error
            continue
        if outputs.shape[1] % 3 == 0:
            return outputs, index
        fallback = fallback or (outputs, index)
    if fallback is not None:
        return fallback
    assert refusal is not None
    raise refusal


def _colored(outputs: np.ndarray, order: int) -> tuple[np.ndarray, str]:
    """`float[N, D, h, w]` as pictures in tiles, `float[N, tiles, h, w, 3]`, and a note on the tiles."""
    if outputs.shape[1] % 3:
        gray = np.repeat(outputs.mean(1)[:, None, :, :, None], 3, 4)
        return gray, f"the mean of its {outputs.shape[1]} channels in gray"
    tiles = outputs.reshape(len(outputs), 3, -1, *outputs.shape[2:]).transpose(0, 2, 3, 4, 1)
    if ORDERS[order] != (0, 1, 2):
        return tiles.mean(1, keepdims=True), ""
    return tiles, f"its {tiles.shape[1]} channels a color side by side" if tiles.shape[1] > 1 else ""


def _mosaic(tiles: np.ndarray) -> np.ndarray:
    """`float[tiles, h, w, c]` in rows and columns, nearly a square: `float[H, W, c]`."""
    count, height, width, colors = tiles.shape
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    filled = np.zeros((rows * columns, height, width, colors))
    filled[:count] = tiles
    return filled.reshape(rows, columns, height, width, -1).swapaxes(1, 2).reshape(rows * height, columns * width, -1)


def aligned(first: np.ndarray, second: np.ndarray, stride: int) -> tuple[tuple[float, float], np.ndarray]:
    """The shift in pixels that aligns `first` with `second`, both `float[tiles, h, w, 3]`, and their difference.

    The photograph moved by 1/stride of a pooled pixel an axis; a layer that selects its sampling grid may move by 0 or
    by 1 instead.
    """
    steps = [step / stride for step in range(stride + 1)]
    best: tuple[float, tuple[float, float], np.ndarray] | None = None
    for by in product(steps, steps):
        rows, columns = (_moving(length, step) for length, step in zip(first.shape[1:3], by, strict=True))
        rest = second - np.einsum("ij,tjkc,lk->tilc", rows, first, columns, optimize=True)
        rest = rest[:, MARGIN:-MARGIN, MARGIN:-MARGIN]
        size = float(np.square(rest).mean())
        if best is None or size < best[0] - 1e-12:
            best = size, by, rest
    assert best is not None
    return best[1], best[2]


@cache
def _moving(length: int, by: float) -> np.ndarray:
    """The matrix that moves a periodic row of pixels, with cubic spline interpolation."""
    return np.stack([ndimage.shift(one, by, order=3, mode="grid-wrap") for one in np.eye(length)], 1)
