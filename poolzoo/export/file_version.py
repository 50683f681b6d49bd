"""The versions that an ONNX file requires: the lowest that its content needs, so that older runtimes open it too.

A runtime refuses a file whose IR version or opset is newer than itself, whatever the file holds. Tools write the newest
version that they know.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import onnx
import onnxruntime

# The IR version that introduced an element type, from the comments on `Version` in onnx.proto; others are older than 3.
TYPES: Final = {
    "BFLOAT16": 4,
    **dict.fromkeys(("FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ"), 9),
    **dict.fromkeys(("UINT4", "INT4"), 10),
    "FLOAT4E2M1": 11,
    "FLOAT8E8M0": 12,
    **dict.fromkeys(("UINT2", "INT2"), 13),
    **dict.fromkeys(("FLOAT6E2M3", "FLOAT6E3M2"), 14),
}
INITIALIZERS: Final = 4  # the IR version from which on a weight need not be an input too
METADATA: Final = 10  # the IR version of `metadata_props` on nodes, values and the graph
FUNCTIONS: Final = 8  # the IR version of functions in a file
# The release of ONNX Runtime that first read an opset, and an IR version; from its compatibility table.
OPSETS: Final = {18: "1.14", 19: "1.15", 20: "1.17", 21: "1.18", 22: "1.21"}
IR_VERSIONS: Final = {8: "1.11", 9: "1.15", 10: "1.18"}
FLOAT16: Final = "1.20"  # 1.17.3 and 1.18.1 read float16 and give wrong numbers in batches; 1.20.1 is right


def minimize_versions(proto: onnx.ModelProto) -> None:
    """Removes opset imports that no node uses, and sets the lowest IR version that supports the rest."""
    used = {_domain(node.domain) for node in _nodes(proto)} | {""}
    kept: dict[str, onnx.OperatorSetIdProto] = {}
    for entry in proto.opset_import:
        if _domain(entry.domain) in used:
            kept.setdefault(_domain(entry.domain), entry)
    entries = [onnx.helper.make_opsetid(domain, entry.version) for domain, entry in kept.items()]
    del proto.opset_import[:]
    proto.opset_import.extend(entries)
    proto.ir_version = max(
        onnx.helper.find_min_ir_version_for(entries, ignore_unknown=True),
        INITIALIZERS,
        FUNCTIONS if proto.functions else 0,
        METADATA if _has_metadata(proto) else 0,
        *(TYPES.get(onnx.TensorProto.DataType.Name(kind), 0) for kind in _types(proto)),
    )


def min_onnxruntime(proto: onnx.ModelProto) -> str:
    """The oldest release of ONNX Runtime that reads a file, such as "1.14".

    Where the file is newer than the known releases, that is the installed one.
    """
    opset = max(entry.version for entry in proto.opset_import if _domain(entry.domain) == "")
    here = ".".join(onnxruntime.__version__.split(".")[:2])
    needed = [OPSETS.get(max(opset, min(OPSETS)), here), IR_VERSIONS.get(max(proto.ir_version, min(IR_VERSIONS)), here)]
    if onnx.TensorProto.FLOAT16 in _types(proto):
        needed.append(FLOAT16)
    return max(needed, key=lambda release: [int(part) for part in release.split(".")])


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and its subgraphs."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _graphs(inner)


def _nodes(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    for graph in _graphs(proto.graph):
        yield from graph.node
    for function in proto.functions:
        yield from function.node


def _types(proto: onnx.ModelProto) -> set[int]:
    """The element types of all weights and of all values with a type."""
    found: set[int] = set()
    for graph in _graphs(proto.graph):
        found.update(tensor.data_type for tensor in graph.initializer)
        found.update(v.type.tensor_type.elem_type for v in (*graph.input, *graph.output, *graph.value_info))
    for node in _nodes(proto):
        for attribute in node.attribute:
            found.update(tensor.data_type for tensor in (attribute.t, *attribute.tensors))
            if attribute.name in ("to", "dtype", "output_dtype"):
                found.add(attribute.i)
    return found


def _has_metadata(proto: onnx.ModelProto) -> bool:
    graph = proto.graph
    parts = (graph, *_nodes(proto), *graph.input, *graph.output, *graph.value_info, *graph.initializer)
    return any(part.metadata_props for part in parts) or any(node.overload for node in _nodes(proto))
