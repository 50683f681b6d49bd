"""Makes the arrays of a case smaller and simpler: fewer rows, channels and pixels, and numbers that one can read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
import onnx
from onnx import AttributeProto, numpy_helper

from poolzoo.parity.reduction import graphs
from poolzoo.parity.reduction.case import Oracle

Axis = tuple[str, int]
"""An axis of an input or weight."""
SLICED: Final = ("f", "u", "i1", "i4")  # kinds of arrays with axes of channels and pixels: also weights in int8
SMALL: Final = 8  # integers in a weight of so few are sizes, which change with the axes
SIMPLER: Final[tuple[Callable[[np.ndarray], np.ndarray], ...]] = (
    np.zeros_like,
    np.ones_like,
    lambda one: np.sign(one),
    lambda one: np.clip(np.rint(one), -3, 3),
    lambda one: np.rint(one),
    lambda one: np.round(one, 1),
    lambda one: np.round(one, 2),
    lambda one: np.round(one, 3),
)


def shrink(oracle: Oracle) -> None:
    """Slices axes, then simplifies numbers, as long as the difference stays."""
    _slice_axes(oracle)
    _simplify(oracle)


def _arrays(oracle: Oracle) -> dict[str, np.ndarray]:
    case = oracle.best
    repaired = graphs.constants(case.reference) if isinstance(case.reference, onnx.ModelProto) else {}
    return {**repaired, **graphs.constants(case.graph), **case.inputs}


def _slice_axes(oracle: Oracle) -> None:
    """Axes of one length are sliced together, then those of the inputs or of the weights alone, then each alone.

    Channels of an input, of a weight and of a normalization have one length, so that a shorter one fits all of them.
    """
    changed = True
    while changed:
        changed = False
        arrays = _arrays(oracle)
        lengths = {length for one in arrays.values() if _is_sliced(one) for length in one.shape if length > 1}
        for length in sorted(lengths, reverse=True):
            for axes in _groups(arrays, oracle, length):
                choices = _choices(length, _worst(oracle, length))
                changed |= any(_slice(oracle, axes, length, rows) for rows in choices if len(rows) < length)
                if changed:
                    break


def _is_sliced(array: np.ndarray) -> bool:
    return array.dtype.str.lstrip("<>=|").startswith(SLICED)


def _groups(arrays: dict[str, np.ndarray], oracle: Oracle, length: int) -> Iterator[list[Axis]]:
    """Sets of axes of one length that may have to change together."""
    axes = [
        (name, axis)
        for name, one in arrays.items()
        if _is_sliced(one)
        for axis, side in enumerate(one.shape)
        if side == length
    ]
    inputs = [one for one in axes if one[0] in oracle.best.inputs]
    first = [one for one in inputs if one[1] == 0]
    spatial = [one for one in inputs if one[1] >= 2]
    reference = oracle.best.reference
    if isinstance(reference, onnx.ModelProto):
        sets = [first, axes, spatial, inputs, [one for one in axes if one not in inputs], *([one] for one in axes)]
    else:  # torch's weights have to change alike
        sets = [first, axes, spatial] if reference.sliceable else [first]
    seen: list[list[Axis]] = []
    for group in sets:
        if group and group not in seen:
            seen.append(group)
            yield group


def _worst(oracle: Oracle, length: int) -> int:
    """Where the output differs most along an axis of this length; 0 where it has none."""
    case = oracle.best
    place = oracle.difference(case).index
    shape = np.shape(oracle.expected(case))
    return next((index for index, side in zip(place, shape, strict=False) if side == length), 0)


def _choices(length: int, worst: int) -> Iterator[list[int]]:
    """Rows to keep, the fewest first."""
    yield [worst]
    for count in dict.fromkeys((1, 2, 3, length // 2, length - 1)):
        if count:
            yield list(range(count))
            yield list(range(length - count, length))
            middle = (length - count) // 2
            yield list(range(middle, middle + count))


def _slice(oracle: Oracle, axes: list[Axis], length: int, rows: list[int]) -> bool:
    names = dict.fromkeys(name for name, _ in axes)

    def sliced(name: str, value: np.ndarray) -> np.ndarray:
        for one, axis in axes:
            if one == name:
                value = np.take(value, rows, axis)
        return np.ascontiguousarray(value)

    inputs = {name: sliced(name, value) if name in names else value for name, value in oracle.best.inputs.items()}

    def change(proto: onnx.ModelProto, sizes: bool) -> onnx.ModelProto:
        copy = graphs.copied(proto)
        for tensor in copy.graph.initializer:
            value = numpy_helper.to_array(tensor)
            if tensor.name in names:
                tensor.CopyFrom(numpy_helper.from_array(sliced(tensor.name, value), tensor.name))
            elif sizes and value.dtype == np.int64 and value.size <= SMALL:
                smaller = np.where(value == length, len(rows), value)
                tensor.CopyFrom(numpy_helper.from_array(smaller, tensor.name))
        for given in copy.graph.input:
            if given.name in names:
                for axis, side in enumerate(given.type.tensor_type.shape.dim):
                    if side.HasField("dim_value"):
                        side.dim_value = inputs[given.name].shape[axis]
        for node in copy.graph.node if sizes else ():
            for attribute in node.attribute:
                if attribute.type == AttributeProto.INT and attribute.name == "group" and attribute.i == length:
                    attribute.i = len(rows)
        return copy

    reference, expected = oracle.best.reference, None
    if not isinstance(reference, onnx.ModelProto) and not names.keys() <= oracle.best.inputs.keys():
        expected = reference.sliced(length, rows)
    return any(
        oracle.tried(lambda proto, sizes=sizes: change(proto, sizes), inputs, expected)  # type: ignore[misc]
        for sizes in (True, False)
    )


def _simplify(oracle: Oracle) -> None:
    """Puts simpler numbers in the place of each array."""
    for name in list(oracle.best.inputs):
        value = oracle.best.inputs[name]
        for simpler in SIMPLER if value.dtype.kind == "f" else ():
            smaller = _simplified(simpler, value)
            if np.array_equal(smaller, value):
                break
            if oracle.tried(graphs.copied, {**oracle.best.inputs, name: smaller}):
                break
    if not isinstance(oracle.best.reference, onnx.ModelProto):
        return
    read = {name for node in oracle.best.reference.graph.node for name in node.input}
    for name, value in graphs.constants(oracle.best.graph).items():
        if name not in read:  # it is the fault
            continue
        for simpler in SIMPLER if value.dtype.kind == "f" else ():
            smaller = _simplified(simpler, value)
            if np.array_equal(smaller, value) or oracle.tried(
                lambda proto, name=name, simpler=simpler: _mapped(proto, name, simpler)  # type: ignore[misc]
            ):
                break


def _simplified(simpler: Callable[[np.ndarray], np.ndarray], value: np.ndarray) -> np.ndarray:
    return np.asarray(simpler(value).astype(value.dtype) + value.dtype.type(0))  # no negative zeros


def _mapped(proto: onnx.ModelProto, name: str, simpler: Callable[[np.ndarray], np.ndarray]) -> onnx.ModelProto:
    """A copy with simpler numbers in a weight. Where the fault is in it, each of the two graphs keeps its own."""
    return graphs.with_constant_values(proto, name, _simplified(simpler, graphs.constants(proto)[name]))
