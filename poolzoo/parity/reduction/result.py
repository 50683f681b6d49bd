"""What a reduction found: the content of `report.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx

from poolzoo.parity.reduction.difference import Difference
from poolzoo.parity.reduction.repair import Repair
from poolzoo.parity.reduction.running import Arrays
from poolzoo.parity.reduction.tape import Step

Fault = Literal["graph", "runtime", "precision"]
Kind = Literal["translation", "runtime", "precision", "non-finite"]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a value comes from in torch.

    Attributes:
        layer: The path of the module; empty where it is none's.
        line: The line of Python, such as "timm/models/resnet.py:536".
        code: Its text.
        operation: What torch was called with.
    """

    layer: str
    line: str
    code: str
    operation: str

    @classmethod
    def of(cls, step: Step) -> Source:
        """The origin of an operation's results."""
        return cls(layer=step.layer, line=step.line, code=step.code, operation=step.describe())

    def to_json(self) -> dict[str, str]:
        """`source` in `report.json`."""
        return {"layer": self.layer, "line": self.line, "code": self.code, "operation": self.operation}


@dataclass(frozen=True, kw_only=True)
class LoweredNode:
    """A node in lower precision alone, with exact inputs.

    Attributes:
        node: Its name.
        operator: Its operator.
        layer: The path of its module; empty where that is unknown.
        harm: What it does to the result: the root mean square difference, as a fraction of the result's standard
            deviation; infinite where it is not finite.
        difference: What it does to its own output.
    """

    node: str
    operator: str
    layer: str
    harm: float
    difference: Difference

    def to_json(self) -> dict[str, Any]:
        """An entry of `nodes` in `lowering` of `report.json`; a harm that is infinite is None."""
        harm = self.harm if np.isfinite(self.harm) else None
        names = {"node": self.node, "operator": self.operator, "layer": self.layer}
        return {**names, "harm": harm, "difference": self.difference.to_json()}


@dataclass(frozen=True, kw_only=True)
class Lowering:
    """What lower precision does, node by node.

    Attributes:
        precision: "fp16", "int8-static" or "int8-dynamic".
        result: The output to which nodes do harm.
        nodes: The nodes, the most harmful one first; the reduction shows this one.
    """

    precision: str
    result: str
    nodes: tuple[LoweredNode, ...]

    def to_json(self) -> dict[str, Any]:
        """`lowering` in `report.json`."""
        return {"precision": self.precision, "result": self.result, "nodes": [one.to_json() for one in self.nodes]}


@dataclass(frozen=True, kw_only=True, eq=False)
class Reduction:
    """The smallest case that was found.

    Attributes:
        fault: "graph" where it does not compute what torch computes in any runtime, "runtime" where the graph is right
            and the runtime computes it wrongly, "precision" where the graph is right in float32 and loses too much in
            lower precision.
        graph: The graph, with one output.
        inputs: Its inputs.
        expected: What its output should be.
        oracle: What `expected` was computed by, in words.
        difference: How far the runtime's output is from it.
        threshold: The tolerance, as a fraction of the largest expected magnitude.
        by_runtime: The same for each way of running the graph; None where it cannot.
        nodes_before: The number of nodes of the whole graph.
        checked: How many cases were checked.
        complete: Whether it ended by itself, and not for lack of time.
        optimizer: The optimizer of ONNX Runtime without which it agrees; None where there is none.
        repair: The change of one node with which it agrees; None where none was found.
        repairs_all: Whether the whole graph agrees with that change too; None where that was not checked.
        source: Where the output comes from in torch; None where that is unknown.
        lowering: What lower precision does, node by node; None where it is not in question.
        seconds: How long it took.
    """

    fault: Fault
    graph: onnx.ModelProto
    inputs: Arrays
    expected: np.ndarray
    oracle: str
    difference: Difference
    threshold: float
    by_runtime: Mapping[str, Difference | None]
    nodes_before: int
    checked: int
    complete: bool
    optimizer: str | None = None
    repair: Repair | None = None
    repairs_all: bool | None = None
    source: Source | None = None
    lowering: Lowering | None = None
    seconds: float = 0.0

    @property
    def nodes(self) -> int:
        """The number of nodes that are left."""
        return len(self.graph.graph.node)

    @property
    def non_finite(self) -> bool:
        """Whether NaN or infinity is where a number is expected, or the other way round."""
        return self.difference.non_finite > 0

    @property
    def kind(self) -> Kind:
        """What kind of fault it is: of translation, runtime or precision, or NaN, infinity and overflow in any."""
        if self.non_finite:
            return "non-finite"
        return "translation" if self.fault == "graph" else self.fault

    @property
    def bytes(self) -> int:
        """The size of the inputs."""
        return sum(one.nbytes for one in self.inputs.values())

    def to_json(self) -> dict[str, Any]:
        """`report.json`."""
        return {
            "kind": self.kind,
            "fault": self.fault,
            "difference": self.difference.to_json(),
            "threshold": self.threshold,
            "oracle": self.oracle,
            "by_runtime": {name: one and one.to_json() for name, one in self.by_runtime.items()},
            "optimizer": self.optimizer,
            "culprit": self.repair and self.repair.to_json(),
            "culprit_alone": self.repairs_all,
            "source": self.source and self.source.to_json(),
            **({"lowering": self.lowering.to_json()} if self.lowering is not None else {}),
            "nodes": [{"operator": node.op_type, "output": node.output[0]} for node in self.graph.graph.node],
            "nodes_before": self.nodes_before,
            "input_bytes": self.bytes,
            "checked": self.checked,
            "seconds": round(self.seconds, 2),
            "complete": self.complete,
        }
