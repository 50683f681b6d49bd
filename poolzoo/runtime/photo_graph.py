"""The input `photo`: a graph that takes one photograph of any size, with the resize and crop of training inside.

The resize is Pillow's: a matrix of filter weights for each axis, rounded to whole levels after each; the width comes
first, and of tall photographs the height. The weights are computed in the graph from the photograph's height and width.
`Resize` is not used: its antialiased form cannot take the fractional crop of training, and some runtimes ignore
`antialias`. Needs onnx and no torch.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import Any, Final, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from poolzoo.common import json_writer
from poolzoo.common.errors import UsageError
from poolzoo.data.resize import PHOTO_TRANSFORMS, Fit, recorded
from poolzoo.data.sizes import Size, show
from poolzoo.runtime.graph_input import PHOTO
from poolzoo.runtime.photo_input import PIXELS, PREFIX

DESCRIPTION: Final = {"kind": PHOTO, "layout": "NHWC", "range": [0, 255], "batch": 1}  # in `metadata_props`
FILTERS: Final = {"bilinear": 1, "bicubic": 2}  # the reach of each filter in pixels, where nothing is reduced
BLOCK: Final = 32  # outputs that are computed at once, from the pixels within their reach

Axis = Literal[2, 3]  # height and width of [1, 3, H, W]


def with_photo_input(model: onnx.ModelProto, *, dense: bool = False) -> onnx.ModelProto:
    """A bundle's graph that takes a photograph as it was decoded: `uint8[1, H, W, 3]`, RGB, of any height and width.

    Args:
        model: A graph with uint8 images as its input, and the `metadata_props` of a bundle. It is not changed.
        dense: Whether each axis is one product of matrices, without dynamic slices, for runtimes that refuse those.
            The numbers are the same; a photograph much larger than the network's images takes several times as long.

    Returns:
        The graph. The input keeps its name, the outputs have a batch of 1.

    Raises:
        UsageError: The graph takes other images than uint8, or its resize is neither bilinear nor bicubic.
    """
    facts = {entry.key: entry.value for entry in model.metadata_props}
    given = json.loads(facts["input"])
    try:
        fit = recorded(json.loads(facts.get("preprocessing", "{}")))
    except ValueError as error:
        raise UsageError(f"the graph's metadata hold no {error}", "export the run again with poolzoo export") from error
    if given["kind"] != "uint8":
        raise UsageError(f"a graph with {given['kind']} input cannot take photographs", "export it with --input uint8")
    require_filter(fit)
    size = given["height"], given["width"]
    made = copy.deepcopy(model)
    part = _Part(given["name"], size, fit, dense=dense)
    for node in made.graph.node:
        node.input[:] = [PIXELS if name == given["name"] else name for name in node.input]
    inside = [*part.nodes, *made.graph.node]
    del made.graph.node[:]
    made.graph.node.extend(inside)
    made.graph.initializer.extend(part.constants)
    made.graph.input[0].CopyFrom(_image(given["name"], ("height", "width")))
    _fix_batch(made, 1)
    facts["input"] = json_writer.dumps({**given, **DESCRIPTION})
    facts["preprocessing"] = json_writer.dumps(_describe(json.loads(facts.get("preprocessing", "{}")), size, fit))
    helper.set_model_props(made, facts)
    onnx.checker.check_model(made, full_check=True)
    return made


def require_filter(fit: Fit) -> None:
    """Requires an interpolation that can be computed in a graph.

    Raises:
        UsageError: It is neither bilinear nor bicubic.
    """
    if fit.interpolation not in FILTERS:
        text = f"photographs are resized in the graph by {' or '.join(FILTERS)}, not {fit.interpolation}"
        raise UsageError(text, "export it with --input uint8")


def without_photo_input(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph that `with_photo_input` was given, up to its description in `metadata_props`: uint8, any batch.

    Raises:
        UsageError: It does not take photographs.
    """
    facts = {entry.key: entry.value for entry in model.metadata_props}
    given = json.loads(facts["input"])
    if given["kind"] != PHOTO:
        raise UsageError(f"the graph takes {given['kind']} images, not photographs", "export it with --input photo")
    made = copy.deepcopy(model)
    inside = [node for node in made.graph.node if not node.name.startswith(PREFIX)]
    constants = [tensor for tensor in made.graph.initializer if not tensor.name.startswith(PREFIX)]
    for node in inside:
        node.input[:] = [given["name"] if name == PIXELS else name for name in node.input]
    del made.graph.node[:], made.graph.initializer[:]
    made.graph.node.extend(inside)
    made.graph.initializer.extend(constants)
    made.graph.input[0].CopyFrom(_image(given["name"], (given["height"], given["width"])))
    _fix_batch(made, "batch")
    rest = {key: value for key, value in given.items() if key != "batch"}
    facts["input"] = json_writer.dumps({**rest, "kind": "uint8"})
    helper.set_model_props(made, facts)
    onnx.checker.check_model(made, full_check=True)
    return made


