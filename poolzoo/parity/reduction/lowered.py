"""Reduces what lower precision loses: the node whose lowering moves the result most, by itself on a small input.

Rounding makes every value of a lowered graph differ, so that there is no first one. Here each node is lowered alone: it
gets exact inputs, and its result takes the place of the exact one in the float32 graph. What that moves is its harm.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper

from poolzoo.common import output
from poolzoo.common.errors import CheckFailed, Terminated
from poolzoo.parity.reduction import graphs, running
from poolzoo.parity.reduction.case import Case, Oracle, TimeIsUp
from poolzoo.parity.reduction.difference import compare
from poolzoo.parity.reduction.reduce import BUDGET, NothingToReduce
from poolzoo.parity.reduction.result import LoweredNode, Lowering, Reduction
from poolzoo.parity.reduction.running import Arrays, Runner, attempt
from poolzoo.parity.reduction.shrinking import shrink
from poolzoo.runtime.graph_view import GraphView
from poolzoo.runtime.half_arithmetic import HalfGraph

PRODUCTS: Final = (
    "Conv",
    "ConvTranspose",
    "Gemm",
    "MatMul",
)  # of several nodes that are lowered together, the main one
KEPT: Final = 0.5  # of the difference that a smaller case has to show
FLAG, VALUE = "lowered?:", "lowered:"  # begin the names of inputs by which a node's result is replaced
RUNNERS: Final[Mapping[str, Runner]] = {
    "onnx.reference": running.evaluator,
    "onnxruntime, ORT_DISABLE_ALL": running.unoptimized,
    "onnxruntime, ORT_ENABLE_ALL": running.optimized,
}
IN_HALF: Final = "half arithmetic, sums included"


@dataclass(frozen=True)
class _Lowered:
    """A node of the float32 graph, and the part of the lowered graph that computes the same value of the same ones."""

    value: str
    node: onnx.NodeProto
    exact: onnx.ModelProto
    part: onnx.ModelProto
    inputs: Arrays


def half(proto: onnx.ModelProto, inputs: Arrays) -> Sequence[np.ndarray]:
    """A graph in half arithmetic: what is float16 in it overflows, sums inside nodes included."""
    names = {value.name for value in proto.graph.input}
    return list(HalfGraph(proto).run({name: one for name, one in inputs.items() if name in names}).values())


def reduce_lowered(
    exact: onnx.ModelProto,
    lowered: onnx.ModelProto,
    inputs: Arrays,
    precision: str,
    *,
    result: str = "logits",
    paths: Mapping[str, str] | None = None,
    budget: float = BUDGET,
) -> Reduction:
    """Finds the node whose lowering alone moves a result most, and reduces it to a small graph and input.

    Args:
        exact: The graph in float32.
        lowered: The graph that was made of it, in which values keep their names.
        inputs: The graph's inputs, by name.
        precision: "fp16", whose graph is computed in half arithmetic, or another one, computed by ONNX Runtime.
        result: The output that counts.
        paths: The module of a value, by the value's name, as far as that is known.
        budget: Seconds after which the smallest case so far is returned.

    Raises:
        NothingToReduce: No node that is lowered alone moves the result.
        CheckFailed: The graph in float32 cannot be run.
    """
    started = time.monotonic()
    run = half if precision == "fp16" else running.optimized
    with output.progress("reducing", budget) as bar:
        found = rank(exact, lowered, inputs, run, result, paths or {}, started + budget)
        ranking, complete = [one for one, _ in found], len(found) > 0
        if not found or ranking[0].harm == 0:
            raise NothingToReduce("no node that is lowered alone moves the result", "give another input")
        worst = found[0][1]
        oracle = Oracle(
            actual=run,
            reference=running.reference,
            threshold=0.0,
            non_finite=False,
            kernels_agree=True,
            deadline=started + budget,
            bar=bar,
            best=Case(worst.part, worst.inputs, worst.exact),
        )
        if attempt(running.reference, worst.exact, worst.inputs) is None:
            oracle.reference = running.unoptimized
        first = oracle.difference(oracle.best)
        oracle.non_finite = first.non_finite > 0
        oracle.threshold = KEPT * first.relative if np.isfinite(first.relative) else KEPT
        try:
            shrink(oracle)
        except Terminated:
            raise
        except (TimeIsUp, KeyboardInterrupt):
            complete = False
    case, expected = oracle.best, oracle.expected(oracle.best)
    runners = {**RUNNERS, IN_HALF: half} if precision == "fp16" else RUNNERS
    outputs = {name: attempt(one, case.graph, case.inputs) for name, one in runners.items()}
    return Reduction(
        fault="precision",
        graph=case.graph,
        inputs=case.inputs,
        expected=expected,
        oracle="the same node in float64" if oracle.reference is running.reference else "the same node in float32",
        difference=oracle.difference(case),
        threshold=oracle.threshold,
        by_runtime={name: None if one is None else compare(one, expected) for name, one in outputs.items()},
        nodes_before=len(lowered.graph.node),
        checked=oracle.checked,
        complete=complete,
        lowering=Lowering(precision=precision, result=result, nodes=tuple(ranking)),
        seconds=time.monotonic() - started,
    )


def rank(
    exact: onnx.ModelProto,
    lowered: onnx.ModelProto,
    inputs: Arrays,
    run: Runner,
    result: str,
    paths: Mapping[str, str],
    deadline: float,
) -> list[tuple[LoweredNode, _Lowered]]:
    """The nodes by what their lowering alone does to the result, in descending order; of equal ones the first."""
    exact, lowered = graphs.with_weights(exact), graphs.with_weights(lowered)
    values: dict[str, Any] = {**inputs, **running.values(exact, inputs, graphs.computed(exact))}
    if result not in values:
        raise CheckFailed(f"the graph in float32 computes no {result}", "check it with onnx.checker")
    parts = list(_parts(exact, lowered, values, result))
    session = running.session(_with_replacements(exact, [one.value for one in parts]), optimized=True)
    expected = np.asarray(values[result], np.float64)
    spread = float(expected.std()) or 1.0
    found: list[tuple[LoweredNode, _Lowered]] = []
    for one in parts:
        if time.monotonic() > deadline and found:
            break
        made = attempt(run, one.part, one.inputs)
        if made is None or made.shape != values[one.value].shape:
            continue
        feeds = dict(inputs)
        for other in parts:
            feeds[f"{FLAG}{other.value}"] = np.array(other is one)
            feeds[f"{VALUE}{other.value}"] = made.astype(np.float32) if other is one else np.zeros(0, np.float32)
        moved = np.asarray(session.run([result], feeds)[0], np.float64) - expected
        with np.errstate(invalid="ignore", over="ignore"):
            harm = float(np.sqrt(np.mean(np.square(moved)))) / spread
        node = LoweredNode(
            node=one.node.name,
            operator=one.node.op_type,
            layer=_layer(one.node, paths),
            harm=harm if np.isfinite(harm) else float("inf"),
            difference=compare(made, values[one.value]),
        )
        found.append((node, one))
    return sorted(found, key=lambda pair: (-pair[0].harm, not pair[0].difference.non_finite))


def _layer(node: onnx.NodeProto, paths: Mapping[str, str]) -> str:
    """The module whose weight a node reads, or the one that its value belongs to; empty where neither is known."""
    weights = [str(name).removesuffix(".weight") for name in node.input if name.endswith(".weight")]
    return weights[0] if weights else paths.get(node.output[0], "")


def _parts(
    exact: onnx.ModelProto, lowered: onnx.ModelProto, values: Mapping[str, np.ndarray], result: str
) -> Iterator[_Lowered]:
    """The nodes that lead to a result in float32, each with its lowered form; those that stay as they are left out.

    A converter may leave a `Relu` to the rounding of its output. The node before it then goes up to the rounded output.
    """
    known = onnx.shape_inference.infer_shapes(lowered).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*known.input, *known.value_info, *known.output)}
    constants = {tensor.name: tensor.data_type for tensor in lowered.graph.initializer}
    view, before = GraphView(lowered.graph), GraphView(exact.graph)
    for last in graphs.nodes_behind(exact, set(), result):
        name = last.output[0]
        if name not in view.producers or len(last.output) > 1 or values[name].dtype != np.float32:
            continue
        given = {one: values[one] for one in _starts(last, before, view, values)}
        region = graphs.cut(exact, given, name)
        end = name if len(region.graph.node) == 1 else _rounded(name, view)
        part = graphs.cut(lowered, given, end) if end is not None else region
        read = {one for node in part.graph.node for one in graphs.reads(node)}
        if not read <= {*given, *constants, *graphs.computed(part)} or _is_as_before(part, region, types | constants):
            continue
        part = _with_casts(part, {one for one in given if types.get(one) == TensorProto.FLOAT16})
        used = {value.name for value in part.graph.input}
        node = next((one for one in region.graph.node if one.op_type in PRODUCTS), last)
        yield _Lowered(name, node, region, part, {one: value for one, value in given.items() if one in used})


def _starts(last: onnx.NodeProto, exact: GraphView, lowered: GraphView, values: Arrays) -> list[str]:
    """The nearest values before a node that the lowered graph has too."""
    found, todo = [], deque(graphs.reads(last))
    seen: set[str] = set()
    while todo:
        name = todo.popleft()
        if name in seen:
            continue
        seen.add(name)
        if name in exact.producers and name not in lowered.producers:
            todo += graphs.reads(exact.producers[name])
        elif name in values:
            found.append(name)
    return found


def _rounded(name: str, lowered: GraphView) -> str | None:
    """A value behind its rounding to int8; None where it is not rounded."""
    for quantize in lowered.users.get(name, []):
        for back in lowered.users.get(quantize.output[0], []) if quantize.op_type == "QuantizeLinear" else ():
            return str(back.output[0])
    return None


def _is_as_before(part: onnx.ModelProto, region: onnx.ModelProto, types: Mapping[str, int]) -> bool:
    """Whether a part of the lowered graph is that of the graph in float32, and in float32."""
    nodes, others = list(part.graph.node), list(region.graph.node)
    same = [(one.op_type, *one.input) for one in nodes] == [(one.op_type, *one.input) for one in others]
    return same and TensorProto.FLOAT16 not in {types.get(name) for one in nodes for name in (*one.input, *one.output)}


def _with_casts(part: onnx.ModelProto, halves: set[str]) -> onnx.ModelProto:
    """A part whose inputs in float16 are given in float32, and cast inside."""
    used = [value.name for value in part.graph.input if value.name in halves]
    copy = graphs.renamed(part, {name: f"{name}_half" for name in used})
    casts = [helper.make_node("Cast", [name], [f"{name}_half"], to=TensorProto.FLOAT16) for name in used]
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in copy.graph.node]
    del copy.graph.node[:]
    copy.graph.node.extend([*casts, *nodes])
    return copy


def _with_replacements(exact: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """A graph that takes another value in the place of one that it computes, where a flag says so."""
    copy = graphs.copied(exact)
    del copy.graph.value_info[:]
    replaced = {name: f"{name}/used" for name in names}
    outputs = {value.name for value in copy.graph.output}
    nodes = []
    for node in exact.graph.node:
        nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
        nodes[-1].input[:] = [replaced.get(one, one) for one in node.input]
        for name in node.output:
            if name in outputs and name in replaced:  # the output keeps its name
                nodes[-1].output[:] = [f"{name}/exact" if one == name else one for one in node.output]
                nodes += [
                    _choice(name, f"{name}/exact", name),
                    helper.make_node("Identity", [name], [replaced[name]]),
                ]
            elif name in replaced:
                nodes.append(_choice(name, name, replaced[name]))
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    for name in names:
        copy.graph.input.append(helper.make_tensor_value_info(f"{FLAG}{name}", TensorProto.BOOL, []))
        copy.graph.input.append(helper.make_tensor_value_info(f"{VALUE}{name}", TensorProto.FLOAT, None))
    return copy


def _choice(name: str, exact: str, used: str) -> onnx.NodeProto:
    branches = {}
    for branch, value in (("then_branch", f"{VALUE}{name}"), ("else_branch", exact)):
        nodes = [helper.make_node("Identity", [value], [f"{name}/{branch}"])]
        ends = [helper.make_tensor_value_info(f"{name}/{branch}", TensorProto.FLOAT, None)]
        branches[branch] = helper.make_graph(nodes, branch, [], ends)
    return helper.make_node("If", [f"{FLAG}{name}"], [used], **branches)
