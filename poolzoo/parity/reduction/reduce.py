"""Reduces a graph that fails: finds where it differs and whose fault it is, and cuts and shrinks what shows it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

import numpy as np
import onnx
import torch

from poolzoo.common import output
from poolzoo.common.errors import CheckFailed, Terminated, reason
from poolzoo.parity.reduction import graphs, optimizers, repairs, running
from poolzoo.parity.reduction.case import Case, Oracle, TimeIsUp
from poolzoo.parity.reduction.culprit import find_culprit, fit_small
from poolzoo.parity.reduction.cutting import cut_nodes
from poolzoo.parity.reduction.difference import compare
from poolzoo.parity.reduction.locating import Region, behind, locate
from poolzoo.parity.reduction.recordings import Recordings
from poolzoo.parity.reduction.repair import Repair
from poolzoo.parity.reduction.result import Reduction, Source
from poolzoo.parity.reduction.running import Arrays, Runner, attempt
from poolzoo.parity.reduction.shrinking import shrink
from poolzoo.parity.reduction.tape import Network
from poolzoo.parity.reduction.torch_side import TorchSide, close, record_both

BUDGET: Final = 120.0  # seconds
LARGEST: Final = 1e-4  # a reduced case has to differ by this fraction of its largest output, or …
FRACTION: Final = 0.1  # … by this fraction of what the network differs by, whichever is less
LEAST: Final = 4e-6  # rounding in float32 comes near to this
RUNNERS: Final[Mapping[str, Runner]] = {
    "onnxruntime, ORT_ENABLE_ALL": running.optimized,
    "onnxruntime, ORT_DISABLE_ALL": running.unoptimized,
    "onnx.reference, float64": running.reference,
}


class NothingToReduce(CheckFailed):
    """The graph agrees with what it is compared with on this input."""


def reduce_failure(
    graph: onnx.ModelProto,
    inputs: Arrays,
    network: Network | None,
    *,
    actual: Runner = running.optimized,
    layers: Mapping[str, str] | None = None,
    budget: float = BUDGET,
) -> Reduction:
    """Reduces a graph that fails on an input to the smallest graph and input that still show it.

    Args:
        graph: The graph; any ONNX file with weights inside. It is not changed.
        inputs: Inputs that show the difference by name, in the graph's order.
        network: What the graph should compute: a torch module, or a function of tensors in the order of the graph's
            inputs, that gives the outputs in the graph's order. None where the graph itself says what is right, and
            the runtime is in question.
        actual: What runs the graph. It gets graphs with one output.
        layers: The graph's value for the output of modules, by path, where that is known. It saves time.
        budget: Seconds after which the smallest case so far is returned.

    Returns:
        The smallest case. Ctrl-C during the search returns it too, with `complete` false.

    Raises:
        NothingToReduce: There is no difference.
        CheckFailed: The graph cannot be run.
    """
    started = time.monotonic()
    whole = graphs.with_weights(graph)
    with output.progress("reducing", budget) as bar:
        if network is None:
            search = _Search(whole, inputs, None, actual, started + budget, bar)
            found = search.runtime_fault(search.whole_case(0), running.unoptimized)
        else:
            search = _Search(whole, inputs, record_both(network, list(inputs.values())), actual, started + budget, bar)
            found = search.run(layers or {})
        return replace(found, seconds=time.monotonic() - started)


class _Search:
    """One reduction: what is known of the whole graph, and the steps."""

    def __init__(
        self,
        whole: onnx.ModelProto,
        inputs: Arrays,
        recordings: Recordings | None,
        actual: Runner,
        deadline: float,
        bar: output.Progress,
    ) -> None:
        self.whole = whole
        self.inputs = inputs
        self.recordings = recordings
        self.actual = actual
        self.deadline = deadline
        self.bar = bar

    def run(self, layers: Mapping[str, str]) -> Reduction:
        """Finds out whose fault it is, and reduces it.

        Raises:
            NothingToReduce: There is no difference.
        """
        recordings = self.recordings
        assert recordings is not None
        index = self._failing_output(recordings, self.actual)
        if index is None:
            raise NothingToReduce("the graph agrees with the network on this input", "give an input that shows it")
        if self._failing_output(recordings, running.unoptimized) is None:
            return self.runtime_fault(self.whole_case(index), running.unoptimized)
        found = locate(self.whole, self.inputs, recordings, output=index, layers=layers, alive=self._alive)
        side = self._differing(found, self._whole_region(index), recordings)
        region = side.region
        computed = attempt(running.reference, region.graph, region.inputs)
        if computed is not None and close(computed, side.expected(region.inputs), side.tolerance):
            return self.runtime_fault(Case(region.graph, region.inputs, region.graph), running.reference)
        return self._translation_fault(side)

    def _differing(self, region: Region, whole: Region, recordings: Recordings) -> TorchSide:
        """The region with torch's inputs if it differs then, else with the graph's own, else the whole graph."""
        for one in (region, replace(region, inputs=region.own)):
            side = TorchSide(one, recordings)
            found = attempt(self.actual, one.graph, one.inputs)
            if found is None or not close(found, side.expected(one.inputs), side.tolerance):
                return side
        return TorchSide(whole, recordings)

    def _whole_region(self, index: int) -> Region:
        """The whole graph with one of its outputs as a region."""
        assert self.recordings is not None
        case, tape = self.whole_case(index), self.recordings.double
        names = [value.name for value in self.whole.graph.input]
        starts = {name: one for name, one in zip(names, tape.inputs, strict=False) if name in case.inputs}
        return Region(case.graph, case.inputs, case.inputs, starts, tape.outputs[index])

    def whole_case(self, index: int) -> Case:
        """The whole graph with one of its outputs, compared with itself."""
        graph = graphs.cut(self.whole, self.inputs, self.whole.graph.output[index].name)
        return Case(graph, {value.name: self.inputs[value.name] for value in graph.graph.input}, graph)

    def _alive(self) -> None:
        self.bar.update(0.0, "searching for the first difference")
        if time.monotonic() > self.deadline:
            raise TimeIsUp

    def _failing_output(self, recordings: Recordings, run: Runner) -> int | None:
        """The output that is furthest beyond its tolerance; None where none is.

        Raises:
            CheckFailed: The graph cannot be run.
        """
        try:
            outputs = run(self.whole, self.inputs)
        except Exception as error:  # runtimes' exceptions share no base class
            raise CheckFailed(f"the graph cannot be run: {reason(error)}", "check it with onnx.checker") from error
        ratios = []
        for value, index in zip(outputs, recordings.double.outputs, strict=False):
            found = compare(np.asarray(value), recordings.double.array(index))
            odd = found.max_abs is None or found.non_finite
            ratios.append(np.inf if odd else (found.max_abs or 0.0) / max(recordings.tolerance(index), 1e-30))
        worst = int(np.argmax(ratios))
        return worst if ratios[worst] > 1 else None

    def runtime_fault(self, start: Case, reference: Runner) -> Reduction:
        """The graph is right: what the runtime makes of it is compared with the same graph elsewhere."""
        oracle = self._oracle(start, reference, kernels_agree=reference is running.unoptimized)
        if oracle.difference(start).max_abs == 0 and not oracle.non_finite:
            raise NothingToReduce("the runtime agrees with ONNX Runtime without optimizations", "give another input")

        def search() -> None:
            cut_nodes(oracle)
            if attempt(running.reference, oracle.best.graph, oracle.best.inputs) is not None:
                oracle.reference = running.reference
            shrink(oracle)
            cut_nodes(oracle)

        complete = _bounded(search)
        optimizer, repair = None, None
        if complete:
            optimizer = optimizers.at_fault(oracle) if self.actual is running.optimized else None
            repair = repairs.find_change(oracle.best.graph, lambda graph: _agrees(oracle, graph))
        made_by = "onnx.reference in float64"
        if oracle.reference is running.unoptimized:
            made_by = "onnxruntime without optimizations"
        found = self._reduction(oracle, f"the same graph in {made_by}", complete)
        source = self._source_of(oracle.best.output)
        return replace(found, fault="runtime", optimizer=optimizer, repair=repair, source=source)

    def _translation_fault(self, side: TorchSide) -> Reduction:
        """The graph does not compute what torch computes: the region is repaired, cut and shrunk."""
        region, tape = side.region, side.recordings.double
        oracle = self._oracle(Case(region.graph, region.inputs, side.expected), running.reference, kernels_agree=True)
        repair: Repair | None = None

        def search() -> None:
            nonlocal repair
            repair = find_culprit(side, oracle)
            if repair is not None:
                repaired = Case(region.graph, region.inputs, repair.applied(region.graph))
                if attempt(running.reference, repaired.graph, region.inputs) is None:
                    oracle.reference = running.unoptimized
                if oracle.accept(repaired):
                    cut_nodes(oracle)
            if repair is not None or side.replays:
                shrink(oracle)
            if repair is None and side.replays:
                repair = fit_small(oracle)
                if repair is not None:
                    case = oracle.best
                    oracle.accept(Case(case.graph, case.inputs, repair.applied(case.graph)))
                    shrink(oracle)
            cut_nodes(oracle)

        complete = _bounded(search)
        text = f"torch {torch.__version__.partition('+')[0]} in float64"
        if isinstance(oracle.best.reference, onnx.ModelProto):
            made_by = "onnx.reference in float64" if oracle.reference is running.reference else "onnxruntime"
            text = f"{made_by}, of the graph with the repair, which agrees with {text}"
        found = self._reduction(oracle, text, complete)
        step = tape.step_of(region.end)
        return replace(
            found,
            repair=repair,
            repairs_all=self._repairs_all(repair, side.recordings) if repair is not None else None,
            source=Source.of(step) if step is not None else None,
        )

    def _repairs_all(self, repair: Repair, recordings: Recordings) -> bool | None:
        """Whether the whole graph agrees with the network once it is repaired; None where it cannot be run."""
        known = graphs.constants(self.whole)
        if any(name in known and known[name].shape != one.shape for name, one in repair.constants.items()):
            return None  # it was fitted in the smallest graph
        try:
            found = running.unoptimized(repair.applied(self.whole), self.inputs)
        except Exception:  # the repair may use what only the region has
            return None
        pairs = zip(found, recordings.double.outputs, strict=False)
        return all(close(one, recordings.double.array(i), 4 * recordings.tolerance(i)) for one, i in pairs)

    def _oracle(self, case: Case, reference: Runner, *, kernels_agree: bool) -> Oracle:
        oracle = Oracle(
            actual=self.actual,
            reference=reference,
            threshold=0.0,
            non_finite=False,
            kernels_agree=kernels_agree,
            deadline=self.deadline,
            bar=self.bar,
            best=case,
        )
        found = oracle.difference(case)
        oracle.non_finite = found.non_finite > 0
        oracle.threshold = max(min(LARGEST, FRACTION * found.relative), min(LEAST, found.relative / 2))
        return oracle

    def _reduction(self, oracle: Oracle, text: str, complete: bool) -> Reduction:
        """The smallest case, run in every way."""
        case, expected = oracle.best, oracle.expected(oracle.best)
        found = {name: attempt(run, case.graph, case.inputs) for name, run in RUNNERS.items()}
        return Reduction(
            fault="graph",
            graph=case.graph,
            inputs=case.inputs,
            expected=expected,
            oracle=text,
            difference=oracle.difference(case),
            threshold=oracle.threshold,
            by_runtime={name: None if one is None else compare(one, expected) for name, one in found.items()},
            nodes_before=len(self.whole.graph.node),
            checked=oracle.checked,
            complete=complete,
        )

    def _source_of(self, name: str) -> Source | None:
        """Where a value of the whole graph comes from: the first of torch's that equals it, or one behind it."""
        if self.recordings is None or name not in graphs.computed(self.whole):
            return None
        names, tape = [name, *behind(self.whole, name)], self.recordings.double
        values = running.values(self.whole, self.inputs, names)
        equal = (index for one in names if one in values for index in self.recordings.equal(values[one]))
        step = next((tape.step_of(index) for index in equal if index in tape.makers), None)
        return Source.of(step) if step is not None else None


def _agrees(oracle: Oracle, graph: onnx.ModelProto) -> bool:
    """Whether both runtimes compute the same of a graph."""
    found = oracle.difference(Case(graph, oracle.best.inputs, graph))
    return not found.non_finite and found.max_abs is not None and found.relative < oracle.threshold / 4


def _bounded(search: Callable[[], None]) -> bool:
    """Runs a search until it ends, its time is up, or the user interrupts it; whether it ended by itself."""
    try:
        search()
    except Terminated:
        raise
    except (TimeIsUp, KeyboardInterrupt):
        return False
    return True
