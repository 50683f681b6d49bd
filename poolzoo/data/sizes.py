"""Sizes of images and feature maps: (height, width) everywhere, in code and in what is shown, as in a tensor."""

from __future__ import annotations

import re
from collections.abc import Sequence

Size = tuple[int, int]

_TYPED = re.compile(r"\s*(\d+)\s*(?:[xX×]\s*(\d+)\s*)?")
MAX_SIDE = 1 << 16  # pixels of a side of an image
MIN_CUT = 0.005  # share of a side below which a cut is a rounding, and not worth a word


def show(size: Sequence[int]) -> str:
    """A size as it is printed, height first: (64, 208) is `64×208`; channels may come before it."""
    return "×".join(str(one) for one in size)


def parse(given: str | int | Sequence[int]) -> Size:
    """The size that `64`, `"64"`, `"64x208"` or `(64, 208)` means: one side for a square, or height and width.

    Raises:
        ValueError: It is none of these, or a side is less than 1 or more than `MAX_SIDE`.
    """
    if isinstance(given, str):
        found = _TYPED.fullmatch(given)
        sides = [int(side) for side in found.groups() if side is not None] if found else []
    else:
        sides = [given] if isinstance(given, int) else [int(side) for side in given]
    if len(sides) not in (1, 2) or min(sides) < 1 or max(sides) > MAX_SIDE:
        raise ValueError(f"{given!r} is no size")
    return sides[0], sides[-1]


def plain(size: Size) -> int | str:
    """A size as settings keep it and `--image-size` takes it: a number for a square, else `HEIGHTxWIDTH`."""
    return size[0] if size[0] == size[1] else f"{size[0]}x{size[1]}"


def stored(native: Size, wanted: Size) -> Size:
    """The size at which images of one size are kept for a network that sees them at `wanted`.

    Larger images are resized and center-cropped to `wanted`. Of smaller ones the center of the wanted aspect is kept
    as it is, because the network enlarges it on the device; so images are never stretched.
    """
    (height, width), (rows, columns) = native, wanted
    if rows < height and columns < width:
        return wanted
    if rows * width >= columns * height:  # the whole height is kept
        return height, max(1, round(columns * height / rows))
    return max(1, round(rows * width / columns)), width


def cut(native: Size, wanted: Size) -> tuple[str, float]:
    """The side that a resize and center crop to `wanted` cuts, "height" or "width", and the share of it that goes."""
    (height, width), (rows, columns) = native, wanted
    if rows * width >= columns * height:
        return "width", 1 - columns * height / (rows * width)
    return "height", 1 - rows * width / (columns * height)


def change(native: Size, wanted: Size, *, overruled: bool) -> str | None:
    """A sentence on what becomes of images of one size that a network sees at another; None where nothing is to say.

    Args:
        native: The size in the files.
        wanted: The size that the network sees.
        overruled: Whether `--image-size` can change that.
    """
    side, share = cut(native, wanted)
    smaller = wanted[0] < native[0]
    if share < MIN_CUT:
        return f"images of {show(native)} are resized to {show(wanted)}" if smaller else None
    text = f"images of {show(native)} are resized and center-cropped to {show(wanted)}: {share:.0%} of the {side} is"
    text = f"{text.replace('%', ' %')} cut off"
    return f"{text}; --image-size {plain(_whole(native, wanted))} keeps all" if overruled else text


def _whole(native: Size, wanted: Size) -> Size:
    """The size with the aspect of `native` of which `wanted` is the center."""
    (height, width), (rows, columns) = native, wanted
    if rows * width >= columns * height:
        return rows, round(width * rows / height)
    return round(height * columns / width), columns
