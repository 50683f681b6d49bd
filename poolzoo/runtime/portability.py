"""What runtimes are known to compute wrongly or to refuse in an ONNX graph, and why: rules as data.

Each rule was measured with a graph of a few nodes in OpenVINO 2026.4, OpenCV 5.0 (new engine), tract 0.23, MNN 3.6,
IREE 3.13, onnx2torch 1.5, and ExecuTorch 1.5, which like Core ML reads graphs through onnx2torch. Those of ncnn
1.0.20261020 through pnnx and of LiteRT 2.3 through onnx2tf 2.6 come from whole layers. A graph without an issue is not
proven right: only running it in the runtime proves that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import onnx

from poolzoo.common.errors import CheckFailed
from poolzoo.runtime import forms
from poolzoo.runtime.builtin.ncnn_forms import MAX_SORTED
from poolzoo.runtime.graph_view import GraphView, attribute

if TYPE_CHECKING:
    from pathlib import Path

    from onnx import ModelProto, NodeProto

    from poolzoo.plugin.spec import GraphForm

Outcome = Literal["wrong", "refused", "crash"]
REDUCTIONS: Final = {"ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare"}
SMALL_FLOOR: Final = 1e-6  # up to here onnx2tf takes a floor for 0


@dataclass(frozen=True, kw_only=True)
class PortabilityIssue:
    """A node that a runtime is known not to compute as ONNX Runtime does.

    Attributes:
        runtime: Name of the runtime, as in `poolzoo list runtimes`.
        outcome: "wrong": other numbers without a message; "refused": an error; "crash": the process ends.
        operator: Type of the node.
        node: Name of the node's first output.
        cause: What the runtime does, and the form that it takes.
    """

    runtime: str
    outcome: Outcome
    operator: str
    node: str
    cause: str

    def __str__(self) -> str:
        return f"{self.runtime} ({self.outcome}): {self.operator} → {self.node}: {self.cause}"

    def to_json(self) -> dict[str, str]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What runtimes get wrong: every node for which `matches` holds is an issue of each of them.

    Attributes:
        runtimes: Their names.
        outcome: What happens, as in `PortabilityIssue`.
        cause: Why, and what to write instead.
        operators: Types of the nodes to look at.
        matches: Whether a node of these types is one.
    """

    runtimes: tuple[str, ...]
    outcome: Outcome
    cause: str
    operators: frozenset[str]
    matches: Callable[[GraphView, NodeProto], bool]


def known_causes(file: Path, runtime: str, form: GraphForm) -> tuple[str, ...]:
    """Why a runtime does not compute a bundle's graph, in words, each cause once.

    Args:
        file: A bundle's `model.onnx`; it is looked at in the form that the runtime asks for.
        runtime: The runtime's name; these are known of built-in ones.
        form: What it asks of the graph.

    Returns:
        Causes in the order of the nodes; empty where no rule applies.
    """
    try:
        content, _ = forms.adapt(file.read_bytes(), form)
    except CheckFailed:
        return ()
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(content))
    return tuple(dict.fromkeys(issue.cause for issue in portability(model) if issue.runtime == runtime))


def portability(model: ModelProto) -> tuple[PortabilityIssue, ...]:
    """Every node of a graph that a runtime is known to compute wrongly, to refuse, or to end the process at.

    Args:
        model: The graph. Rules on shapes apply where it states them (`onnx.shape_inference`).

    Returns:
        Issues in the order of the nodes; empty where no rule applies.
    """
    view = GraphView(model.graph)
    return tuple(
        PortabilityIssue(
            runtime=runtime, outcome=rule.outcome, operator=node.op_type, node=node.output[0], cause=rule.cause
        )
        for node in model.graph.node
        for rule in RULES
        if node.op_type in rule.operators and rule.matches(view, node)
        for runtime in rule.runtimes
    )


# --- What the rules look for -----------------------------------------------------------------------------------------


def _has(node: NodeProto, name: str) -> bool:
    return any(attribute.name == name for attribute in node.attribute)


