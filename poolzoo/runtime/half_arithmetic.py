"""A graph run in the arithmetic that it states, node by node: float16 values are rounded, and overflow, in float16.

ONNX Runtime's CPU provider has few kernels for float16: it computes most of such a graph in float32, where nothing
overflows that a GPU, a phone or another runtime would lose. Here a node with float16 inputs is computed by numpy as the
ONNX reference does, sums included. Convolutions and the like, which are slow there, and whose hardware sums in float32,
are computed by ONNX Runtime in float32 and rounded. Nodes without float16 are left to ONNX Runtime as they are.

Needs onnx and no torch.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
from onnx.reference import ReferenceEvaluator

from poolzoo.runtime.ort_session import FATAL

# What takes the reference a loop in Python for each element, or sums products, which hardware sums in float32.
BY_RUNTIME: Final = {
    *("Conv", "ConvTranspose", "DeformConv", "Gemm", "MatMul", "Einsum", "Erf", "Gelu", "GatherND", "GridSample"),
    *("MaxPool", "AveragePool", "LpPool", "LRN", "Resize", "ScatterElements", "ScatterND", "GlobalMaxPool"),
}
IMAGES: Final = 8  # that a graph is judged on in half arithmetic, so that it takes seconds
RELATIVE: Final = 1 / 16  # of the largest logit: what rounding may cost; faults cost as much as the logit itself
HALF: Final = np.dtype(np.float16)

Run = Callable[[list[np.ndarray]], list[np.ndarray]]
Node = onnx.NodeProto


class HalfGraph:
    """A graph to be run so. Its nodes hold no graphs of their own."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        """Takes a graph that may hold float16 and float32."""
        self._proto = proto
        self._constants = {one.name: onnx.numpy_helper.to_array(one) for one in proto.graph.initializer}
        self._last = {name: at for at, node in enumerate(proto.graph.node) for name in node.input}
        self._runs: dict[int, Run] = {}

    def run(self, inputs: np.ndarray) -> dict[str, np.ndarray]:
        """The graph's outputs, by name, for images as it takes them."""
        outputs = [value.name for value in self._proto.graph.output]
        found = {name: value for _, values in self.values(inputs) for name, value in values.items() if name in outputs}
        return {name: found[name] for name in outputs}

    def values(self, inputs: np.ndarray) -> Iterator[tuple[Node, dict[str, np.ndarray]]]:
        """Each node with what it gives, in order; what no later node reads is forgotten.

        Raises:
            Exception: Whatever onnx or ONNX Runtime raise for a node that they cannot run.
        """
        known = {self._proto.graph.input[0].name: inputs}
        for at, node in enumerate(self._proto.graph.node):
            names = [name for name in node.input if name]
            given = [known[name] if name in known else self._constants[name] for name in names]
            if at not in self._runs:
                self._runs[at] = _runner(node, given, self._proto)
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                made = self._runs[at](given)
            values = dict(zip((name for name in node.output if name), made, strict=False))
            yield node, values
            known.update(values)
            for name in {*names, *values}:
                if self._last.get(name, -1) <= at:
                    known.pop(name, None)


def chosen(count: int) -> np.ndarray:
    """Which of some images a graph is judged on in half arithmetic: `IMAGES` of them, spread evenly."""
    return np.unique(np.linspace(0, count - 1, min(count, IMAGES)).round().astype(int))


def logits(proto: onnx.ModelProto, inputs: np.ndarray) -> np.ndarray:
    """The graph's logits in its own arithmetic, `float32[N, classes]`, one image at a time."""
    graph = HalfGraph(proto)
    return np.concatenate([graph.run(inputs[i : i + 1])["logits"].astype(np.float32) for i in range(len(inputs))])


def judge(found: np.ndarray, expected: np.ndarray, real: np.ndarray, agreement: float) -> dict[str, Any]:
    """Whether logits in half arithmetic are those of the network, but for rounding.

    Args:
        found: `float[N, classes]`.
        expected: The network's, likewise.
        real: Which of the images are photographs, whose first choice counts, `bool[N]`.
        agreement: On which share of those the first choice must agree; one of so few images may always differ.
    """
    finite = bool(np.isfinite(found).all())
    flips = (found.argmax(1) != expected.argmax(1)) & real
    reach, off = float(np.abs(expected).max()), float(np.nan_to_num(np.abs(found - expected), nan=np.inf).max())
    most = max(1, int((1 - agreement) * real.sum()))
    return {
        "passed": finite and off <= RELATIVE * reach and int(flips.sum()) <= most,
        "finite": finite,
        "images": len(found),
        "max_abs": off if finite else None,
        "allowed": RELATIVE * reach,
        "flips": int(flips.sum()),
    }


def explain(judged: dict[str, Any]) -> str:
    """What half arithmetic gives, in words."""
    where = f"in half arithmetic, on {judged['images']} images,"
    if not judged["finite"]:
        return f"{where} it gives NaN or infinity"
    flips = f" and {judged['flips']} first choices differ" if judged["flips"] else ""
    return f"{where} logits differ by {judged['max_abs']:.2e} of {judged['allowed']:.2e} allowed{flips}"


def _runner(node: Node, given: list[np.ndarray], proto: onnx.ModelProto) -> Run:
    """How to run one node on arrays of these types."""
    halves = any(array.dtype == HALF for array in given)
    if (halves and node.op_type not in BY_RUNTIME) or node.op_type == "Cast":
        single = _alone(node, [array.dtype for array in given], proto)
        evaluator = ReferenceEvaluator(single)
        names = [value.name for value in single.graph.input]
        return lambda arrays: [np.asarray(one) for one in _run(evaluator, names, arrays)]
    single = _alone(node, [_widened(array).dtype for array in given], proto)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = FATAL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(single.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in single.graph.input]

    def run(arrays: list[np.ndarray]) -> list[np.ndarray]:
        made = _run(session, names, [_widened(array) for array in arrays])
        return [one.astype(HALF) if halves and one.dtype == np.float32 else one for one in made]

    return run


def _run(engine: Any, names: list[str], arrays: list[np.ndarray]) -> list[Any]:
    return list(engine.run(None, dict(zip(names, arrays, strict=False))))


def _widened(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype == HALF else array


def _alone(node: Node, dtypes: list[np.dtype[Any]], proto: onnx.ModelProto) -> onnx.ModelProto:
    """A graph of one node, each of whose inputs has a name of its own."""
    alone = Node()
    alone.CopyFrom(node)
    names = iter([f"input_{index}" for index in range(len(dtypes))])
    alone.input[:] = [next(names) if name else "" for name in node.input]
    kinds = [onnx.helper.np_dtype_to_tensor_dtype(dtype) for dtype in dtypes]
    inputs = [onnx.helper.make_tensor_value_info(f"input_{i}", kind, None) for i, kind in enumerate(kinds)]
    outputs = [onnx.helper.make_empty_tensor_value_info(name) for name in node.output if name]
    graph = onnx.helper.make_graph([alone], "node", inputs, outputs)
    return onnx.helper.make_model(graph, opset_imports=proto.opset_import, ir_version=proto.ir_version)
