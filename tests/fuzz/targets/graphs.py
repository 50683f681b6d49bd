"""ONNX files: poolzoo's own reader, the reader of files from elsewhere, and a file that is run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from onnx import TensorProto, helper, numpy_helper

from fuzz import odd
from fuzz.harness import Disagreement, Target
from poolzoo.runtime import graph_input, onnx_file
from poolzoo.runtime.foreign import classifier, onnx_source

INTEGERS = (0, 1, -1, 2, 3, 7, 13, 18, 999, 2**31 - 1, 2**31, -(2**31), 2**40, 2**63 - 1, -(2**63))
NAMES = (
    "",
    "images",
    "logits",
    "weights",
    "Relu",
    "Loop",
    "If",
    "Conv",
    "Nothing",
    "ai.onnx.ml",
    "../x",
    "x" * 5000,
    "é",
)


def linear(input_shape: Sequence[int | str] = ("N", 3, 4, 4)) -> onnx.ModelProto:
    """A linear classifier of small images, with weights in each form that a file has for them."""
    weights = np.random.default_rng(0).normal(size=(48, 3)).astype(np.float32)
    listed = helper.make_tensor("bias", TensorProto.FLOAT, [3], [0.1, 0.2, 0.3])
    shape = numpy_helper.from_array(np.array([-1, 48], np.int64), "shape")
    nodes = [
        helper.make_node("Constant", [], ["one"], value=numpy_helper.from_array(np.ones(1, np.float32), "c")),
        helper.make_node("Reshape", ["images", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["scores"]),
        helper.make_node("Mul", ["scores", "one"], ["scaled"]),
        helper.make_node("Add", ["scaled", "bias"], ["logits"], name="last"),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    floats = TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("images", floats, input_shape)],
        [helper.make_tensor_value_info(name, floats, ["N", 3]) for name in ("logits", "probabilities")],
        [numpy_helper.from_array(weights, "weights"), listed, shape],
        value_info=[helper.make_tensor_value_info("flat", floats, ["N", 48])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(
        model,
        {
            "labels": '["ant", "bee", "cat"]',
            "input": '{"name": "images", "kind": "float", "height": 4, "width": 4, "layout": "NCHW"}',
        },
    )
    return model


def external() -> onnx.ModelProto:
    """The same with weights in another file."""
    model = linear()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "weights.bin"), ("offset", "0"), ("length", "576")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return model


@cache
def _parsed(content: bytes) -> onnx.ModelProto:
    return onnx.load_model_from_string(content)


def mutated_graph(rng: Random, seeds: Sequence[bytes]) -> bytes:
    """A file with other fields: names swapped, which makes circles and gaps, sizes, types, parts left out."""
    content = rng.choice(seeds)
    if rng.random() < 0.25:
        return odd.damaged(rng, content, seeds)
    proto = onnx.ModelProto()
    proto.CopyFrom(_parsed(content))
    for _ in range(rng.choice((1, 1, 2, 3))):
        _change(rng, proto)
    return proto.SerializeToString()


def _messages(message: Message) -> Iterator[Message]:
    yield message
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for one in value if field.is_repeated else [value]:
                yield from _messages(one)


def _change(rng: Random, proto: Message) -> None:
    messages = list(_messages(proto))
    message = rng.choice(messages)
    present = [field for field, _ in message.ListFields()]
    field: Any = rng.choice(present or list(message.DESCRIPTOR.fields))
    if rng.random() < 0.15:
        message.ClearField(field.name)
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        _change_messages(rng, message, field)
    else:
        _change_values(rng, message, field, messages)


def _change_messages(rng: Random, message: Any, field: Any) -> None:
    found = getattr(message, field.name)
    if not field.is_repeated:
        found.Clear()
    elif not found or rng.random() < 0.3:
        found.add()
    elif rng.random() < 0.5:
        found.add().CopyFrom(rng.choice(list(found)))
    else:
        del found[rng.randrange(len(found))]


def _change_values(rng: Random, message: Any, field: Any, messages: Sequence[Message]) -> None:
    if field.type == FieldDescriptor.TYPE_STRING:
        known = [
            str(value)
            for one in messages
            for f, value in one.ListFields()
            if f.type == field.type and not f.is_repeated
        ]
        value: Any = rng.choice((*NAMES, *known))
    elif field.type == FieldDescriptor.TYPE_BYTES:
        before = getattr(message, field.name)
        value = odd.damaged(rng, before) if isinstance(before, bytes) and rng.random() < 0.7 else rng.choice(odd.BYTES)
    elif field.type in (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE):
        value = rng.choice((0.0, -1.0, 1e30, float("nan"), float("inf")))
    elif field.type == FieldDescriptor.TYPE_ENUM:
        value = rng.choice(field.enum_type.values).number
    else:
        value = rng.choice(INTEGERS)
        if field.type in (FieldDescriptor.TYPE_INT32,):
            value = max(-(2**31), min(2**31 - 1, value))
        elif field.type == FieldDescriptor.TYPE_UINT64:
            value = abs(value)
    if not field.is_repeated:
        setattr(message, field.name, value)
        return
    found = getattr(message, field.name)
    if found and rng.random() < 0.7:
        found[rng.randrange(len(found))] = value
    else:
        found.append(value)


def targets(folder: Path) -> Iterator[Target]:
    file = folder / "net.onnx"
    (folder / "weights.bin").write_bytes(np.zeros(144, np.float32).tobytes())
    (folder.parent / "outside.bin").write_bytes(b"secret" * 100)
    seeds = [linear().SerializeToString(), linear(("N", 4, 4, 3)).SerializeToString(), external().SerializeToString()]

    def own(content: bytes) -> object:
        file.write_bytes(content)
        try:
            found = onnx_file.read(file)
        except (ValueError, IndexError):  # what it documents; those who call it say it in one line
            return None
        for name in found.weights:
            try:
                found.weight(name)
            except (ValueError, IndexError):
                return None
        _compare(content, found)
        ends = list(found.outputs)[:1]
        try:
            return [(len(found.nodes_between(None, end)), found.bottlenecks(end)) for end in ends], found.with_outputs(
                ["x"]
            )
        except (ValueError, IndexError):
            return None

    def given(content: bytes) -> object:
        file.write_bytes(content)
        return graph_input.read_input(file)

    def source(content: bytes) -> object:
        file.write_bytes(content)
        found = onnx_source.read(file)
        if b"secret" in found.SerializeToString():
            raise Disagreement("a file outside of the folder is read")
        return onnx_source.opset_of(found)

    def whole(content: bytes) -> object:
        file.write_bytes(content)
        found = classifier.inspect(file)
        return found.given.describe(), [one.describe() for one in found.outputs], found.precision

    yield Target("onnx", seeds, mutated_graph, own)
    yield Target("onnx-input", seeds, mutated_graph, given)
    yield Target("onnx-source", seeds, mutated_graph, source)
    yield Target("onnx-run", seeds, mutated_graph, whole, 0.1)


def _compare(content: bytes, found: onnx_file.Graph) -> None:
    """Holds what was read against the onnx package, where it reads the file."""
    try:
        other = onnx.load_model_from_string(content)
    except Exception:  # protobuf's exceptions share no public base class
        return
    if other.SerializeToString() != content:
        return  # fields that come twice, or unknown ones: protobuf merges them
    if [node.op_type for node in other.graph.node] != [node.type for node in found.nodes]:
        raise Disagreement("the onnx package reads other nodes")
    if {one.key: one.value for one in other.metadata_props} != found.metadata:
        raise Disagreement("the onnx package reads other metadata")
