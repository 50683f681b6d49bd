"""Other values that an attribute or a small constant of a node could have had."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, Final

from poolzoo.parity.reduction.repair import Hints

MOST_INTEGERS: Final = 8  # in an attribute or constant whose orders and neighbors are tried
FLOATS: Final = (
    1e-12,
    1e-10,
    1e-8,
    1e-7,
    1e-6,
    1e-5,
    1e-4,
    1e-3,
    1e-2,
    0.1,
    0.2,
    1 / 6,
    0.5,
    1.0,
    1.5,
    2.0,
    3.0,
    4.0,
    6.0,
)
WORDS: Final = {
    "mode": ("constant", "reflect", "edge", "wrap", "nearest", "linear", "cubic", "DCR", "CRD", "bilinear", "bicubic"),
    "coordinate_transformation_mode": (
        "half_pixel",
        "align_corners",
        "asymmetric",
        "pytorch_half_pixel",
        "half_pixel_symmetric",
        "tf_crop_and_resize",
    ),
    "nearest_mode": ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"),
    "auto_pad": ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"),
    "approximate": ("none", "tanh"),
    "padding_mode": ("zeros", "border", "reflection"),
    "reduction": ("none", "add", "mul", "max", "min", "mean", "sum"),
    "direction": ("forward", "reverse", "bidirectional", "LEFT", "RIGHT"),
    "keep_aspect_ratio_policy": ("stretch", "not_larger", "not_smaller"),
    "activation": ("Relu", "Sigmoid", "Tanh", "LeakyRelu", "HardSigmoid", "Clip", "HardSwish"),
}


def alternatives(name: str, value: Any, rank: int, hints: Hints) -> Iterator[Any]:
    """Other values of an attribute: torch's, all axes, orders and neighbors of a list, powers of ten, known words."""
    if isinstance(value, bytes) or name in WORDS:
        yield from (word.encode() for word in WORDS.get(name, ()))
    elif name == "perm":
        yield from map(list, itertools.permutations(range(rank)))
    elif name in ("axis", "split_axis", "batch_axis"):
        yield from (int(one) for one in hints.numbers() if one.is_integer() and -rank <= one < rank)
        yield from range(-1, rank)
    elif name == "axes":
        yield from axes_of(rank)
    elif isinstance(value, list) and value and isinstance(value[0], int):
        yield from hints.lists(len(value))
        yield from lists(value)
    elif value is None and name in ("pads", "dilations", "strides"):
        yield from ([count] * size for size in (2, 4) for count in range(5))
    elif isinstance(value, float):
        yield from hints.numbers()
        yield from numbers(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield from dict.fromkeys((1 - value, value - 1, value + 1, 0, 1, 2, -1, 4, 8))


def axes_of(rank: int) -> Iterator[list[int]]:
    for count in range(rank + 1):
        yield from map(list, itertools.combinations(range(rank), count))


def lists(value: list[int]) -> Iterator[list[int]]:
    """Lists near one: other orders, halves swapped, one number by one more or less, all numbers alike."""
    if len(value) <= 4:
        yield from map(list, itertools.permutations(value))
    half = len(value) // 2
    yield value[half:] + value[:half]
    yield value[::-1]
    if len(value) <= MOST_INTEGERS:
        for index, step in itertools.product(range(len(value)), (-1, 1)):
            yield [*value[:index], value[index] + step, *value[index + 1 :]]
        for index, other in itertools.combinations(range(len(value)), 2):
            swapped = list(value)
            swapped[index], swapped[other] = value[other], value[index]
            yield swapped
            for step, more in itertools.product((-1, 1), repeat=2):
                moved = list(value)
                moved[index], moved[other] = value[index] + step, value[other] + more
                yield moved
    yield from ([number] * len(value) for number in range(8))


def numbers(value: float) -> Iterator[float]:
    yield from FLOATS
    for factor in (-1.0, 0.5, 2.0, 0.1, 10.0, 1 / 3, 3.0):
        yield value * factor
    if value:
        yield 1 / value
    yield from (0.0, value - 1, value + 1, 1 - value)