def _numbers(node: NodeProto, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    return next((tuple(a.ints) for a in node.attribute if a.name == name), default)


def _mode(node: NodeProto) -> str:
    mode = attribute(node, "mode", b"")
    return mode.decode() if isinstance(mode, bytes) else ""


def _gate_of(view: GraphView, node: NodeProto, gates: Callable[[GraphView, NodeProto], str | None]) -> bool:
    """Whether a Mul multiplies a value by a gate that was computed from another one."""
    for value, other in (node.input, reversed(node.input)):
        made = view.producers.get(value)
        source = gates(view, made) if made is not None else None
        if source is not None and source != other:
            return True
    return False


def _hard_sigmoid_source(view: GraphView, node: NodeProto) -> str | None:
    sixth = math.isclose(float(attribute(node, "alpha", 0.2)), 1 / 6, rel_tol=1e-4)  # type: ignore[arg-type]
    return node.input[0] if node.op_type == "HardSigmoid" and sixth else None


def _mish_source(view: GraphView, node: NodeProto) -> str | None:
    softplus = view.made_by(node.input[0], "Softplus") if node.op_type == "Tanh" else None
    return softplus.input[0] if softplus else None


def _gelu_by_division(view: GraphView, node: NodeProto) -> bool:
    """`x · (c · (1 + erf(x / √2)))`."""
    for value in node.input:
        halved = view.made_by(value, "Mul")
        for inner in halved.input if halved else ():
            added = view.made_by(inner, "Add")
            for term in added.input if added else ():
                erf = view.made_by(term, "Erf")
                if erf and view.made_by(erf.input[0], "Div"):
                    return True
    return False


def _axes_as_input(view: GraphView, node: NodeProto) -> bool:
    return len(node.input) > 1 and bool(node.input[1])


def _computed_statistics(view: GraphView, node: NodeProto) -> bool:
    return any(view.constant(value) is None for value in node.input[3:5])


def _three_dimensional(view: GraphView, node: NodeProto) -> bool:
    return len(attribute(node, "kernel_shape", ())) == 3  # type: ignore[arg-type]


def _three_dimensional_with_ceil_mode(view: GraphView, node: NodeProto) -> bool:
    return _three_dimensional(view, node) and bool(attribute(node, "ceil_mode", 0))


def _partial_windows(view: GraphView, node: NodeProto) -> bool | None:
    """Whether a pooling with ceil_mode has windows that reach beyond the padding; None without, or of unknown sizes."""
    sides = [side for side in view.shapes.get(node.input[0], ())[2:] if isinstance(side, int)]
    if len(sides) != 2 or not attribute(node, "ceil_mode", 0):
        return None
    kernel, strides = _numbers(node, "kernel_shape", (1, 1)), _numbers(node, "strides", (1, 1))
    pads = _numbers(node, "pads", (0, 0, 0, 0))
    return any((side + pads[at] + pads[at + 2] - kernel[at]) % strides[at] for at, side in enumerate(sides))


def _miscounts_with_ceil_mode(view: GraphView, node: NodeProto) -> bool:
    """Means with ceil_mode: of whole windows without the padding, or of partial windows with it."""
    return _partial_windows(view, node) == bool(attribute(node, "count_include_pad", 0))


def _counts_beyond_padding(view: GraphView, node: NodeProto) -> bool:
    """Means of partial windows with the padding."""
    return bool(_partial_windows(view, node) and attribute(node, "count_include_pad", 0))


def _without_value(view: GraphView, node: NodeProto) -> bool:
    return not _has(node, "value")


def _computed_without_value(view: GraphView, node: NodeProto) -> bool:
    return not _has(node, "value") and view.constant(node.input[0]) is None


def _residual_of_another_shape(view: GraphView, node: NodeProto) -> bool:
    """A sum behind a convolution with something that the graph computes and that is broadcast."""
    if not any(view.made_by(value, "Conv") for value in node.input):
        return False
    shapes = [view.shapes.get(value) for value in node.input if view.constant(value) is None]
    return len(shapes) == 2 and None not in shapes and shapes[0] != shapes[1]


def _constant_of_batch_one(view: GraphView, node: NodeProto) -> bool:
    shapes = [view.initializers[value].dims for value in node.input if value in view.initializers]
    return any(len(shape) >= 4 and shape[0] == 1 for shape in shapes)


def _three_dimensional_constant_right(view: GraphView, node: NodeProto) -> bool:
    right = view.initializers.get(node.input[1])
    return right is not None and len(right.dims) == 3


def _constant_branch(view: GraphView, node: NodeProto) -> bool:
    """A constant to choose from, neither a single number nor of the output's rank."""
    rank = max(len(view.shapes.get(value, ())) for value in (*node.input, *node.output))
    branches = [view.initializers[value].dims for value in node.input[1:] if value in view.initializers]
    return any(math.prod(shape) > 1 and len(shape) < rank for shape in branches)


def _computed_sizes(view: GraphView, node: NodeProto) -> bool:
    return len(node.input) > 3 and view.constant(node.input[3]) is None


def _antialiased(view: GraphView, node: NodeProto) -> bool:
    return bool(attribute(node, "antialias", 0))


def _wraps(view: GraphView, node: NodeProto) -> bool:
    return _mode(node) == "wrap"


def _reflects_with_dynamic_batch(view: GraphView, node: NodeProto) -> bool:
    return _mode(node) == "reflect" and any(isinstance(d, str) for d in view.shapes.get(node.input[0], ()))


def _divides_by_small_floor(view: GraphView, node: NodeProto) -> bool:
    """`… / max(x, floor)`, or by its root."""
    root = view.made_by(node.input[-1], "Sqrt")
    divisor = view.producers.get(root.input[0] if root else node.input[-1])
    if divisor is None or divisor.op_type not in ("Clip", "Max") or len(divisor.input) < 2:
        return False
    floor = view.constant(divisor.input[1])
    return floor is not None and floor.size == 1 and 0 < float(floor.item()) <= SMALL_FLOOR


def _negative_scale(view: GraphView, node: NodeProto) -> bool:
    """A product with one negative number, or a quotient, right before."""
    before = view.made_by(node.input[0], "Mul") or view.made_by(node.input[0], "Div")
    numbers = [view.constant(value) for value in before.input] if before else []
    return any(one is not None and one.size == 1 and float(one.item()) < 0 for one in numbers)


def _half_with_bias(view: GraphView, node: NodeProto) -> bool:
    constants = [view.initializers[value] for value in node.input if value in view.initializers]
    return len(node.input) > 2 and any(one.data_type == onnx.TensorProto.FLOAT16 for one in constants)


def _sorts_many(view: GraphView, node: NodeProto) -> bool:
    """More values than the rewrite for ncnn sorts."""
    sides = view.sides(node.input[0])
    axis = int(str(attribute(node, "axis", -1)))
    return not sides or not 1 < sides[axis] <= MAX_SORTED


def _joins_batch(view: GraphView, node: NodeProto) -> bool:
    return attribute(node, "axis") == 0 and len(view.shapes.get(node.output[0], ())) > 2


def _compares_with_infinity(view: GraphView, node: NodeProto) -> bool:
    numbers = [view.constant(value) for value in node.input]
    return any(one is not None and np.isinf(one).any() for one in numbers)


def _floored(view: GraphView, node: NodeProto) -> bool:
    """A remainder with the sign of the divisor, which ONNX has for integers alone."""
    return not attribute(node, "fmod", 0)


def _truncated_of_floats(view: GraphView, node: NodeProto) -> bool:
    """A remainder with the sign of the dividend, of values that no cast made integers."""
    casts = [view.made_by(value, "Cast") for value in node.input]
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
    return bool(attribute(node, "fmod", 0)) and all(one is None or attribute(one, "to") in floats for one in casts)


def _axes_from_the_end(view: GraphView, node: NodeProto) -> bool:
    """Several axes, some of them counted from the end, none of which stays with a side of 1."""
    axes: Sequence[int] = _numbers(node, "axes", ())
    if _axes_as_input(view, node):
        constant = view.constant(node.input[1])
        axes = () if constant is None else constant.tolist()
    return len(axes) > 1 and min(axes) < 0 and not attribute(node, "keepdims", 1)


def _of_another_slope(view: GraphView, node: NodeProto) -> bool:
    return attribute(node, "alpha", 1.0) != 1.0


def _reduces_nothing(view: GraphView, node: NodeProto) -> bool:
    """A reduction without axes that takes none of them instead of all."""
    return bool(attribute(node, "noop_with_empty_axes", 0)) and not _axes_as_input(view, node)


def _without_direction(view: GraphView, node: NodeProto) -> bool:
    return not _has(node, "reverse")


def _half(view: GraphView, node: NodeProto) -> bool:
    return attribute(node, "to") == onnx.TensorProto.FLOAT16


def _any(view: GraphView, node: NodeProto) -> bool:
    return True


def _rule(
    runtimes: str, outcome: Outcome, operators: str, matches: Callable[[GraphView, NodeProto], bool], cause: str
) -> Rule:
    return Rule(
        runtimes=tuple(runtimes.split()),
        outcome=outcome,
        operators=frozenset(operators.split()),
        matches=matches,
        cause=cause,
    )


# fmt: off
RULES: Final = (
    _rule("opencv", "wrong", "Mul", lambda view, node: _gate_of(view, node, _hard_sigmoid_source),
          "fuses x · HardSigmoid(g) into HardSwish(g), also where x is not g; write Add 3, Clip to 0–6, Mul 1/6"),
    _rule("opencv", "wrong", "Mul", lambda view, node: _gate_of(view, node, _mish_source),
          "fuses x · Tanh(Softplus(g)) into Mish(g), also where x is not g"),
    _rule("opencv", "wrong", "Softmax", _negative_scale,
          "takes the largest input before a negative scale, and overflows; negate with Neg"),
    _rule("opencv", "crash", "Mul", _gelu_by_division,
          "cannot fuse GELU with a division by √2 in this order; halve x first, or multiply by 1/√2"),
    _rule("opencv", "crash", "MatMul", _three_dimensional_constant_right,
          "takes a constant on the right with two dimensions, not with three"),
    _rule("opencv", "refused", "Add", _residual_of_another_shape,
          "fuses the sum into the convolution, which needs one shape on both sides; subtract the negative"),
    _rule("opencv tract", "refused", "ConstantOfShape", _without_value,
          "needs the attribute `value`; make the constant part of the file"),
    _rule("mnn", "wrong", "ConstantOfShape", _computed_without_value,
          "leaves memory as it is where `value` is absent; make the constant part of the file"),
    _rule("opencv openvino mnn", "wrong", "Resize", _antialiased,
          "ignores `antialias` and samples; use AveragePool or MatMul with the filter's weights"),
    _rule("tract", "refused", "Resize", _computed_sizes,
          "cannot derive the batch from sizes that the graph computes; use constant scales"),
    _rule("iree", "refused", "Resize", _antialiased,
          "has no `antialias`; use AveragePool or MatMul with the filter's weights"),
    _rule("iree", "refused", "Pad", _reflects_with_dynamic_batch,
          "cannot reflect a map with a dynamic batch; concatenate slices of the border"),
    _rule("tract", "refused", "Gemm", _half_with_bias,
          "gives float32 for a Gemm with a bias in float16; export in fp32, or add the bias to a MatMul"),
    _rule("openvino tract mnn iree litert", "refused", "Pad", _wraps,
          "has no padding that wraps around; concatenate slices of the border"),
    _rule("ncnn", "wrong", "Pad", _wraps,
          "pads by something else than the other border; concatenate slices of the border"),
    _rule("mnn", "wrong", " ".join(REDUCTIONS), _axes_as_input,
          "reduces all axes where they are an input (opset 18); use ReduceSum, ReduceMean or ReduceMax"),
    _rule("mnn", "crash", "MaxPool AveragePool", _three_dimensional,
          "has no pooling in three dimensions; fold two of them into one"),
    _rule("iree", "refused", "MaxPool AveragePool", _three_dimensional_with_ceil_mode,
          "derives wrong bounds from `ceil_mode` in three dimensions; fold two of them into one"),
    _rule("iree", "wrong", "AveragePool", _miscounts_with_ceil_mode,
          "miscounts with `ceil_mode`; set it only where a window is partial, and count no padding there"),
    _rule("opencv", "wrong", "AveragePool", _counts_beyond_padding,
          "counts what lies beyond the padding in partial windows; pad in advance, and count no padding there"),
    _rule("mnn", "wrong", "MatMul", _constant_of_batch_one,
          "does not repeat a constant of batch 1 when the batch grows; expand it to the batch"),
    _rule("mnn", "wrong", "BatchNormalization", _computed_statistics,
          "does not read means and variances that the graph computes; compute them in advance"),
    _rule("mnn", "wrong", "Where", _constant_branch,
          "does not broadcast a constant to choose from; give it all dimensions, or compute the choice"),
    _rule("litert", "wrong", "Div Reciprocal", _divides_by_small_floor,
          "takes a floor up to 1e-6 for 0, so that the division can be 0/0; clamp to 2e-6 or add 1e-7"),
    _rule("litert", "wrong", "Elu", _of_another_slope,
          "forgets `alpha`, and computes with 1; write Relu(x) + alpha · Elu(Min(x, 0))"),
    _rule("litert", "wrong", "ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum", _reduces_nothing,
          "forgets `noop_with_empty_axes`, and reduces all axes; leave the reduction out"),
    _rule("executorch", "wrong", "Mod", _floored,
          "gives remainders of negative integers the sign of the dividend; add the divisor, or compute them in float"),
    _rule("mnn", "wrong", "Mod", _truncated_of_floats,
          "gives remainders of negative floats the sign of the divisor; write x − trunc(x / n) · n"),
    _rule("onnx2torch executorch coreml", "wrong", "ReduceMax ReduceMin ReduceProd", _axes_from_the_end,
          "reduces other axes where several are negative and none is kept; count them from the front, or keep them"),
    _rule("onnx2torch executorch coreml", "wrong", "CumSum", _without_direction,
          "sums from the end without the attribute `reverse`; state that it is 0"),
    _rule("ncnn", "crash", "TopK", _sorts_many,
          f"sorts no more than {MAX_SORTED} values"),
    _rule("ncnn", "refused", "GatherElements", _any,
          "has no GatherElements; choose rows by constants"),
    _rule("ncnn", "refused", "Greater Less", _compares_with_infinity,
          "compares with no infinity"),
    _rule("ncnn", "refused", "Concat", _joins_batch,
          "takes one image at a time, and joins nothing along the batch"),
    _rule("ncnn", "refused", "DequantizeLinear", _any,
          "has no quantized graphs of ONNX; export in fp32"),
    _rule("ncnn", "refused", "Cast", _half,
          "has no casts to half precision; export in fp32"),
)
# fmt: on
