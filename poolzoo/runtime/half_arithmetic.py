"""A graph computed in its own types, node by node: float16 values are rounded to float16 and overflow there.

ONNX Runtime's CPU provider has few float16 kernels. It computes most of such a graph in float32, where nothing
overflows that would on a GPU or a phone. Here the ONNX reference evaluator computes nodes with float16 inputs, sums
included. Means, norms and poolings have kernels of their own (`half_kernels.py`), since numpy takes the mean of float16
in float32. Convolutions and the like are slow there, and hardware sums them in float32: ONNX Runtime computes these in
float32, and the result is rounded. ONNX Runtime computes nodes without float16 as they are.

Needs onnx and no torch.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
from onnx.reference import ReferenceEvaluator

from poolzoo.artifacts import schema
from poolzoo.common.errors import CheckFailed, reason
from poolzoo.metrics.decisions import ONE_LABEL, Decision
from poolzoo.runtime import half_kernels, tolerance
from poolzoo.runtime.ort_session import LOG_FATAL

# Operators that loop over elements in Python in the reference, or sum products, which hardware sums in float32.
RUN_BY_ORT: Final = frozenset(
    [
        "Conv",
        "ConvTranspose",
        "DeformConv",
        "Gemm",
        "MatMul",
        "Einsum",
        "Erf",
        "Gelu",
        "GatherND",
        "GridSample",
        "MaxPool",
        "LRN",
        "Resize",
        "ScatterElements",
        "ScatterND",
        "GlobalMaxPool",
    ]
)
MAX_IMAGES: Final = 8  # so that a check takes seconds
RELATIVE: Final = 1 / 16  # of the largest logit: the tolerance of rounding; faults cost as much as the logit itself
HALF: Final = np.dtype(np.float16)

Run = Callable[[list[np.ndarray]], list[np.ndarray]]
Rounding = Callable[[np.ndarray], np.ndarray]
Node = onnx.NodeProto


class HalfGraph:
    """Runs a graph of float16 and float32 values in these types. Nodes with subgraphs are not supported."""

    def __init__(self, proto: onnx.ModelProto, rounding: Rounding | None = None) -> None:
        """Takes a graph.

        Args:
            proto: The graph.
            rounding: What every float32 value becomes, weights and inputs included; None to leave them.
        """
        self._proto = proto
        self._round = rounding or _unchanged
        weights = {one.name: onnx.numpy_helper.to_array(one) for one in proto.graph.initializer}
        self._constants = {name: self._rounded(value) for name, value in weights.items()}
        self._last = {name: at for at, node in enumerate(proto.graph.node) for name in node.input}
        self._runs: dict[int, Run] = {}

    def run(self, inputs: np.ndarray | Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The graph's outputs, by name, for its first input, or for several by name."""
        outputs = [value.name for value in self._proto.graph.output]
        found = {name: value for _, values in self.values(inputs) for name, value in values.items() if name in outputs}
        return {name: found[name] for name in outputs}

    def values(self, inputs: np.ndarray | Mapping[str, np.ndarray]) -> Iterator[tuple[Node, dict[str, np.ndarray]]]:
        """Yields each node with its outputs, in order. Values that no later node reads are freed.

        Raises:
            Exception: Whatever onnx or ONNX Runtime raise for a node that they cannot run.
        """
        given_by_name = inputs if isinstance(inputs, Mapping) else {self._proto.graph.input[0].name: inputs}
        known = {name: self._rounded(value) for name, value in given_by_name.items()}
        for at, node in enumerate(self._proto.graph.node):
            names = [name for name in node.input if name]
            given = [known[name] if name in known else self._constants[name] for name in names]
            if at not in self._runs:
                self._runs[at] = _runner(node, given, self._proto)
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                made = [self._rounded(one) for one in self._runs[at](given)]
            values = dict(zip((name for name in node.output if name), made, strict=False))
            yield node, values
            known.update(values)
            for name in {*names, *values}:
                if self._last.get(name, -1) <= at:
                    known.pop(name, None)

    def _rounded(self, value: np.ndarray) -> np.ndarray:
        return self._round(value) if value.dtype == np.float32 else value


def _unchanged(value: np.ndarray) -> np.ndarray:
    return value


def to_float16(value: np.ndarray) -> np.ndarray:
    """float32 as float16, infinite beyond 65,504."""
    with np.errstate(over="ignore"):
        return value.astype(HALF)


