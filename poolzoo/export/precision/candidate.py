"""A graph that could be exported, and what was found of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from poolzoo.artifacts import schema
from poolzoo.export.precision.layer_harm import LayerHarm
from poolzoo.export.precision.layer_times import LayerTimes
from poolzoo.parity.report import Accuracies, ParityReport
from poolzoo.runtime import ort_session


@dataclass(frozen=True)
class Candidate:
    """A graph that could be exported.

    Attributes:
        precision: "fp32", "fp16", "int8-static" or "int8-dynamic".
        file: The file.
        model: The file, opened.
        parity: Its parity report.
        search: The search for layers that stay in float32; None where there was none.
        remark: Why there was none, or why it failed, in words; None where neither is so.
    """

    precision: str
    file: Path
    model: ort_session.OnnxModel
    parity: ParityReport
    search: LayerSearch | None = None
    remark: str | None = None

    @property
    def bytes(self) -> int:
        """The size of the file."""
        return self.file.stat().st_size


@dataclass(frozen=True, kw_only=True)
class LayerSearch:
    """A search for what lets a graph keep the limits: corrected biases, and layers that stay in float32.

    Attributes:
        before: The graph without both.
        before_bytes: The size of its file.
        corrected: Whether the biases of quantized layers are corrected.
        layers: The layers that stay in float32, the most harmful one first; empty where corrected biases suffice.
        total: How many layers lower precision rounds without the search.
        tried: How many graphs were made and checked.
        seconds: How long it took.
        times: What the layers in float32 cost in time; None where that was not measured.
    """

    before: Candidate
    before_bytes: int
    corrected: bool
    layers: tuple[LayerHarm, ...]
    total: int
    tried: int
    seconds: float
    times: LayerTimes | None = None

    @property
    def timed_as(self) -> str:
        """The name under which the graph before the search is timed."""
        return f"{self.before.precision}, before"

    def to_json(self, ort_ms: Mapping[int, float]) -> schema.PrecisionSearch:
        """`search` of a candidate in `parity.json`.

        Args:
            ort_ms: Median milliseconds of `before` by batch size.
        """
        outputs, times = self.before.parity.outputs, self.times
        found: schema.PrecisionSearch = {
            "before": {
                "agreement": outputs.top1_agreement,
                "accuracy": None if outputs.accuracy is None else outputs.accuracy.onnxruntime,
                "ort_ms": {str(size): value for size, value in ort_ms.items()},
                "bytes": self.before_bytes,
            },
            "corrected_biases": self.corrected,
            "layers": [one.to_json() for one in self.layers],
            "of": self.total,
            "tried": self.tried,
            "seconds": round(self.seconds, 1),
        }
        if times is not None:
            found["kernels"] = times.to_json()
            for row in found["layers"]:
                row["kernels"] = times.layer_to_json(row["layer"])
        return found


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
        search: The search for layers that stay in float32; None where there was none.
        search_ms: Median milliseconds by batch size of the graph before the search; empty where there was none.
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
    search: LayerSearch | None = None
    search_ms: Mapping[int, float] = field(default_factory=dict)

    def to_json(self) -> schema.CandidateRow:
        """An entry of `candidates` in `parity.json`."""
        scores: dict[str, float | None] = {"accuracy": None, "accuracy_drop": None}
        if self.accuracy is not None:
            key = self.accuracy.task.score_key
            scores = {key: self.accuracy.onnxruntime, f"{key}_drop": self.accuracy.drop}
        row: dict[str, object] = {
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
        if self.search is not None:
            row["search"] = self.search.to_json(self.search_ms)
        return cast(schema.CandidateRow, row)
