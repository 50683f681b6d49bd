"""From a parity check that failed to the graph, input and module that show it, and to their reduction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import onnxruntime
from torch import Tensor, nn

from poolzoo.common import output
from poolzoo.common.errors import PoolzooError, reason
from poolzoo.parity import check, probes
from poolzoo.parity.layers import Layers
from poolzoo.parity.reduction import folder, running
from poolzoo.parity.reduction.lowered import reduce_lowered
from poolzoo.parity.reduction.reduce import BUDGET, NothingToReduce, reduce_failure
from poolzoo.parity.reduction.result import Reduction
from poolzoo.parity.reduction.running import Arrays
from poolzoo.parity.reference import Reference
from poolzoo.parity.report import ParityReport
from poolzoo.runtime import half_arithmetic, ort_session
from poolzoo.runtime.ort_session import OnnxModel

LOWERED_IMAGES: Final = 4  # on which nodes in int8 are compared


@dataclass(frozen=True)
class Failure:
    """A graph, an input of it that shows a difference, and what it should compute."""

    title: str
    graph: onnx.ModelProto
    inputs: Arrays
    network: nn.Module


def debug(
    report: ParityReport,
    reference: Reference,
    file: Path,
    layers: Layers,
    graph: OnnxModel,
    place: Path,
    *,
    budget: float = BUDGET,
) -> Reduction | None:
    """Reduces what a parity check found to a folder with the smallest graph and input that still show it.

    Args:
        report: The check that failed.
        reference: The network and its images.
        file: The graph.
        layers: Which of the graph's values are which layers'.
        graph: The graph, opened.
        place: The folder, which must not exist.
        budget: Seconds for the search.

    Returns:
        What was written; None where nothing that failed shows it by itself. A line says so then.
    """
    proto = onnx.load(file)

    def actual(part: onnx.ModelProto, inputs: Arrays) -> list[np.ndarray]:
        opened = running.session(part, optimized=True, provider=graph.provider)
        wanted = {one.name for one in opened.get_inputs()}
        return [np.asarray(one) for one in opened.run(None, {key: inputs[key] for key in inputs if key in wanted})]

    for failure in _failures(report, reference, proto, layers, graph):
        output.say(f"reducing the failure on {failure.title}, for at most {budget:.0f} s; Ctrl-C keeps the smallest")
        try:
            found = reduce_failure(
                failure.graph,
                failure.inputs,
                failure.network,
                actual=running.optimized if graph.provider == ort_session.PROVIDERS["cpu"] else actual,
                layers=layers.within(proto).outputs,
                budget=budget,
            )
            folder.write(found, place)
        except NothingToReduce:
            continue
        except Exception as error:  # whatever a network or a runtime raises must not hide that parity failed
            output.warn(f"the failure on {failure.title} is not reduced: {reason(error)}")
            continue
        output.say(f"{place}: {folder.title(found)}")
        return found
    output.warn("nothing that failed shows the difference by itself", "see parity in --json")
    return None


def debug_lowered(
    precision: str,
    exact: Path,
    lowered: Path,
    reference: Reference,
    layers: Layers,
    graph: OnnxModel,
    place: Path,
    *,
    budget: float = BUDGET,
) -> Reduction | None:
    """Writes the node whose lowering alone moves the logits most to a folder, with a small input that shows it.

    Args:
        precision: "fp16", "int8-static" or "int8-dynamic".
        exact: The graph in float32.
        lowered: The graph in that precision, which exceeds the limits.
        reference: The network and its images.
        layers: Which of the graph's values are which layers'.
        graph: The lowered graph, opened.
        place: The folder, which must not exist.
        budget: Seconds for the search.

    Returns:
        What was written; None where no node does harm by itself. A line says so then.
    """
    protos = [onnx.load(exact), onnx.load(lowered)]
    paths = {
        value: path
        for path in sorted(layers.inside, key=lambda path: path.count("."))  # the innermost last
        for value in layers.inside[path]
    }
    try:
        rows = _furthest(precision, protos[1], reference, graph)
        names = ", ".join(reference.names[row] for row in rows)
        output.say(f"looking for what {precision} loses on {names}, for at most {budget:.0f} s")
        inputs = {"images": graph.to_input(reference.images[rows])}
        found = reduce_lowered(protos[0], protos[1], inputs, precision, paths=paths, budget=budget)
        folder.write(found, place)
    except NothingToReduce:
        output.warn(f"no node moves the logits where it alone is in {precision}", "see parity in --json")
        return None
    except Exception as error:  # whatever a runtime raises must not hide that the limits were exceeded
        output.warn(f"what {precision} loses is not reduced: {reason(error)}")
        return None
    output.say(f"{place}: {folder.title(found)}")
    return found


def _furthest(precision: str, lowered: onnx.ModelProto, reference: Reference, graph: OnnxModel) -> np.ndarray:
    """The images whose labels and logits differ most from the network's: one in half arithmetic, which is slow."""
    rows = np.arange(len(reference.images))
    if precision == "fp16":
        rows = half_arithmetic.sample_rows(len(rows))
        found = half_arithmetic.logits(lowered, graph.to_input(reference.images[rows]))
    else:
        found, _ = ort_session.run_in_batches(graph, reference.images)
    expected = reference.float32[0][rows]
    finite = np.isfinite(found).all(1)
    lost = np.where(finite, 1 - reference.decision.agreement(found, expected), 2.0)
    with np.errstate(invalid="ignore"):
        distance = np.where(finite, np.abs(found - expected).max(1), np.inf)
    order = np.lexsort((-distance, -lost))
    return rows[order[: 1 if precision == "fp16" else LOWERED_IMAGES]]


