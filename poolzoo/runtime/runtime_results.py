"""What was found of a bundle in runtimes: a result each, the report of all, and which one is faster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from poolzoo.runtime import speed
from poolzoo.runtime.environment import Environment
from poolzoo.runtime.gate import Judgment
from poolzoo.runtime.measurements import BenchRow

Status = Literal["agrees", "wrong", "refused", "cannot run here", "not installed"]


@dataclass(frozen=True, kw_only=True)
class RuntimeResult:
    """What was found of a bundle in one runtime.

    Attributes:
        runtime: Its name.
        version: Its version in words; "" where it is not known.
        status: "agrees", "wrong", "refused", "cannot run here" or "not installed".
        detail: Why it does not agree, or how to get it; of one that agrees, how close it came to its limit.
        judgment: What the gate found; None where there was nothing to judge.
        startup_ms: Milliseconds of imports, opening, and the first image; None likewise.
        bytes: The size of what it reads; None likewise.
        changes: What was changed of the graph for it.
        speed: A row for each batch size; empty where it was not measured.
        host_speedup: The least speed-up over ONNX Runtime that the host sees, with the cost of the pipe; None likewise.
        remarks: What else there is to say, such as that its `close` raises.
    """

    runtime: str
    version: str
    status: Status
    detail: str
    judgment: Judgment | None = None
    startup_ms: float | None = None
    bytes: int | None = None
    changes: tuple[str, ...] = ()
    speed: tuple[BenchRow, ...] = ()
    host_speedup: float | None = None
    remarks: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        """A row of `runtimes` in `verify --json`."""
        judgment = self.judgment
        return {
            "runtime": self.runtime,
            "version": self.version,
            "status": self.status,
            "detail": self.detail,
            "checks": [check.to_json() for check in judgment.checks] if judgment else [],
            "max_abs": judgment.max_abs if judgment else None,
            "allowed": judgment.allowed if judgment else None,
            "startup_ms": self.startup_ms,
            "bytes": self.bytes,
            "changes": list(self.changes),
            "speed": [row.to_json() for row in self.speed],
            "host_speedup": self.host_speedup,
            "remarks": list(self.remarks),
        }


@dataclass(frozen=True, kw_only=True)
class RuntimesReport:
    """The results of all runtimes, and what they were measured on.

    Attributes:
        results: In the order in which they were asked for.
        named: The names that were asked for; a runtime of these that does not agree is a failure.
        environment: The machine and its settings.
    """

    results: tuple[RuntimeResult, ...]
    named: tuple[str, ...]
    environment: Environment

    @property
    def failures(self) -> list[RuntimeResult]:
        """Those that are wrong, and those that were named and do not agree."""
        return [
            one
            for one in self.results
            if one.status == "wrong" or (one.status != "agrees" and one.runtime in self.named)
        ]

    def to_json(self) -> list[dict[str, object]]:
        """`runtimes` in `verify --json`."""
        return [one.to_json() for one in self.results]


def least_speedup(result: RuntimeResult) -> float:
    """The least of a runtime's speed-ups over ONNX Runtime at the batch sizes that were timed; 0 where none was.

    One that the host does not see to be faster is not faster, whatever its own clock says.
    """
    if result.runtime == speed.ORT:
        return 1.0
    if result.host_speedup is not None and result.host_speedup <= 1.0:
        return result.host_speedup
    return min((row.measurement.speedup["median"] for row in result.speed if row.measurement.speedup), default=0.0)
