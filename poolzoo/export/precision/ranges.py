"""Measures the range of every value inside a graph on images, in memory independent of their number."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

import numpy as np
import onnx
import onnxruntime

from poolzoo.common import output
from poolzoo.runtime.ort_session import LOG_FATAL, is_out_of_memory

BATCH: Final = 32  # images at once, or fewer …
MAX_BYTES: Final = 64 << 20  # … so that the values in memory at a time take about as much
IN_MEMORY: Final = 4  # values as large as the largest one, at a time
FLOATS: Final = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)


class Images(Protocol):
    """Images as the input of a graph, of which slices and rows are read: an array, or `GraphInputs`."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice | np.ndarray, /) -> np.ndarray: ...


@dataclass(frozen=True)
class GraphInputs:
    """Stored images that become the input of a graph where they are read, so that memory holds one batch of floats.

    Attributes:
        images: `uint8[N, H, W, 3]`.
        to_input: Turns a batch of them into the input.
    """

    images: np.ndarray
    to_input: Callable[[np.ndarray], np.ndarray]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: slice | np.ndarray, /) -> np.ndarray:
        return self.to_input(self.images[rows])


class Range(NamedTuple):
    """The smallest and the largest element of a value; NaN is ignored."""

    low: np.float32
    high: np.float32

    @property
    def largest(self) -> float:
        """The largest magnitude."""
        return float(np.maximum(np.abs(self.low), np.abs(self.high)))


def measure(proto: onnx.ModelProto, inputs: Images) -> dict[str, Range]:
    """Runs a graph without ONNX Runtime's optimizations and returns the range of each float value, by name.

    Minimum and maximum are computed inside the graph. ONNX Runtime's own calibration computes them at the end of each
    batch, with every value in memory. Here they are computed right after each value.

    Args:
        proto: The graph, whose only input is `images`; it is not changed.
        inputs: Images as the graph's input.

    Raises:
        MemoryError: Memory does not suffice for a single image.
    """
    known = onnx.shape_inference.infer_shapes(proto)
    floats = _floats(known)
    session = _session(_with_ranges(known, floats))
    found: dict[str, Range] = {}
    size, start = _batch(floats.values()), 0
    with output.progress("ranges of all values", len(inputs)) as bar:
        while start < len(inputs):
            try:
                got = session.run(None, {"images": inputs[start : start + size]})
            except Exception as error:  # ONNX Runtime's exceptions share no public base class
                if not is_out_of_memory(error):
                    raise
                if size == 1:
                    raise MemoryError(
                        "the values inside the graph do not fit into memory for a single image"
                    ) from error
                size //= 2
                continue
            _widen(found, floats, got)
            start += size
            bar.update(min(start, len(inputs)))
    return found


def batches(proto: onnx.ModelProto, inputs: Images, count: int) -> list[np.ndarray]:
    """The first `count` images in batches that fit into memory as those of `measure` do."""
    size = _batch(_floats(onnx.shape_inference.infer_shapes(proto)).values())
    count = min(count, len(inputs))
    return [inputs[start : min(start + size, count)] for start in range(0, count, size)]


def largest(found: Mapping[str, Range]) -> tuple[str, float]:
    """The name and the magnitude of the value with the largest finite one; a mask may hold infinity."""
    finite = {name: of.largest for name, of in found.items() if np.isfinite(of.largest)}
    name = max(finite, key=finite.__getitem__)
    return name, finite[name]


def _with_ranges(known: onnx.ModelProto, names: Iterable[str]) -> bytes:
    """The graph with the ranges as its outputs, each computed right after its value: nodes run in order."""
    after: dict[str, list[onnx.NodeProto]] = {}
    outputs = []
    for index, name in enumerate(names):
        for kind in ("ReduceMin", "ReduceMax"):
            result = f"{kind}_{index}"
            after.setdefault(name, []).append(onnx.helper.make_node(kind, [name], [result], name=result, keepdims=0))
            outputs.append(onnx.helper.make_empty_tensor_value_info(result))
    nodes = [node for value in known.graph.input for node in after.get(value.name, [])]
    for node in known.graph.node:
        nodes.append(node)
        nodes += [one for name in node.output for one in after.get(name, [])]
    graph = onnx.helper.make_graph(nodes, "ranges", known.graph.input, outputs, known.graph.initializer)
    copy = onnx.helper.make_model(graph, opset_imports=known.opset_import, ir_version=known.ir_version)
    return bytes(copy.SerializeToString())


def _session(content: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED  # a value's range before the next node
    options.log_severity_level = LOG_FATAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _floats(known: onnx.ModelProto) -> dict[str, onnx.ValueInfoProto]:
    """The float values of a graph with shapes, without its weights."""
    weights = {tensor.name for tensor in known.graph.initializer}
    values = {v.name: v for v in (*known.graph.input, *known.graph.value_info, *known.graph.output)}
    return {
        name: value
        for name, value in values.items()
        if value.type.tensor_type.elem_type in FLOATS and name not in weights
    }


def _batch(values: Iterable[onnx.ValueInfoProto]) -> int:
    largest: int = max(
        math.prod(dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim) * np.dtype(np.float32).itemsize
        for value in values
    )
    return max(1, min(BATCH, MAX_BYTES // (IN_MEMORY * largest)))


def _widen(found: dict[str, Range], names: Iterable[str], got: list[np.ndarray]) -> None:
    for index, name in enumerate(names):
        low, high = (np.float32(one) for one in got[2 * index : 2 * index + 2])
        before = found.get(name, Range(low, high))
        found[name] = Range(np.fmin(before.low, low), np.fmax(before.high, high))
