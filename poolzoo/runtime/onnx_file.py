"""Reads and edits an ONNX file without the onnx package, which comes with the torch extras alone.

A file is a protobuf message of numbered fields, some of which are messages themselves; the numbers are those of
onnx.proto. Everything that is not edited is copied byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from poolzoo.common.errors import CheckFailed

MODEL_GRAPH, MODEL_METADATA = 7, 14
ENTRY_KEY, ENTRY_VALUE = 1, 2
# Fields of a graph, a node, a tensor and a value.
NODE, WEIGHT, INPUT, OUTPUT, VALUE_INFO = 1, 5, 11, 12, 13
NODE_INPUT, NODE_OUTPUT, NODE_TYPE = 1, 2, 4
TENSOR_DIMS, TENSOR_TYPE, TENSOR_FLOATS, TENSOR_INTS, TENSOR_NAME, TENSOR_RAW = 1, 2, 4, 7, 8, 9
VALUE_NAME, VALUE_TYPE = 1, 2
# The element types that are read here.
TYPES: Final[dict[int, np.dtype[Any]]] = {1: np.dtype("<f4"), 7: np.dtype("<i8"), 10: np.dtype("<f2")}
MAX_SIDE: Final = 1 << 40  # of a weight; a negative one is beyond it
VARINT_BITS: Final = 70  # of a number of ten bytes, the longest
FIXED: Final = {1: 8, 5: 4}  # bytes of the wire types without a length

Field = tuple[int, int | memoryview, memoryview]  # its number, its value, and all of its bytes


@dataclass(frozen=True)
class Node:
    """An operator: its type, the names of its inputs and outputs, and its bytes."""

    type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    raw: memoryview


class Graph:
    """The graph of an ONNX file.

    Attributes:
        nodes: In topological order.
        inputs, outputs, weights: The bytes of each, by name.
        metadata: The file's `metadata_props`.
    """

    def __init__(self, content: bytes) -> None:
        """Parses a file.

        Args:
            content: The file's bytes.

        Raises:
            ValueError, IndexError: The bytes are no ONNX file.
        """
        parts = list(fields(memoryview(content)))
        self._around = [raw for number, _, raw in parts if number != MODEL_GRAPH]
        self.metadata = dict(_entry(_view(value)) for number, value, _ in parts if number == MODEL_METADATA)
        graph = next((_view(value) for number, value, _ in parts if number == MODEL_GRAPH), None)
        if graph is None:
            raise ValueError("it holds no graph")
        self.nodes: list[Node] = []
        self._rest: list[memoryview] = []
        tables: dict[int, dict[str, memoryview]] = {WEIGHT: {}, INPUT: {}, OUTPUT: {}}
        for number, value, raw in fields(graph):
            if number == NODE:
                self.nodes.append(_node(_view(value), raw))
            elif number in tables:
                tables[number][_name(_view(value), TENSOR_NAME if number == WEIGHT else VALUE_NAME)] = raw
            elif number != VALUE_INFO:
                self._rest.append(raw)
        self.weights = tables[WEIGHT]
        self.inputs = tables[INPUT]
        self.outputs = tables[OUTPUT]

    def nodes_between(self, start: str | None, end: str) -> list[Node]:
        """The nodes that compute `end` from `start` or from the graph's inputs, in topological order."""
        wanted = {end}
        found = []
        for node in reversed(self.nodes):
            if any(name in wanted and name != start for name in node.outputs):
                found.append(node)
                wanted.update(node.inputs)
        return found[::-1]

    def bottlenecks(self, end: str) -> list[str]:
        """The values that every path from the inputs to `end` goes through, in order; reading a shape is no path."""
        nodes = self.nodes_between(None, end)
        last = {name: at for at, node in enumerate(nodes) if not self._reads_size(node) for name in node.inputs}
        last[end] = len(nodes)
        live = set(self.inputs)  # values that depend on the inputs and are still to be read
        found: list[str] = []
        for at, node in enumerate(nodes):
            if not self._reads_size(node) and live.intersection(node.inputs):
                live.update(node.outputs)
            live = {name for name in live if last.get(name, -1) > at}
            if len(live) == 1 and live <= set(node.outputs):
                found += live
        return found

    def _reads_size(self, node: Node) -> bool:
        return node.type == "Shape" and set(node.inputs) <= self.inputs.keys()

    def weight(self, name: str) -> np.ndarray | None:
        """A weight in its stored type; None where there is none of that name, or its type is not in `TYPES`."""
        if name not in self.weights:
            return None
        (_, tensor, _) = next(fields(self.weights[name]))
        shape: list[int] = []
        content: dict[int, memoryview] = {}
        kind = None
        for number, value, _ in fields(_view(tensor)):
            if number == TENSOR_DIMS:
                shape += [value] if isinstance(value, int) else _packed(value)
            elif number == TENSOR_TYPE:
                kind = TYPES.get(value) if isinstance(value, int) else None
            elif isinstance(value, memoryview):
                content[number] = value
        if kind is None:
            return None
        if max(shape, default=0) > MAX_SIDE:
            raise ValueError(f"{name} has no shape")
        plain = TENSOR_RAW if TENSOR_RAW in content or kind != TYPES[1] else TENSOR_FLOATS
        if plain in content:
            return np.frombuffer(content[plain], kind).reshape(shape)
        if kind == TYPES[7] and TENSOR_INTS in content:
            return np.array(_packed(content[TENSOR_INTS]), np.uint64).astype(kind).reshape(shape)
        return None

    def with_outputs(self, names: Iterable[str]) -> bytes:
        """The file with more outputs, as bytes."""
        added = [_bytes(OUTPUT, _bytes(VALUE_NAME, name.encode())) for name in names if name not in self.outputs]
        return self._file(self.nodes, self.weights.values(), self.inputs.values(), [*self.outputs.values(), *added])

    def with_only(self, names: Iterable[str]) -> bytes:
        """The file with these outputs alone and what they need, as bytes."""
        kept = list(names)
        wanted = {id(node) for name in kept for node in self.nodes_between(None, name)}
        nodes = [node for node in self.nodes if id(node) in wanted]
        used = {name for node in nodes for name in node.inputs}
        weights = [raw for name, raw in self.weights.items() if name in used]
        return self._file(nodes, weights, self.inputs.values(), [self.outputs[name] for name in kept])

    def subgraph(self, start: str, end: str, example: np.ndarray) -> bytes:
        """The part of the file from one value to one of the outputs, with the same nodes and weights, as bytes.

        Args:
            start: The value that becomes the first input. The graph's own inputs stay inputs where the part reads
                the size of the batch off them.
            end: The output.
            example: One of the values that `start` takes, including the batch.
        """
        nodes = self.nodes_between(start, end)
        used = {name for node in nodes for name in node.inputs}
        kind = next(number for number, dtype in TYPES.items() if dtype == example.dtype)
        sides = b"".join(_bytes(1, _number(1, side)) for side in example.shape[1:])
        tensor = _number(1, kind) + _bytes(2, _bytes(1, _bytes(2, b"rows")) + sides)
        first = _bytes(INPUT, _bytes(VALUE_NAME, start.encode()) + _bytes(VALUE_TYPE, _bytes(1, tensor)))
        kept = [raw for name, raw in self.inputs.items() if name in used and name != start]
        weights = [raw for name, raw in self.weights.items() if name in used]
        return self._file(nodes, weights, [first, *kept], [self.outputs[end]])

    def _file(self, nodes: Iterable[Node], *tables: Iterable[bytes | memoryview]) -> bytes:
        content = [node.raw for node in nodes] + [raw for table in tables for raw in table] + self._rest
        return b"".join((*self._around, _bytes(MODEL_GRAPH, b"".join(content))))