def _failures(
    report: ParityReport, reference: Reference, proto: onnx.ModelProto, layers: Layers, graph: OnnxModel
) -> Iterator[Failure]:
    """What failed, images first: the one furthest beyond its tolerance, at the smallest batch that shows it."""
    if report.noise is not None:
        for size, worst in sorted(report.noise.worst_by_batch.items()):
            if worst.ratio is None or worst.ratio > 1:
                row = reference.names.index(worst.input)
                rows = _smallest_batch(reference, graph, row, size)
                title = f"{worst.input} in a batch of {len(rows)}"
                yield Failure(title, proto, {"images": graph.to_input(reference.images[rows])}, reference.model)
    height, width = reference.images.shape[1:3]
    for probe in report.probes or ():
        if not probe.passed:
            part, part_graph = probes.find_part(
                reference.model, proto, layers, (height, width), _opener(graph), probe.part
            )
            x = part.probes()[probe.probe]
            inputs = {part.session.get_inputs()[0].name: x}
            if part.image is not None:
                inputs["images"] = np.repeat(part.image, len(x), 0)
            yield Failure(f"{probe.part} with {probe.probe}", part_graph, inputs, _First(part.module))


def _opener(graph: OnnxModel) -> probes.OpenPart:
    def open_part(content: bytes) -> onnxruntime.InferenceSession:
        return ort_session.open_session(content, graph.provider, 1)

    return open_part


def _smallest_batch(reference: Reference, graph: OnnxModel, row: int, size: int) -> np.ndarray:
    """The rows of a batch that shows the difference at one of its images, as few as halving and leaving out give."""
    batches = check.batches_of(reference, size)
    rows = next((batch for batch in batches if row in batch), np.array([row]))

    def shows(some: np.ndarray) -> bool:
        try:
            outputs = graph.run(reference.images[some])
        except PoolzooError:
            return False
        distances = [np.abs(one - other[some]).max(1) for one, other in zip(outputs, reference.expected, strict=True)]
        return bool((~(np.maximum(*distances) <= reference.allowed[some])).any())

    count = len(rows)
    while count > 1:
        count = (count + 1) // 2 if count > 2 else 1
        near = np.concatenate([[row], rows[rows != row]])[:count]
        if not shows(near):
            break
        rows = near
    return rows


class _First(nn.Module):
    """A module that takes what it needs of a graph's inputs; the others give the size of the batch."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        found: Tensor = self.module(x)
        return found
