"""A classifier from elsewhere as a bundle's graph: `images` to `logits` and `probabilities`. Needs onnx.

What differs is computed by a few nodes before and after the file's own, which stay as they are. So every check and
runtime of a bundle takes the graph. Where only probabilities are known, their logarithm stands for the logits: it
differs by a constant for each image.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from poolzoo.common import json_writer
from poolzoo.runtime.foreign import onnx_source
from poolzoo.runtime.foreign.classifier import Classifier, FileOutput
from poolzoo.runtime.foreign.scaling import Scaling

Scores = Literal["logits", "probabilities"]

IMAGES: Final = "images"
OUTPUTS: Final = ("logits", "probabilities")
BATCH: Final = "N"  # the name of the batch, where the file has none
LEAST: Final = 1e-30  # probability whose logarithm is taken; smaller ones vanish in float32
DTYPES: Final = {
    "uint8": TensorProto.UINT8,
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "float64": TensorProto.DOUBLE,
}


def canonical(file: Classifier, output: FileOutput, scores: Scores, scaling: Scaling) -> onnx.ModelProto:
    """The graph of a file in a bundle's form, with metadata.

    Its input is `uint8[N, H, W, 3]` where the file takes uint8, else `float32[N, 3, H, W]` in 0–1. A file of one
    channel gets the first one.

    Args:
        file: The file.
        output: The output that holds the scores.
        scores: "logits" to give them as they are, "probabilities" to give the logarithm of probabilities.
        scaling: What a file of floats takes; it does not concern one of uint8.
    """
    proto, given = _copy(file.proto), file.given
    stored = given.dtype == "uint8"
    before = _Chain(proto, IMAGES, _free(given.name))
    if not stored and not scaling.is_identity:
        before.add("Mul", before.constant(scaling.factor))
        before.add("Add", before.constant(scaling.offset))
    layout = "NHWC" if stored else "NCHW"
    _to_file(before, file, layout)
    before.finish()
    sides: tuple[int, ...] = (*given.size, 3) if stored else (3, *given.size)
    _set_input(proto, file, TensorProto.UINT8 if stored else TensorProto.FLOAT, sides)
    _set_outputs(proto, output, scores)
    facts: dict[str, object] = {
        "labels": [f"class {index}" for index in range(output.classes)],
        "input": {
            "name": IMAGES,
            "kind": "uint8" if stored else "float",
            "layout": layout,
            "range": [0, 255] if stored else [0, 1],
            "height": given.height,
            "width": given.width,
            "channels": "RGB",
            **({"batch": given.batch} if given.batch else {}),
        },
        "precision": file.precision,
    }
    helper.set_model_props(proto, {key: json_writer.dumps(value) for key, value in facts.items()})
    return proto


def raw(file: Classifier, output: FileOutput) -> onnx.ModelProto:
    """The graph of a file from `float32[N, C, H, W]` in the file's own terms to its scores, `logits`."""
    proto = _copy(file.proto)
    before = _Chain(proto, IMAGES, _free(file.given.name))
    _to_file(before, file, "NCHW", has_channels=file.given.channels)
    before.finish()
    given = file.given
    _set_input(proto, file, TensorProto.FLOAT, (given.channels, *given.size))
    _to_float32(proto, output, OUTPUTS[0])
    _replace_outputs(proto, OUTPUTS[:1], output.classes)
    return proto


def _to_file(chain: _Chain, file: Classifier, layout: str, *, has_channels: int = 3) -> None:
    """From images of a layout to the file's channels, layout and type."""
    given = file.given
    if given.channels < has_channels:
        axis = 1 if layout == "NCHW" else 3
        chain.add("Gather", chain.constant(np.array([0])), axis=axis)
    if layout != given.layout:
        chain.add("Transpose", perm=[0, 2, 3, 1] if given.layout == "NHWC" else [0, 3, 1, 2])
    if given.dtype != ("uint8" if layout == "NHWC" else "float32"):
        chain.add("Cast", to=DTYPES[given.dtype])