def read(path: Path) -> Graph:
    """Reads a file, such as a bundle's `model.onnx`.

    Raises:
        ValueError, IndexError: It is no ONNX file.
    """
    return Graph(path.read_bytes())


def read_bundled(path: Path) -> Graph:
    """Reads the graph of a bundle that an error is shown of.

    Raises:
        CheckFailed: It is no ONNX file.
    """
    try:
        return read(path)
    except (ValueError, IndexError) as error:
        raise CheckFailed(f"{path} cannot be read: {error}", "export it again") from error


def _node(content: memoryview, raw: memoryview) -> Node:
    kind, inputs, outputs = "", [], []
    for number, value, _ in fields(content):
        if number == NODE_INPUT and len(_view(value)):  # an empty name is an input that is left out
            inputs.append(_text(value))
        elif number == NODE_OUTPUT and len(_view(value)):
            outputs.append(_text(value))
        elif number == NODE_TYPE:
            kind = _text(value)
    return Node(kind, tuple(inputs), tuple(outputs), raw)


def _entry(content: memoryview) -> tuple[str, str]:
    texts = {number: _text(value) for number, value, _ in fields(content)}
    return texts.get(ENTRY_KEY, ""), texts.get(ENTRY_VALUE, "")


def _name(content: memoryview, field: int) -> str:
    return next((_text(value) for number, value, _ in fields(content) if number == field), "")


def fields(content: memoryview) -> Iterator[Field]:
    """The fields of a message.

    Raises:
        ValueError, IndexError: The bytes are no message.
    """
    at = 0
    while at < len(content):
        start = at
        key, at = _varint(content, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(content, at)
            yield number, value, content[start:at]
            continue
        if wire == 2:
            length, at = _varint(content, at)
        elif wire in FIXED:
            length = FIXED[wire]
        else:
            raise ValueError("it is no protobuf message")
        at += length
        if at > len(content):
            raise ValueError("it ends too early")
        yield number, content[at - length : at], content[start:at]


def _varint(content: memoryview, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, the least first, and where it ends."""
    value = shift = 0
    while shift < VARINT_BITS:
        byte = content[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
    raise ValueError("it has a number that does not end")


def _packed(content: memoryview) -> list[int]:
    numbers, at = [], 0
    while at < len(content):
        number, at = _varint(content, at)
        numbers.append(number)
    return numbers


def _view(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number stands where a message should")
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_view(value)).decode()


def _encoded(value: int) -> bytes:
    low, rest = value & 127, value >> 7
    return bytes([low | 128]) + _encoded(rest) if rest else bytes([low])


def _number(field: int, value: int) -> bytes:
    return _encoded(field << 3) + _encoded(value)


def _bytes(field: int, content: bytes) -> bytes:
    return _encoded(field << 3 | 2) + _encoded(len(content)) + content