def to_bfloat16(value: np.ndarray) -> np.ndarray:
    """float32 rounded to the eight bits of bfloat16, ties to even; it stays float32, whose range is the same."""
    bits = np.ascontiguousarray(value).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
    return np.where(np.isfinite(value), rounded.view(np.float32), value).astype(np.float32)


ARITHMETICS: Final[dict[str, Rounding]] = {"fp16": to_float16, "bf16": to_bfloat16}


def sample_rows(count: int) -> np.ndarray:
    """Indices of at most `MAX_IMAGES` of `count` images, evenly spaced, on which a graph is checked."""
    return np.unique(np.linspace(0, count - 1, min(count, MAX_IMAGES)).round().astype(int))


def logits(proto: onnx.ModelProto, inputs: np.ndarray, rounding: Rounding | None = None) -> np.ndarray:
    """The graph's logits in its own arithmetic, or with every value rounded, `float32[N, classes]`, image by image."""
    graph = HalfGraph(proto, rounding)
    return np.concatenate([graph.run(inputs[i : i + 1])["logits"].astype(np.float32) for i in range(len(inputs))])


def first_overflow(proto: onnx.ModelProto, inputs: np.ndarray, rounding: Rounding) -> str:
    """The first node whose output is finite in the graph's arithmetic and not in another, on one image; "" for none."""
    plain, rounded = (HalfGraph(proto, how).values(inputs[:1]) for how in (None, rounding))
    for (node, right), (_, found) in zip(plain, rounded, strict=True):
        for name, value in found.items():
            if value.dtype.kind == "f" and np.isfinite(right[name]).all() and not np.isfinite(value).all():
                return f"{node.op_type} {node.name or name}"
    return ""


@dataclass(frozen=True, kw_only=True)
class HalfCheck:
    """Logits in float16 arithmetic, or in bfloat16's, against the network's.

    Attributes:
        passed: Whether the differences are within the tolerance.
        finite: Whether there is no NaN or infinity.
        images: How many images were compared.
        max_abs: The largest difference of a logit; None where one is not finite.
        allowed: The tolerance.
        flips: On how many images the predicted class differs.
        arithmetic: "fp16" or "bf16".
        overflow: The node that overflows first; "" where that was not looked for, or none does.
    """

    passed: bool
    finite: bool
    images: int
    max_abs: float | None
    allowed: float
    flips: int
    arithmetic: str = "fp16"
    overflow: str = ""

    def to_json(self) -> schema.HalfArithmetic:
        """`half` in `parity.json`."""
        return {
            "passed": self.passed,
            "finite": self.finite,
            "images": self.images,
            "max_abs": self.max_abs,
            "allowed": self.allowed,
            "flips": self.flips,
        }

    def describe(self) -> str:
        """The result in words."""
        name = "half" if self.arithmetic == "fp16" else "bfloat16"
        where = f"in {name} arithmetic, on {self.images} images,"
        if self.max_abs is None:
            first = f", {self.overflow} first" if self.overflow else ""
            return f"{where} it gives NaN or infinity{first}"
        flips = f" and {self.flips} predictions differ" if self.flips else ""
        return f"{where} logits differ by {self.max_abs:.2e} of {self.allowed:.2e} allowed{flips}"


def check_logits(
    found: np.ndarray,
    expected: np.ndarray,
    regular: np.ndarray,
    agreement: float,
    decision: Decision = ONE_LABEL,
) -> HalfCheck:
    """Checks that logits in float16 arithmetic are those of the network, but for rounding.

    Args:
        found: `float[N, classes]`.
        expected: The network's, `float[N, classes]`.
        regular: Which images are no synthetic edge cases, `bool[N]`; the predicted class counts on these alone.
        agreement: The fraction of these on which the predicted class must agree; on one image it may always differ.
        decision: How logits become labels. Of several labels, the Jaccard index of the sets counts.
    """
    finite = bool(np.isfinite(found).all())
    lost = (1 - decision.agreement(found, expected))[regular]
    allowed = RELATIVE * float(np.abs(expected).max())
    difference = float(tolerance.distances(found, expected).max())
    return HalfCheck(
        passed=finite and difference <= allowed and float(lost.sum()) <= max(1.0, (1 - agreement) * len(lost)),
        finite=finite,
        images=len(found),
        max_abs=difference if finite else None,
        allowed=allowed,
        flips=int((lost > 0).sum()),
    )


