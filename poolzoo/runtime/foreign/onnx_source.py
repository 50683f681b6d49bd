"""Reads an ONNX file of unknown origin: one protobuf message, and external data from its own folder alone.

A tensor in a file may lie in another file, at a path that the ONNX file states. That path is data from a stranger. It
must stay in the folder of the ONNX file, links included, and name a plain file that is large enough. Needs onnx.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import onnx
from onnx import AttributeProto, TensorProto

from poolzoo.common import files
from poolzoo.common.errors import CheckFailed, EnvironmentProblem, UsageError, reason
from poolzoo.common.resources import size
from poolzoo.common.text import printable

MAX_BYTES: Final = (1 << 31) - (1 << 20)  # of a graph with its weights: protobuf takes no message above 2 GB
MIN_IR: Final = 4  # from which weights need not be inputs too
HINT: Final = "export it again, or copy it again with the files that belong to it"


def read(path: Path) -> onnx.ModelProto:
    """The content of a file with its weights; those are no inputs of the graph.

    Raises:
        UsageError: There is no such file.
        CheckFailed: It is no ONNX file, is damaged, or lacks external data.
        EnvironmentProblem: The installed onnx package is older than its opset.
    """
    if not path.is_file():
        raise UsageError(f"{path} {files.absence(path)}", "give an ONNX file, or the directory of a bundle")
    if path.stat().st_size > MAX_BYTES:
        raise CheckFailed(
            f"{path} has {size(path.stat().st_size)}, and 2 GB is the most", "keep its weights in float16"
        )
    try:
        proto = onnx.load_model_from_string(path.read_bytes())
    except MemoryError:
        raise
    except Exception as error:  # protobuf's exceptions share no public base class
        raise CheckFailed(f"{path} is no ONNX file, or is damaged: {reason(error, 100)}", HINT) from error
    if not proto.ir_version or not proto.graph.node:  # other bytes may happen to be a message
        raise CheckFailed(f"{path} is no ONNX file, or is damaged: it holds no graph", HINT)
    proto.ClearField("training_info")  # graphs that inference does not need
    _require_opset(path, proto)
    _load_external_data(path, proto)
    weights = {one.name for one in proto.graph.initializer}
    for value in [one for one in proto.graph.input if one.name in weights]:
        proto.graph.input.remove(value)
    proto.ir_version = max(proto.ir_version, MIN_IR)
    return proto


def opset_of(proto: onnx.ModelProto) -> int:
    """The opset of the standard's operators; 0 where a graph uses none of these."""
    return max((one.version for one in proto.opset_import if one.domain in ("", "ai.onnx")), default=0)


def _require_opset(path: Path, proto: onnx.ModelProto) -> None:
    known, needed = onnx.defs.onnx_opset_version(), opset_of(proto)
    if not needed:
        raise CheckFailed(f"{path} states no opset of ONNX", HINT)
    if needed > known:
        text = f"{path} has opset {needed}, and onnx {onnx.__version__} knows those up to {known}"
        raise EnvironmentProblem(text, "pip install --upgrade onnx onnxruntime, or export it with a lower opset")


def _load_external_data(path: Path, proto: onnx.ModelProto) -> None:
    """Reads what lies in other files into the graph.

    Raises:
        CheckFailed: A file is missing or too short, or lies outside of the folder.
    """
    total = proto.ByteSize()
    for tensor in tensors(proto):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        entries = {one.key: one.value for one in tensor.external_data}
        file = _inside(path, entries.get("location", ""))
        start, count = _part(path, file, entries)
        total += count
        if total > MAX_BYTES:
            raise CheckFailed(f"{path} has more than 2 GB of weights", "keep its weights in float16")
        with file.open("rb") as opened:
            opened.seek(start)
            tensor.raw_data = opened.read(count)
        tensor.ClearField("external_data")
        tensor.data_location = TensorProto.DEFAULT


def _inside(path: Path, location: str) -> Path:
    """The file of a location, which must lie in the folder of the ONNX file, wherever links lead."""
    shown = printable(location)
    folder = Path(os.path.realpath(path.parent))
    if not location or "\0" in location or os.path.isabs(location) or Path(location).drive:
        raise CheckFailed(f"{path} names {shown!r} as external data, which is no path in its folder", HINT)
    file = Path(os.path.realpath(folder / location))
    if not file.is_relative_to(folder):
        raise CheckFailed(f"{path} names {shown!r} as external data, which leads out of its folder", HINT)
    if not file.is_file():
        raise CheckFailed(f"{path} lacks its external data: there is no file {shown!r} beside it", HINT)
    return file


def _part(path: Path, file: Path, entries: dict[str, str]) -> tuple[int, int]:
    """Where a tensor begins in its file, and of how many bytes it is."""
    there = file.stat().st_size
    try:
        start = int(entries.get("offset", "0"))
        count = int(entries["length"]) if "length" in entries else there - start
    except ValueError:
        start = count = -1
    if start < 0 or count < 0 or start + count > there:
        raise CheckFailed(f"{path}: its external data {file.name} is too short, or the file is damaged", HINT)
    return start, count


def tensors(proto: onnx.ModelProto) -> Iterator[TensorProto]:
    """Every tensor of a file: weights, and those in attributes, subgraphs and functions."""
    yield from _of_graph(proto.graph)
    for function in proto.functions:
        yield from _of_nodes(function.node)


def _of_graph(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: Any) -> Iterator[TensorProto]:
    for node in nodes:
        for one in node.attribute:
            if one.type == AttributeProto.TENSOR:
                yield one.t
            yield from one.tensors
            sparse = [one.sparse_tensor] if one.type == AttributeProto.SPARSE_TENSOR else []
            for part in (*sparse, *one.sparse_tensors):
                yield from (part.values, part.indices)
            for graph in subgraphs(one):
                yield from _of_graph(graph)


def subgraphs(one: AttributeProto) -> Iterator[onnx.GraphProto]:
    """The graphs in an attribute."""
    if one.type == AttributeProto.GRAPH:
        yield one.g
    yield from one.graphs
