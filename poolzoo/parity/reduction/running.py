"""Runs a graph: in ONNX Runtime with and without optimizations, and in onnx's reference evaluator in float64."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from poolzoo.parity.layers import with_outputs
from poolzoo.runtime.ort_session import LOG_FATAL, PROVIDERS

FLOATS: Final = ("float16", "float", "double")
INTEGERS: Final = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
NUMPY_TYPES: Final = frozenset(f"tensor({name})" for name in (*FLOATS, *INTEGERS, "bool", "string"))
Arrays = Mapping[str, np.ndarray]
Runner = Callable[[onnx.ModelProto, Arrays], Sequence[np.ndarray]]
"""Runs a graph on inputs by name, and returns its outputs in the graph's order."""


def session(
    proto: onnx.ModelProto, *, optimized: bool, without: Sequence[str] = (), provider: str = PROVIDERS["cpu"]
) -> onnxruntime.InferenceSession:
    """Opens a graph on one thread.

    Args:
        proto: The graph.
        optimized: Whether ONNX Runtime optimizes it.
        without: Names of optimizers to leave out.
        provider: ONNX Runtime's name of the execution provider.
    """
    options = onnxruntime.SessionOptions()
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimized else levels.ORT_DISABLE_ALL
    options.log_severity_level = LOG_FATAL
    options.intra_op_num_threads = 1
    content = proto.SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=[provider], disabled_optimizers=list(without))


def optimized(proto: onnx.ModelProto, inputs: Arrays) -> Sequence[np.ndarray]:
    """ONNX Runtime on the CPU with all optimizations."""
    return _outputs(session(proto, optimized=True), inputs)


def unoptimized(proto: onnx.ModelProto, inputs: Arrays) -> Sequence[np.ndarray]:
    """ONNX Runtime on the CPU with none."""
    return _outputs(session(proto, optimized=False), inputs)


def reference(proto: onnx.ModelProto, inputs: Arrays) -> Sequence[np.ndarray]:
    """onnx's reference evaluator, in numpy and float64.

    Raises:
        Exception: Whatever it raises at an operator that it does not have.
    """
    double = in_float64(proto)
    given = {name: one.astype(np.float64) if one.dtype == np.float32 else one for name, one in inputs.items()}
    wanted = {value.name for value in double.graph.input}
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about windows without values
        found = ReferenceEvaluator(double).run(None, {name: one for name, one in given.items() if name in wanted})
    return [np.asarray(one) for one in found]


def evaluator(proto: onnx.ModelProto, inputs: Arrays) -> Sequence[np.ndarray]:
    """onnx's reference evaluator, in the graph's own types.

    Raises:
        Exception: Whatever it raises at an operator that it does not have.
    """
    wanted = {value.name for value in proto.graph.input}
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about overflow
        found = ReferenceEvaluator(proto).run(None, {name: one for name, one in inputs.items() if name in wanted})
    return [np.asarray(one) for one in found]


def attempt(run: Runner, proto: onnx.ModelProto, inputs: Arrays) -> np.ndarray | None:
    """The first output of a graph; None where it cannot be run."""
    try:
        return np.asarray(run(proto, inputs)[0])
    except Exception:  # runtimes' exceptions share no base class, and a changed graph may be invalid in any way
        return None


def values(proto: onnx.ModelProto, inputs: Arrays, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Values inside a graph by name, in ONNX Runtime without optimizations: each node by itself.

    Those that numpy has no type for, such as bfloat16 and sequences, are left out.
    """
    opened = session(with_outputs(proto, names), optimized=False)
    known = [one.name for one in opened.get_outputs() if one.type in NUMPY_TYPES]
    return dict(zip(known, _outputs(opened, inputs, known), strict=True))


def _outputs(
    opened: onnxruntime.InferenceSession, inputs: Arrays, names: Sequence[str] | None = None
) -> Sequence[np.ndarray]:
    if names is not None and not names:  # ONNX Runtime would compute all
        return []
    wanted = {one.name for one in opened.get_inputs()}
    found = opened.run(names, {name: one for name, one in inputs.items() if name in wanted})
    return [np.asarray(one) for one in found]


FLOAT_NAMES: Final = ("to", "dtype")


def in_float64(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with float64 in place of float32."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for tensor in copy.graph.initializer:
        _widen(tensor)
    for value in (*copy.graph.input, *copy.graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    del copy.graph.value_info[:]
    for node in copy.graph.node:
        for attribute in node.attribute:
            if attribute.name in FLOAT_NAMES and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.DOUBLE
            if attribute.HasField("t"):
                _widen(attribute.t)
    return copy


def _widen(tensor: TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT:
        wide: Any = numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