def check_rounded(
    proto: onnx.ModelProto,
    inputs: np.ndarray,
    arithmetic: str,
    expected: np.ndarray,
    regular: np.ndarray,
    agreement: float,
    decision: Decision = ONE_LABEL,
) -> HalfCheck:
    """Checks what a float32 graph would give in a runtime that computes in float16 or bfloat16.

    Every value is rounded to that type. Sums inside convolutions and products are those of float32, as in hardware; in
    float16, other sums overflow as the values do.

    Args:
        proto: The graph.
        inputs: Images as its input.
        arithmetic: A key of `ARITHMETICS`.
        expected, regular, agreement, decision: As in `check_logits`.

    Raises:
        CheckFailed: The graph cannot be run node by node.
    """
    rounding = ARITHMETICS[arithmetic]
    try:
        found = logits(proto, inputs, rounding)
        result = check_logits(found, expected, regular, agreement, decision)
        broken = np.flatnonzero(~np.isfinite(found).all(1))
        overflow = first_overflow(proto, inputs[broken[:1]], rounding) if len(broken) else ""
    except Exception as error:  # whatever onnx and ONNX Runtime raise for an operator that they do not have
        text = f"the graph cannot be run in {arithmetic} arithmetic: {reason(error, 200)}"
        raise CheckFailed(text, "leave --arithmetic out") from error
    return replace(result, arithmetic=arithmetic, overflow=overflow)


def _runner(node: Node, given: list[np.ndarray], proto: onnx.ModelProto) -> Run:
    """A function that runs one node on arrays of the types of `given`."""
    halves = any(array.dtype == HALF for array in given)
    opset = max(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
    kernel = half_kernels.find(node, opset) if halves else None
    if kernel is not None:
        return lambda arrays: [kernel(node, arrays, _by_ort(proto))]
    if (halves and node.op_type not in RUN_BY_ORT) or node.op_type == "Cast":
        single = _single_node(node, [array.dtype for array in given], proto)
        evaluator = ReferenceEvaluator(single)
        names = [value.name for value in single.graph.input]
        return lambda arrays: [np.asarray(one) for one in _run(evaluator, names, arrays)]
    return _run_by_ort(node, given, proto, rounded=halves)


def _by_ort(proto: onnx.ModelProto) -> half_kernels.RunNode:
    """Runs a node in float32 and rounds its output to float16."""

    def run(node: Node, arrays: list[np.ndarray]) -> np.ndarray:
        return _run_by_ort(node, arrays, proto, rounded=True)(arrays)[0]

    return run


def _run_by_ort(node: Node, given: list[np.ndarray], proto: onnx.ModelProto, *, rounded: bool) -> Run:
    """A function that runs one node in ONNX Runtime; where it is `rounded`, its float outputs become float16."""
    single = _single_node(node, [_widened(array).dtype for array in given], proto)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = LOG_FATAL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(single.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in single.graph.input]

    def run(arrays: list[np.ndarray]) -> list[np.ndarray]:
        made = _run(session, names, [_widened(array) for array in arrays])
        return [one.astype(HALF) if rounded and one.dtype == np.float32 else one for one in made]

    return run


def _run(engine: Any, names: list[str], arrays: list[np.ndarray]) -> list[Any]:
    return list(engine.run(None, dict(zip(names, arrays, strict=False))))


def _widened(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype == HALF else array


def _single_node(node: Node, dtypes: list[np.dtype[Any]], proto: onnx.ModelProto) -> onnx.ModelProto:
    """A graph of one node, each of whose inputs has its own name."""
    copy = Node()
    copy.CopyFrom(node)
    names = iter([f"input_{index}" for index in range(len(dtypes))])
    copy.input[:] = [next(names) if name else "" for name in node.input]
    kinds = [onnx.helper.np_dtype_to_tensor_dtype(dtype) for dtype in dtypes]
    inputs = [onnx.helper.make_tensor_value_info(f"input_{i}", kind, None) for i, kind in enumerate(kinds)]
    outputs = [onnx.helper.make_empty_tensor_value_info(name) for name in node.output if name]
    graph = onnx.helper.make_graph([copy], "node", inputs, outputs)
    return onnx.helper.make_model(graph, opset_imports=proto.opset_import, ir_version=proto.ir_version)
