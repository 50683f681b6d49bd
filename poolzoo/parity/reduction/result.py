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

Fault = Literal["graph", "runtime"]
Kind = Literal["translation", "runtime", "non-finite"]


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


@dataclass(frozen=True, kw_only=True, eq=False)
class Reduction:
    """The smallest case that was found.

    Attributes:
        fault: "graph" where it does not compute what torch computes in any runtime, "runtime" where the graph is right
            and the runtime computes it wrongly.
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
        """What kind of fault it is: a wrong translation, a wrong runtime, or NaN, infinity and overflow in either."""
        if self.non_finite:
            return "non-finite"
        return "translation" if self.fault == "graph" else "runtime"

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
            "nodes": [{"operator": node.op_type, "output": node.output[0]} for node in self.graph.graph.node],
            "nodes_before": self.nodes_before,
            "input_bytes": self.bytes,
            "checked": self.checked,
            "seconds": round(self.seconds, 2),
            "complete": self.complete,
        }
