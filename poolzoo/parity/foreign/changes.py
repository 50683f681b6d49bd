"""Known mistakes in what a file gets, as changes of its input that undo them: scale, channels, layout, crop.

A file that was made for other images than the module is no faulty graph. Given its images in another form, it agrees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from PIL import Image

from poolzoo.runtime.foreign.scaling import IMAGENET_MEAN, IMAGENET_STD, Scaling

CROPS: Final = (0.875, 0.9, 0.95)  # of a side, that are kept of the center
IMAGENET: Final = Scaling(mean=IMAGENET_MEAN, std=IMAGENET_STD)
CAFFE: Final = Scaling(high=255.0, mean=tuple(255 * one for one in IMAGENET_MEAN))
CENTERED: Final = Scaling(low=-1.0)
LEVELS: Final = Scaling(high=255.0)

Map = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Change:
    """A change of what a file or its module gets, in up to three steps.

    Attributes:
        text: What is changed, behind "agrees when".
        pixels: Changes the images in 0–1, `float32[N, C, H, W]`; None to leave them.
        values: Makes numbers of them; None for the usual ones.
        numbers: Changes the numbers; None to leave them.
        of_module: Whether the module gets the changed images, and not the file.
    """

    text: str
    pixels: Map | None = None
    values: Map | None = None
    numbers: Map | None = None
    of_module: bool = False

    def apply(self, images: np.ndarray, usual: Map) -> np.ndarray:
        """The numbers, `float32[N, C, H, W]`, that images in 0–1 become; without a change, those of `usual`."""
        pixels = self.pixels(images) if self.pixels is not None else images
        numbers = (self.values or usual)(pixels)
        if self.numbers is not None:
            numbers = self.numbers(numbers)
        return np.ascontiguousarray(numbers, np.float32)

    def then(self, other: Change) -> Change:
        """Both changes of the file; each has another step."""
        return Change(
            f"{self.text} and {other.text}",
            self.pixels or other.pixels,
            self.values or other.values,
            self.numbers or other.numbers,
        )


def known_changes(scaling: Scaling, *, file_floats: bool, module_floats: bool) -> Iterator[Change]:
    """Every known change, and then two at once.

    Args:
        scaling: What the floats of a side are scaled to.
        file_floats: Whether the file takes floats, whose values may be scaled otherwise.
        module_floats: Whether the module does.
    """
    values = _values(scaling) if file_floats else []
    reversals = _reversals()
    yield from (*values, *reversals, *_layouts(), *_crops())
    if module_floats and not file_floats:
        for change in _values(scaling):
            moved = replace(change, text=change.text.replace("the file", "the module"), of_module=True)
            yield from (moved, replace(moved, text=f"{moved.text} and its channels are reversed", pixels=_reversed))
    for value in values:
        yield from (value.then(one) for one in reversals)
    for layout in _layouts():
        yield layout.then(reversals[0])
        yield from (layout.then(value) for value in values)


def _values(scaling: Scaling) -> list[Change]:
    known = {
        "the file gets values in 0–255": LEVELS.apply,
        "the file gets values in 0–1": Scaling().apply,
        "the file gets values in -1–1": CENTERED.apply,
        "the file's values are normalized with ImageNet's mean and standard deviation": IMAGENET.apply,
        "the file gets values in 0–255 minus ImageNet's mean": CAFFE.apply,
        "the file's values in 0–255 are normalized as if they were in 0–1": lambda x: IMAGENET.apply(
            x * np.float32(255)
        ),
        "the file's values are divided by 255 once more": lambda x: scaling.apply(x) / np.float32(255),
        "the file's values are multiplied by 255 once more": lambda x: scaling.apply(x) * np.float32(255),
        "the file's own normalization with ImageNet's mean and standard deviation is undone": lambda x: IMAGENET.undo(
            scaling.apply(x)
        ),
        "the file's own normalization from 0–1 to -1–1 is undone": lambda x: CENTERED.undo(scaling.apply(x)),
    }
    return [Change(text, values=apply) for text, apply in known.items()]


def _reversals() -> list[Change]:
    """Red and blue change places, before the values are scaled by channel or after it."""
    return [
        Change("the channels are reversed", pixels=_reversed),
        Change("the channels are reversed after they are scaled", numbers=_reversed),
    ]


def _layouts() -> list[Change]:
    return [
        Change("its input, [N, C, H, W], holds the values in the order [N, H, W, C]", numbers=_as_nhwc),
        Change("its input, read as [N, H, W, C], is [N, C, H, W]", numbers=_from_nhwc),
        Change("height and width change places", numbers=_transposed),
        Change("the rows are upside down", numbers=lambda x: x[:, :, ::-1]),
        Change("left and right change places", numbers=lambda x: x[..., ::-1]),
    ]


def _crops() -> list[Change]:
    found = []
    for part in CROPS:
        text = f"gets the center, {part:.1%} of each side, resized".replace(".0%", "%").replace("%", " %")
        found.append(Change(f"the module {text}", pixels=_Crop(part), of_module=True))
        found.append(Change(f"the file {text}", pixels=_Crop(part)))
    return found


@dataclass(frozen=True)
class _Crop:
    """Keeps a part of each side in the center and resizes it to the whole."""

    part: float

    def __call__(self, images: np.ndarray) -> np.ndarray:
        height, width = images.shape[2:]
        tall, wide = (max(1, round(self.part * side)) for side in (height, width))
        top, left = (height - tall) // 2, (width - wide) // 2
        cut = images[:, :, top : top + tall, left : left + wide]
        planes = [Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR) for plane in _planes(cut)]
        return np.stack([np.asarray(plane) for plane in planes]).reshape(images.shape)


def _planes(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images.reshape(-1, *images.shape[2:]), np.float32)


def _reversed(x: np.ndarray) -> np.ndarray:
    return x[:, ::-1]


def _as_nhwc(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)).reshape(x.shape)


def _from_nhwc(x: np.ndarray) -> np.ndarray:
    count, channels, height, width = x.shape
    return np.ascontiguousarray(np.ascontiguousarray(x).reshape(count, height, width, channels).transpose(0, 3, 1, 2))


def _transposed(x: np.ndarray) -> np.ndarray:
    return x.swapaxes(2, 3) if x.shape[2] == x.shape[3] else x
