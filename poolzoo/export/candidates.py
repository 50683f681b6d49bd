"""Selects the precision to export: every requested one is converted, compared with the network and timed.

int8 may be several times as fast as fp32 or several times as slow, and accuracy hides what it does to single images.
The fastest one within the user's limits is selected. The report says why the others are not.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, cast

import numpy as np
import onnx

from poolzoo.artifacts import schema
from poolzoo.common import output, timing
from poolzoo.common.errors import CheckFailed
from poolzoo.export import graph, precision
from poolzoo.export.source import ExportSource
from poolzoo.parity.check import check_limits
from poolzoo.parity.layers import Layers
from poolzoo.parity.reference import Reference
from poolzoo.parity.report import Accuracies, Limits, ParityReport
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


@dataclass(frozen=True)
class Candidate:
    """A graph that could be exported: its precision, file, session and parity report."""

    precision: str
    file: Path
    model: ort_session.OnnxModel
    parity: ParityReport


@dataclass(frozen=True, kw_only=True)
class CandidateResult:
    """What was found of a candidate.

    Attributes:
        precision: "fp32", "fp16", "int8-static" or "int8-dynamic".
        selected: Whether it is exported.
        passed: Whether it passed its parity check.
        agreement: The fraction of images on which the predicted class agrees with the network's, or the mean Jaccard
            index of the sets of labels.
        accuracy: The accuracies, or mAPs, of network and graph; None where the images have no labels.
        max_abs: The largest difference of an output; None where one is not finite.
        cosine: The least cosine between logits of network and graph; None likewise.
        ort_ms: Median milliseconds by batch size.
        speedup: How many times as fast as fp32, by batch size.
        bytes: The size of the file.
        reason: Why it was not selected; None where it was.
    """

    precision: str
    selected: bool
    passed: bool
    agreement: float
    accuracy: Accuracies | None
    max_abs: float | None
    cosine: float | None
    ort_ms: Mapping[int, float]
    speedup: Mapping[int, float]
    bytes: int
    reason: str | None

    def to_json(self) -> schema.CandidateRow:
        """An entry of `candidates` in `parity.json`."""
        scores: dict[str, float | None] = {"accuracy": None, "accuracy_drop": None}
        if self.accuracy is not None:
            key = self.accuracy.task.score_key
            scores = {key: self.accuracy.onnxruntime, f"{key}_drop": self.accuracy.drop}
        row = {
            "precision": self.precision,
            "chosen": self.selected,
            "passed": self.passed,
            "agreement": self.agreement,
            **scores,
            "max_abs": self.max_abs,
            "cosine": self.cosine,
            "ort_ms": {str(size): value for size, value in self.ort_ms.items()},
            "speedup": {str(size): value for size, value in self.speedup.items()},
            "bytes": self.bytes,
            "lost": self.reason,
        }
        return cast(schema.CandidateRow, row)


def convert_candidates(
    choice: str,
    *,
    fp32: Candidate,
    layers: Layers,
    source: ExportSource,
    input_kind: str,
    reference: Reference,
    limits: Limits,
    open_model: Callable[[Path], ort_session.OnnxModel],
) -> list[Candidate]:
    """Converts the fp32 graph to the lower precisions of a choice and checks each against the limits.

    Args:
        choice: A key of `PRECISIONS`.
        fp32: The graph in fp32.
        layers: Which of the graph's values are which layers'.
        source: The network.
        input_kind: "uint8" or "float".
        reference: What the network answers.
        limits: What lower precision may cost.
        open_model: Opens a file.

    Raises:
        CheckFailed: The only requested precision cannot be made; of several, one is left out with a warning.
    """
    found: list[Candidate] = []
    if "int8-static" in PRECISIONS[choice] and source.image_labels is None:
        output.warn("int8 is calibrated on synthetic images, since the network comes without images")
    for name in PRECISIONS[choice]:
        output.say(f"trying {name}")
        file = fp32.file.with_name(f"{name}.onnx")
        try:
            images = source.calibration
            if name == "fp16":  # values may overflow on synthetic edge cases alone
                images = np.concatenate(
                    [reference.images[: reference.edge_count], images[: precision.FP16_CALIBRATION_IMAGES]]
                )
            value_range = precision.convert(name, fp32.file, file, layers, fp32.model.to_input(images))
            proto = onnx.load(file)
            graph.write_metadata(proto, source, input_kind, name, value_range)
            onnx.save(proto, file)
            model = open_model(file)
            report = replace(check_limits(reference, model, limits), value_range=value_range)
            if name == "fp16":
                report = check_half_arithmetic(report, proto, model, reference, limits)
            found.append(Candidate(name, file, model, report))
        except OSError:
            raise
        except Exception as error:  # ONNX Runtime's converters raise any type
            text = f"{name} cannot be made: {type(error).__name__}: {error}"
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


def measure_candidates(candidates: Sequence[Candidate], images: np.ndarray, batch: int = TIMED_BATCH) -> Times:
    """Times the candidates at batch 1 and at a larger one, interleaved where there are several.

    Args:
        candidates: The candidates.
        images: Images to take batches from, `uint8[N, H, W, 3]`.
        batch: The larger batch size.
    """
    times = {}
    for size in sorted({1, batch}):
        inputs = images[np.arange(size) % len(images)]
        calls: dict[str, Callable[[], object]] = {one.precision: partial(one.model.run, inputs) for one in candidates}
        seconds = 1.0 if len(candidates) == 1 else 3.0
        times[size] = timing.interleaved(calls, seconds, within=timing.NARROW)
    return times


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
    overall = {name: statistics.geometric_mean(ratios.values()) for name, ratios in speedups.items()}
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
                ort_ms={size: round(statistics.median(by[name]), 4) for size, by in times.items()},
                speedup={size: round(ratio, 3) for size, ratio in speedups[name].items()},
                bytes=one.file.stat().st_size,
                reason=None if one is best else _reason(one, best, overall, requested=one in requested),
            )
        )
    return best, results


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
        return one.parity.violations or "it failed parity"
    if best.precision == "fp32" and overall[one.precision] >= 1:
        return f"{overall[one.precision]:.2f} times as fast as fp32, too little to be less exact"
    return f"slower than {best.precision} by a factor of {overall[best.precision] / overall[one.precision]:.2f}"
