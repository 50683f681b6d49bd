"""Selects the precision to export: every requested one is converted, compared with the network and timed.

int8 may be several times as fast as fp32 or several times as slow, and accuracy hides what it does to single images.
The fastest one within the user's limits is selected. The report says why the others are not.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import onnx

from poolzoo.common import output, timing
from poolzoo.common.errors import CheckFailed, reason
from poolzoo.export import graph
from poolzoo.export.precision import convert
from poolzoo.export.precision.candidate import Candidate, CandidateResult
from poolzoo.export.precision.ranges import GraphInputs
from poolzoo.export.source import ExportSource
from poolzoo.parity.check import check_limits
from poolzoo.parity.layers import Layers
from poolzoo.parity.reference import Reference
from poolzoo.parity.report import Limits, ParityReport
from poolzoo.runtime import half_arithmetic, ort_session

# The precisions that each choice of `--precision` tries, beside fp32.
PRECISIONS: Final[dict[str, tuple[str, ...]]] = {
    "fp32": (),
    "fp16": ("fp16",),
    "int8": ("int8-static", "int8-dynamic"),
    "auto": ("fp16", "int8-static", "int8-dynamic"),
}
TIMED_BATCH: Final = 32  # beside 1; smaller for images so large that three graphs would fill the memory
MIN_SPEEDUP: Final = 1.05  # over fp32, or `auto` selects fp32: measurement noise is no reason to be less exact

Times = Mapping[int, Mapping[str, Sequence[float]]]  # milliseconds by batch size and precision


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """Makes candidates in lower precision from a graph in fp32, and checks them against the limits.

    Attributes:
        fp32: The graph in fp32.
        layers: Which of the graph's values are which layers'.
        source: The network.
        input_kind: "uint8" or "float".
        reference: What the network answers.
        limits: What lower precision may cost.
        open_model: Opens a file.
    """

    fp32: Candidate
    layers: Layers
    source: ExportSource
    input_kind: str
    reference: Reference
    limits: Limits
    open_model: Callable[[Path], ort_session.OnnxModel]

    def converter(self, name: str) -> convert.Converter:
        """What converts the graph to a precision."""
        images = self.source.calibration
        if name == "fp16":  # values may overflow on synthetic edge cases alone
            edge, real = self.reference.images[: self.reference.edge_count], images[: convert.FP16_CALIBRATION_IMAGES]
            images = np.concatenate([edge, real])
        inputs = GraphInputs(images, self.fp32.model.to_input)
        return convert.Converter(name, self.fp32.file, self.layers, inputs)

    def make(self, converter: convert.Converter, file: Path, float32: Collection[str] = ()) -> Candidate:
        """Writes a graph and checks it.

        Args:
            converter: One of `converter`.
            file: The file to write.
            float32: Nodes that stay in float32 beside those that always do.

        Raises:
            Exception: Whatever ONNX Runtime's converters raise.
        """
        value_range = converter.convert(file, float32)
        proto = onnx.load(file)
        graph.write_metadata(proto, self.source, self.input_kind, converter.precision, value_range)
        onnx.save(proto, file)
        model = self.open_model(file)
        report = replace(check_limits(self.reference, model, self.limits), value_range=value_range)
        if converter.precision == "fp16":
            report = check_half_arithmetic(report, proto, model, self.reference, self.limits)
        return Candidate(converter.precision, file, model, report)


def convert_candidates(choice: str, conversion: Conversion) -> list[tuple[Candidate, convert.Converter]]:
    """Converts the fp32 graph to the lower precisions of a choice and checks each against the limits.

    Args:
        choice: A key of `PRECISIONS`.
        conversion: Makes candidates.

    Returns:
        The candidates, each with what converted it.

    Raises:
        CheckFailed: The only requested precision cannot be made; of several, one is left out with a warning.
    """
    found: list[tuple[Candidate, convert.Converter]] = []
    if "int8-static" in PRECISIONS[choice] and conversion.source.image_labels is None:
        output.warn("int8 is calibrated on synthetic images, since the network comes without images")
    for name in PRECISIONS[choice]:
        output.say(f"trying {name}")
        try:
            converter = conversion.converter(name)
            found.append((conversion.make(converter, conversion.fp32.file.with_name(f"{name}.onnx")), converter))
        except OSError:
            raise
        except Exception as error:  # ONNX Runtime's converters raise any type
            text = f"{name} cannot be made: {reason(error)}"
            if ort_session.is_out_of_memory(error):
                text = f"{name} cannot be made in this memory, not even from one image at a time"
            if PRECISIONS[choice] == (name,):
                raise CheckFailed(text, "export it with --precision fp32") from error
            output.warn(text, "it is left out")
    if choice != "fp32" and not found:
        raise CheckFailed(f"no {choice} could be made", "export it with --precision fp32")
    return found


def check_half_arithmetic(
    report: ParityReport,
    proto: onnx.ModelProto,
    model: ort_session.OnnxModel,
    reference: Reference,
    limits: Limits,
) -> ParityReport:
    """A report with a check of the graph in float16 arithmetic, which must pass too."""
    images = report.golden["images"]
    rows = half_arithmetic.sample_rows(len(images))
    found = half_arithmetic.logits(proto, model.to_input(images[rows]))
    half = half_arithmetic.check_logits(
        found, reference.float32[0][rows], rows >= reference.edge_count, limits.agreement, reference.decision
    )
    return report.with_half_arithmetic(half)


def measure_candidates(
    candidates: Sequence[Candidate], images: np.ndarray, batch: int = TIMED_BATCH, seconds: float = 3.0
) -> Times:
    """Times the candidates at batch 1 and at a larger one, interleaved where there are several.

    Graphs before a search are timed too, under `LayerSearch.timed_as`.

    Args:
        candidates: The candidates.
        images: Images to take batches from, `uint8[N, H, W, 3]`.
        batch: The larger batch size.
        seconds: How long for each batch size.
    """
    models = {one.precision: one.model for one in candidates}
    models |= {one.search.timed_as: one.search.before.model for one in candidates if one.search is not None}
    times = {}
    for size in sorted({1, batch}):
        inputs = images[np.arange(size) % len(images)]
        calls: dict[str, Callable[[], object]] = {name: partial(model.run, inputs) for name, model in models.items()}
        alone = len(calls) == 1  # there is nothing to choose
        least = timing.FEW_ROUNDS if alone else timing.LEAST_ROUNDS
        longest = min(seconds, 0.1) if alone else seconds
        times[size] = timing.interleaved(calls, longest, within=timing.NARROW, least=least)
    return times


def speeds(candidates: Sequence[Candidate], times: Times) -> dict[str, float]:
    """How many times as fast as fp32 the candidates are: the geometric mean over batch sizes, by precision."""
    return {
        one.precision: statistics.geometric_mean(timing.ratio(by["fp32"], by[one.precision]) for by in times.values())
        for one in candidates
    }


def select(choice: str, candidates: Sequence[Candidate], times: Times) -> tuple[Candidate, list[CandidateResult]]:
    """Selects the fastest requested candidate within the limits; where none is, the fastest of the requested ones.

    Args:
        choice: A key of `PRECISIONS`.
        candidates: The candidates, fp32 first.
        times: What `measure_candidates` found.

    Returns:
        The selected candidate, and the results of all.
    """
    requested = [one for one in candidates if choice in ("fp32", "auto") or one.precision != "fp32"]
    speedups = {
        one.precision: {size: timing.ratio(by["fp32"], by[one.precision]) for size, by in times.items()}
        for one in candidates
    }
    overall = speeds(candidates, times)
    eligible = [one for one in requested if one.parity.passed] or requested
    best = max(eligible, key=lambda one: overall[one.precision])
    if choice == "auto" and overall[best.precision] < MIN_SPEEDUP:
        best = candidates[0]
    results = []
    for one in candidates:
        outputs, name = one.parity.outputs, one.precision
        results.append(
            CandidateResult(
                precision=name,
                selected=one is best,
                passed=one.parity.passed,
                agreement=outputs.top1_agreement,
                accuracy=outputs.accuracy,
                max_abs=outputs.max_abs,
                cosine=outputs.cosine,
                ort_ms=_medians(times, name),
                speedup={size: round(ratio, 3) for size, ratio in speedups[name].items()},
                bytes=one.bytes,
                reason=None if one is best else _reason(one, best, overall, requested=one in requested),
                search=one.search,
                search_ms={} if one.search is None else _medians(times, one.search.timed_as),
            )
        )
    return best, results


def _medians(times: Times, name: str) -> dict[int, float]:
    return {size: round(statistics.median(by[name]), 4) for size, by in times.items()}


def report_selection(choice: str, results: Sequence[CandidateResult]) -> None:
    """Warns where the selected one is slower than fp32, or is not the first form of the requested precision."""
    selected = next(one for one in results if one.selected)
    forms = PRECISIONS[choice]
    if choice in ("fp32", "auto") or selected.precision not in forms:
        return
    speed = " and ".join(f"{ratio:.2f} times at batch {size}" for size, ratio in selected.speedup.items())
    if selected.precision != forms[0]:
        why = next((one.reason for one in results if one.precision == forms[0]), "which cannot be made")
        output.warn(
            f"{selected.precision} is exported instead of {forms[0]} ({why}); its speed is {speed} that of fp32"
        )
    elif statistics.geometric_mean(selected.speedup.values()) < 1:
        output.warn(f"{selected.precision} is slower than fp32 here: its speed is {speed} that of fp32")


def _reason(one: Candidate, best: Candidate, overall: Mapping[str, float], *, requested: bool) -> str:
    """Why a candidate was not selected."""
    if not requested:
        return "not requested"
    if not one.parity.passed:
        why = one.parity.violations or "it failed parity"
        return f"{why}; {one.remark}" if one.remark else why
    if best.precision == "fp32" and overall[one.precision] >= 1:
        return f"{overall[one.precision]:.2f} times as fast as fp32, too little to be less exact"
    return f"slower than {best.precision} by a factor of {overall[best.precision] / overall[one.precision]:.2f}"