def _image(name: str, size: tuple[int | str, int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.UINT8, [1, *size, 3])


def _fix_batch(model: onnx.ModelProto, batch: int | str) -> None:
    """Writes the first dimension of input and outputs, and forgets shapes that were inferred for another."""
    for value in (model.graph.input[0], *model.graph.output):
        first = value.type.tensor_type.shape.dim[0]
        if isinstance(batch, int):
            first.dim_value = batch
        else:
            first.dim_param = batch
    del model.graph.value_info[:]


def _describe(preprocessing: dict[str, object], size: Size, fit: Fit) -> dict[str, object]:
    crop = "" if fit.crop_pct == 1 else f", {fit.crop_pct:g} of the shorter side kept"
    resized = f"shorter side resized ({fit.interpolation}, antialiased{crop}), center cropped to {show(size)}"
    inside = f"where the size differs, {resized}; {preprocessing.get('inside', 'as it is')}"
    return {**preprocessing, "before": PHOTO_TRANSFORMS[fit.reader], "inside": inside}


class _Part:
    """The nodes and constants from a photograph to what the network sees of it."""

    def __init__(self, name: str, size: Size, fit: Fit, *, dense: bool) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.fit = fit
        self.dense = dense
        sides = self.add("Cast", self.add("Shape", name), to=TensorProto.FLOAT)
        rows = self.add("Gather", sides, self.integers(1))
        columns = self.add("Gather", sides, self.integers(2))
        x = self.add("Transpose", name, perm=[0, 3, 1, 2])
        kept = self._kept((rows, columns), size) if fit.crop_pct != 1 else self.floats(1)
        tall = self._tall((rows, columns), size)
        ways = [
            self._in_order(x, (rows, columns), size, kept, wanted=self.add("Sub", self.floats(1), tall), axes=(3, 2)),
            self._in_order(x, (rows, columns), size, kept, wanted=tall, axes=(2, 3)),
        ]
        self.add("Transpose", self.add("Add", *ways), perm=[0, 2, 3, 1], output=PIXELS)

    def add(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Adds a node; returns the name of its output."""
        name = output or f"{PREFIX}{operator}_{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(operator, inputs, [name], name=f"{PREFIX}node_{len(self.nodes)}", **attributes)
        )
        return name

    def floats(self, value: float | Sequence[float] | np.ndarray) -> str:
        """The name of a constant, `float32`."""
        return self._constant(np.asarray(value, np.float32))

    def integers(self, value: int | Sequence[int]) -> str:
        """The name of a constant, `int64`."""
        return self._constant(np.asarray(value, np.int64))

    def _constant(self, value: np.ndarray) -> str:
        for held in self.constants:
            known = numpy_helper.to_array(held)
            if known.dtype == value.dtype and known.shape == value.shape and (known == value).all():
                return held.name
        name = f"{PREFIX}constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def _kept(self, sides: tuple[str, str], size: Size) -> str:
        """The part of the shorter side that is kept: `crop_pct`, or 1 where the photograph has the wanted size."""
        away = [self.add("Abs", self.add("Sub", side, self.floats(n))) for side, n in zip(sides, size, strict=True)]
        same = self.add("Relu", self.add("Sub", self.floats(1), self.add("Add", *away)))
        margin = self.add("Mul", same, self.floats(1 - self.fit.crop_pct))
        return self.add("Add", margin, self.floats(self.fit.crop_pct))

    def _tall(self, sides: tuple[str, str], size: Size) -> str:
        """1 where Pillow (from 13 on) resizes the height first, else 0: H > h and H - h > 2 (W - w)."""
        less_rows, less_columns = (self.add("Sub", side, self.floats(n)) for side, n in zip(sides, size, strict=True))
        more = self.add("Sub", less_rows, self.add("Mul", less_columns, self.floats(2)))
        bounds = self.floats(0), self.floats(1)  # the differences are whole
        return self.add("Mul", self.add("Clip", less_rows, *bounds), self.add("Clip", more, *bounds))

    def _in_order(
        self, x: str, sides: tuple[str, str], size: Size, kept: str, *, wanted: str, axes: tuple[Axis, Axis]
    ) -> str:
        """The photograph resized along one axis and then the other, times `wanted`, which is 0 or 1.

        Where it is 0, a single pixel is resized, which takes no time; a dense graph resizes all of them.
        """
        if not self.dense:
            ones = self.floats(1)
            rows, columns = (self.add("Max", self.add("Mul", side, wanted), ones) for side in sides)
            sides = rows, columns
            ends = [self.add("Unsqueeze", side, self.integers([0])) for side in sides]
            end = self.add("Cast", self.add("Concat", *ends, axis=0), to=TensorProto.INT64)
            x = self.add("Slice", x, self.integers([0, 0]), end, self.integers([2, 3]))
        # Pixels of the photograph for one of the result. Products of whole numbers are exact in float32.
        products = [self.add("Mul", side, self.floats(n)) for side, n in zip(sides, size[::-1], strict=True)]
        scale = self.add("Mul", self.add("Div", self.add("Min", *products), self.floats(size[0] * size[1])), kept)
        for axis in axes:
            first = axis == axes[0]
            x = self._resample(x, sides[axis - 2], scale, size[axis - 2], axis=axis, cast=first)
        return self.add("Mul", x, wanted)

    def _resample(self, x: str, side: str, scale: str, wanted: int, *, axis: Axis, cast: bool) -> str:
        """Resizes `[1, 3, H, W]` along an axis and rounds to whole levels, half up as Pillow does.

        Args:
            x: The pixels, uint8 or whole levels in float32.
            side: Their number along the axis, a scalar.
            scale: How many of them become one.
            wanted: The same of the result.
            axis: 2 for the height, 3 for the width.
            cast: Whether they are uint8.
        """
        stretch = self.add("Max", scale, self.floats(1))  # the filter of an enlargement is not narrower
        before, after = (1, 0) if axis == 2 else (0, 1)  # the axes of the weights: pixels, and those of the result
        middle = self.add("Mul", side, self.floats(0.5))  # the origin of coordinates, which keeps them small
        pixels = self.add("Range", self.floats(0), side, self.floats(1))
        pixels = self.add("Sub", self.add("Add", pixels, self.floats(0.5)), middle)
        pixels = self.add("Unsqueeze", pixels, self.integers([after]))
        steps = np.arange(wanted) + 0.5 - wanted / 2
        centers = self.add("Mul", self.floats(np.expand_dims(steps, before)), scale)
        distance = self.add("Div", self.add("Abs", self.add("Sub", pixels, centers)), stretch)
        weights = self._filter(distance)
        weights = self.add("Div", weights, self.add("ReduceSum", weights, self.integers([before])))
        parts = []
        count = 1 if self.dense else max(1, round(wanted / BLOCK))
        for rows in np.array_split(np.arange(wanted), count):
            some, of_weights = x, weights
            if count > 1:
                first, last = int(rows[0]), int(rows[-1])
                reached = self._reached((steps[first], steps[last]), (scale, stretch), middle, side)
                some = self.add("Slice", x, *reached, self.integers([axis]))
                ends = self.integers([first]), self.integers([last + 1])
                of_weights = self.add("Slice", weights, *ends, self.integers([after]))
                of_weights = self.add("Slice", of_weights, *reached, self.integers([before]))
            if cast:
                some = self.add("Cast", some, to=TensorProto.FLOAT)
            parts.append(self.add("MatMul", *((some, of_weights) if axis == 3 else (of_weights, some))))
        whole = parts[0] if count == 1 else self.add("Concat", *parts, axis=axis)
        rounded = self.add("Floor", self.add("Add", whole, self.floats(0.5)))
        return self.add("Clip", rounded, self.floats(0), self.floats(255))

    def _filter(self, distance: str) -> str:
        """The filter at distances in its own unit: a triangle, or Pillow's cubic with a = -0.5."""
        one = self.floats(1)
        if self.fit.interpolation == "bilinear":
            return self.add("Relu", self.add("Sub", one, distance))
        near = self.add("Min", distance, one)  # each polynomial is 0 where the other one begins, and stays there
        far = self.add("Clip", distance, one, self.floats(2))
        return self.add("Add", self._polynomial(near, (1.5, -2.5, 0, 1)), self._polynomial(far, (-0.5, 2.5, -4, 2)))

    def _polynomial(self, x: str, coefficients: Sequence[float]) -> str:
        """Its value by Horner's rule, the highest power first."""
        value = self.add("Mul", x, self.floats(coefficients[0]))
        for one in coefficients[1:-1]:
            value = self.add("Mul", self.add("Add", value, self.floats(one)), x)
        return self.add("Add", value, self.floats(coefficients[-1]))

    def _reached(self, ends: tuple[float, float], scales: tuple[str, str], middle: str, side: str) -> tuple[str, str]:
        """The first pixel that a block of results reads, and the one after its last, `int64[1]` each.

        Args:
            ends: The block's first and last center, in pixels of the result from its middle.
            scales: How many pixels become one, and the same where it is at least 1.
            middle: Half the number of pixels.
            side: The number of pixels.
        """
        reach = self.add("Mul", scales[1], self.floats(FILTERS[self.fit.interpolation]))
        reach = self.add("Add", reach, self.floats(1))
        places = [self.add("Add", self.add("Mul", scales[0], self.floats([end])), middle) for end in ends]
        first = self.add("Max", self.add("Sub", places[0], reach), self.floats(0))
        last = self.add("Min", self.add("Add", places[1], reach), side)
        return self.add("Cast", first, to=TensorProto.INT64), self.add("Cast", last, to=TensorProto.INT64)