def _set_outputs(proto: onnx.ModelProto, output: FileOutput, scores: Scores) -> None:
    logits, probabilities = OUTPUTS
    if scores == "logits":
        _to_float32(proto, output, logits)
        proto.graph.node.append(helper.make_node("Softmax", [logits], [probabilities], axis=1))
    else:
        _to_float32(proto, output, probabilities, *(() if output.is_probabilities else ("Softmax",)))
        after = _Chain(proto, probabilities, logits)
        after.add("Max", after.constant(np.array(LEAST, np.float32)))
        after.add("Log")
        after.finish(at_end=True)
    _replace_outputs(proto, OUTPUTS, output.classes)


def _to_float32(proto: onnx.ModelProto, output: FileOutput, name: str, *then: str) -> None:
    """Gives an output of a file another name, as float32, behind more operators."""
    after = _Chain(proto, _free(output.name), name)
    if output.dtype != "float32":
        after.add("Cast", to=TensorProto.FLOAT)
    for kind in then:
        after.add(kind, axis=1)
    after.finish(at_end=True)


class _Chain:
    """Nodes in a row between two values of a graph; without any, both are one value."""

    def __init__(self, proto: onnx.ModelProto, first: str, last: str) -> None:
        self._proto = proto
        self._value, self._last = first, last
        self._nodes: list[onnx.NodeProto] = []

    def constant(self, array: np.ndarray) -> str:
        """The name of a new constant."""
        name = f"poolzoo_constant_{len(self._proto.graph.initializer)}"
        self._proto.graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def add(self, kind: str, *others: str, **attributes: Any) -> None:
        """Adds a node that reads the last value."""
        made = f"poolzoo_{self._value}_{len(self._nodes)}"
        name = f"poolzoo_{kind}_{len(self._proto.graph.node)}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, [self._value, *others], [made], name=name, **attributes))
        self._value = made

    def finish(self, *, at_end: bool = False) -> None:
        """Puts the nodes before those of the graph, or behind them."""
        if not self._nodes:  # the file's own value gets our name
            old, new = (self._value, self._last) if at_end else (self._last, self._value)
            rename(self._proto.graph, old, new)
            return
        self._nodes[-1].output[0] = self._last
        nodes = [*self._proto.graph.node, *self._nodes] if at_end else [*self._nodes, *self._proto.graph.node]
        del self._proto.graph.node[:]
        self._proto.graph.node.extend(nodes)


def _copy(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which no value has one of our names."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for name in (IMAGES, *OUTPUTS):
        rename(copy.graph, name, _free(name))
    return copy


def _free(name: str) -> str:
    """The name of one of the file's values in a copy."""
    return f"file_{name}" if name in (IMAGES, *OUTPUTS) else name


def rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Renames a value in a graph and in the graphs inside its nodes."""
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        if value.name == old:
            value.name = new
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new
        for one in node.attribute:
            for inner in onnx_source.subgraphs(one):
                rename(inner, old, new)


def _set_input(proto: onnx.ModelProto, file: Classifier, element: int, sides: Sequence[int]) -> None:
    """States the input. The batch keeps the file's name of it, which shapes of values inside repeat."""
    stated = list(file.proto.graph.input[0].type.tensor_type.shape.dim)
    names = [side.dim_param for side in stated]
    batch: int | str = file.given.batch or (names[0] if names else "") or BATCH
    del proto.graph.input[:]
    proto.graph.input.append(helper.make_tensor_value_info(IMAGES, element, [batch, *sides]))
    if any(not side.dim_value for side in stated[1:]) or not stated:
        del proto.graph.value_info[:]  # which state sizes of images by name


def _replace_outputs(proto: onnx.ModelProto, names: Iterable[str], classes: int) -> None:
    """Makes these the outputs, and takes out what only others need."""
    first = proto.graph.input[0].type.tensor_type.shape.dim[0]
    batch = first.dim_value or first.dim_param
    del proto.graph.output[:]
    for name in names:
        proto.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, classes]))
    wanted = {value.name for value in proto.graph.output}
    kept = []
    for node in reversed(proto.graph.node):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(_read(node))
    kept.reverse()
    del proto.graph.node[:]
    proto.graph.node.extend(kept)
    weights = [one for one in proto.graph.initializer if one.name in wanted]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(weights)


def _read(node: onnx.NodeProto) -> Iterable[str]:
    """The values that a node reads, those that graphs inside it read from outside included."""
    yield from node.input
    for one in node.attribute:
        for inner in onnx_source.subgraphs(one):
            for other in inner.node:
                yield from _read(other)
            yield from (value.name for value in inner.output)
