"""A graph with an input that shows a difference, and the check that every smaller one has to pass."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np
import onnx

from poolzoo.common.output import Progress
from poolzoo.parity.reduction import running
from poolzoo.parity.reduction.difference import Difference, compare
from poolzoo.parity.reduction.running import Arrays, Runner

NOISE_FACTOR: Final = 16.0  # a difference is more than so many times what rounding makes


class Expected(Protocol):
    """What torch makes of a region of a graph."""

    @property
    def sliceable(self) -> bool:
        """Whether it holds for inputs of other sizes."""
        ...

    def __call__(self, inputs: Arrays) -> np.ndarray: ...

    def sliced(self, length: int, rows: Sequence[int]) -> Expected:
        """The same with all axes of its weights that are so long sliced."""
        ...


class TimeIsUp(Exception):
    """The budget is spent; what was found so far stays."""


@dataclass(frozen=True)
class Case:
    """A graph and an input.

    Attributes:
        graph: The graph that computes wrongly, or that is computed wrongly; it has one output.
        inputs: Its inputs by name.
        reference: A graph that computes what is expected, or a function of the inputs. The same changes are made to the
            former as to `graph`; it may be that graph itself, computed by another runtime.
    """

    graph: onnx.ModelProto
    inputs: Arrays
    reference: onnx.ModelProto | Expected

    @property
    def output(self) -> str:
        """The name of the output."""
        return str(self.graph.graph.output[0].name)

    def changed(
        self,
        change: Callable[[onnx.ModelProto], onnx.ModelProto],
        inputs: Arrays | None = None,
        expected: Expected | None = None,
    ) -> Case:
        """The same change of both graphs, and other inputs; `expected` is in the place of what torch makes of them.

        Inputs that the graph does not read any more are left out.

        Raises:
            Exception: The change does not fit one of them.
        """
        graph = change(self.graph)
        other = self.reference if expected is None else expected
        if isinstance(other, onnx.ModelProto):
            other = graph if other is self.graph else change(other)
        given = self.inputs if inputs is None else inputs
        names = [value.name for value in graph.graph.input]
        if isinstance(other, onnx.ModelProto):
            names += [value.name for value in other.graph.input if value.name not in names]
        return Case(graph, {name: given[name] for name in names}, other)


@dataclass
class Oracle:
    """Whether a case still shows the difference.

    Attributes:
        actual: Runs the graph.
        reference: Runs the reference graph.
        threshold: The least difference that counts, as a fraction of the largest expected magnitude.
        non_finite: Whether the difference is a NaN or infinity on one side, which has to stay so.
        kernels_agree: Whether ONNX Runtime without optimizations computes the reference graph rightly. Its distance
            from the reference is then rounding.
        deadline: When to stop, of `time.monotonic`.
        bar: What shows the progress.
        checked: How many cases were checked.
        best: The smallest case that shows it.
    """

    actual: Runner
    reference: Runner
    threshold: float
    non_finite: bool
    kernels_agree: bool
    deadline: float
    bar: Progress
    best: Case
    checked: int = 0
    started: float = field(default_factory=time.monotonic)

    def alive(self) -> None:
        """Raises TimeIsUp once the budget is spent."""
        now = time.monotonic()
        self.bar.update(now - self.started, f"{len(self.best.graph.graph.node)} nodes")
        if now > self.deadline:
            raise TimeIsUp

    def difference(self, case: Case) -> Difference:
        """What a case shows.

        Raises:
            Exception: Whatever a runtime raises at a graph that it cannot run.
        """
        found = np.asarray(self.actual(case.graph, case.inputs)[0])
        return compare(found, self.expected(case))

    def expected(self, case: Case) -> np.ndarray:
        """What is expected of a case."""
        if isinstance(case.reference, onnx.ModelProto):
            return np.asarray(self.reference(case.reference, case.inputs)[0])
        return case.reference(case.inputs)

    def shows(self, case: Case) -> bool:
        """Whether the difference is still there; False for a graph that cannot be run."""
        self.alive()
        self.checked += 1
        try:
            found = self.difference(case)
        except Exception:  # runtimes' exceptions share no base class, and a reduced graph may be invalid in any way
            return False
        if self.non_finite:
            return found.non_finite > 0
        if found.max_abs is None or found.non_finite or not found.relative > self.threshold:
            return False
        return not self._is_rounding(case, found)

    def _is_rounding(self, case: Case, found: Difference) -> bool:
        """Whether rounding inside could explain it: where large terms cancel, float32 differs from float64."""
        if not self.kernels_agree or not isinstance(case.reference, onnx.ModelProto):
            return False
        single = running.attempt(running.unoptimized, case.reference, case.inputs)
        if single is None:  # sizes that do not fit, which the evaluator lets pass
            return True
        noise = compare(single, self.expected(case))
        return bool(noise.non_finite) or (noise.max_abs or 0.0) * NOISE_FACTOR > (found.max_abs or 0.0)

    def accept(self, case: Case) -> bool:
        """Keeps a case as the smallest one where it shows the difference."""
        if not self.shows(case):
            return False
        self.best = case
        return True

    def tried(
        self,
        change: Callable[[onnx.ModelProto], onnx.ModelProto],
        inputs: Arrays | None = None,
        expected: Expected | None = None,
    ) -> bool:
        """Makes a change to the smallest case, and keeps the result where it still shows the difference."""
        try:
            case = self.best.changed(change, inputs, expected)
        except Exception:  # a change that does not fit the graph, in whatever way
            return False
        return self.accept(case)
