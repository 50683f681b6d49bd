"""What a comparison of a graph with its network found: the content of `parity.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Literal, cast

import numpy as np

from poolzoo.artifacts import schema
from poolzoo.metrics.tasks import CLASSIFICATION, TASKS, Task
from poolzoo.parity.photographs import PhotoCheck
from poolzoo.runtime.half_arithmetic import HalfCheck


@dataclass(frozen=True)
class Limits:
    """What a graph in lower precision may lose on the images.

    Attributes:
        agreement: The least fraction of images on which the predicted class must agree, 0–1; with several labels, the
            least mean Jaccard index of the sets of labels.
        accuracy_drop: The largest loss of accuracy, or of mAP, 0–1.
    """

    agreement: float = 0.99
    accuracy_drop: float = 0.005

    def to_json(self) -> dict[str, float]:
        """`limits` in `parity.json`."""
        return {"agreement": self.agreement, "accuracy_drop": self.accuracy_drop}


@dataclass(frozen=True, kw_only=True)
class Extreme:
    """The input closest to its limit.

    Attributes:
        input: Its name.
        max_abs: Its largest difference; None where an output is not finite.
        allowed: Its tolerance.
        ratio: The difference divided by the tolerance; None where it is infinite.
    """

    input: str
    max_abs: float | None
    allowed: float
    ratio: float | None

    def to_json(self) -> schema.Extreme:
        """`worst` in `parity.json`."""
        return cast(schema.Extreme, asdict(self))


@dataclass(frozen=True)
class Flip:
    """An image on which the prediction differs.

    `margin` is the gap between the network's two largest logits, or the least distance of a logit to its threshold.
    """

    input: str
    margin: float


@dataclass(frozen=True)
class Accuracies:
    """The accuracy, or mAP, of the network in torch and of the graph in ONNX Runtime on the same images, 0–1."""

    torch: float
    onnxruntime: float
    task: Task = TASKS[CLASSIFICATION]

    @property
    def drop(self) -> float:
        """How much the graph loses."""
        return self.torch - self.onnxruntime

    def to_json(self) -> dict[str, dict[str, float]]:
        """`accuracy`, or `map`, in `parity.json`."""
        return {self.task.score_key: {"torch": self.torch, "onnxruntime": self.onnxruntime}}


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """A part of the graph against its module on one extreme input.

    Attributes:
        part: The module's path, or "core" for the whole network.
        probe: The input's name.
        max_abs: The largest difference where both are finite; None where it is infinite.
        allowed: The tolerance; None for inputs with NaN or infinity, where the places of NaN are compared.
        passed: Whether the part passed.
        note: What was found, in words.
    """

    part: str
    probe: str
    max_abs: float | None
    allowed: float | None
    passed: bool
    note: str

    def to_json(self) -> schema.Probe:
        """An entry of `probes` in `parity.json`."""
        return cast(schema.Probe, asdict(self))


@dataclass(frozen=True, kw_only=True)
class LayerDifference:
    """The first layer whose output differs.

    Attributes:
        layer: The module's path.
        max_abs: The largest difference; None where it is not finite.
        allowed: The tolerance.
        largest: The largest magnitude of the layer's output in torch.
    """

    layer: str
    max_abs: float | None
    allowed: float
    largest: float

    def to_json(self) -> schema.LayerDifference:
        """`diverges` in `parity.json`."""
        return cast(schema.LayerDifference, asdict(self))


@dataclass(frozen=True, kw_only=True)
class OutputStatistics:
    """How the outputs of a graph and its network compare on all images.

    Attributes:
        max_abs: The largest difference of a logit or probability; None where an output is not finite. So in the others.
        relative: The same as a fraction of the largest logit.
        cosine: The least cosine between the logits of graph and network on an image.
        noise_floor: The largest difference between the network in float32 and in float64.
        reference: The precision of the reference, "float64" or "float32".
        largest_logit: The largest magnitude of a logit.
        top1_agreement: The fraction of images on which the predicted class agrees, or the mean Jaccard index of sets.
        flips: The first twenty on which it does not.
        max_abs_by_batch: The largest difference by batch size.
        max_abs_by_edge: The largest difference by synthetic edge case.
        finite: Whether all outputs are.
        images: What the images are, "test" or "synthetic".
        n: How many there are, without the synthetic edge cases.
        provider: ONNX Runtime's execution provider.
        accuracy: None where the images have no labels.
    """

    max_abs: float | None
    relative: float | None
    cosine: float | None
    noise_floor: float
    reference: str
    largest_logit: float
    top1_agreement: float
    flips: tuple[Flip, ...]
    max_abs_by_batch: Mapping[int, float | None]
    max_abs_by_edge: Mapping[str, float | None]
    finite: bool
    images: str
    n: int
    provider: str
    accuracy: Accuracies | None = None

    @property
    def batches(self) -> tuple[int, ...]:
        """The batch sizes, ascending."""
        return tuple(sorted(self.max_abs_by_batch))


@dataclass(frozen=True, kw_only=True)
class NoiseFloorCheck:
    """What the float32 gate compared: each image's difference with a multiple of the network's rounding noise.

    Attributes:
        allowed_on_images: The largest tolerance of an image that is no edge case.
        rechecked: Images that were checked again with noise floors of their own.
        worst: The image closest to its limit, at any batch size.
        worst_by_batch: The same by batch size.
        allowed_by_edge: The tolerance by synthetic edge case.
    """

    allowed_on_images: float
    rechecked: tuple[str, ...]
    worst: Extreme
    worst_by_batch: Mapping[int, Extreme]
    allowed_by_edge: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class LimitsCheck:
    """What the gate of lower precisions compared: `violations` says in words which limits were exceeded."""

    limits: Limits
    violations: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class ParityReport:
    """Whether a graph computes what its network computes.

    Attributes:
        passed: Whether it does.
        tolerance: The tolerance of the image with the largest difference; with limits, that difference.
        outputs: The statistics of all outputs.
        noise: The check against the noise floor; None where limits were checked.
        limits: The check against limits; None where the noise floor was.
        probes: The checks of the graph's parts; None where they were not made.
        first_difference: The first layer that differs, where the graph failed and one was found.
        located: Whether it was searched for.
        value_range: The largest magnitude inside a graph in lower precision.
        half: The check of a graph in fp16 in float16 arithmetic.
        photographs: The check of a graph that takes photographs, against Pillow's resize.
        fp32: The report on the graph in fp32 that this one was converted from.
        golden: The arrays of `golden.npz`: `images`, `logits`, `probabilities`, `allowed`.
        logits: The graph's logits of all images without the edge cases, `float32[N, classes]`.
    """

    passed: bool
    tolerance: float | None
    outputs: OutputStatistics
    noise: NoiseFloorCheck | None = None
    limits: LimitsCheck | None = None
    probes: tuple[ProbeResult, ...] | None = None
    first_difference: LayerDifference | None = None
    located: bool = False
    value_range: schema.ValueRange | None = None
    half: HalfCheck | None = None
    photographs: PhotoCheck | None = None
    fp32: ParityReport | None = None
    golden: Mapping[str, np.ndarray]
    logits: np.ndarray

    @property
    def gate(self) -> Literal["noise", "limits"]:
        """Which check decides."""
        return "noise" if self.noise is not None else "limits"

    @property
    def violations(self) -> str | None:
        """Why it failed its limits, in words; None where it did not."""
        texts = self.limits.violations if self.limits is not None else ()
        if self.half is not None and not self.half.passed:
            texts = (*texts, self.half.describe())
        return "; ".join(texts) or None

    def with_half_arithmetic(self, half: HalfCheck) -> ParityReport:
        """The report with a check in float16 arithmetic, which must pass too."""
        return replace(self, half=half, passed=self.passed and half.passed)

    def with_photographs(self, check: PhotoCheck, golden: Mapping[str, np.ndarray]) -> ParityReport:
        """The report with a check on photographs, which must pass too, and with their arrays for `golden.npz`."""
        together = {**self.golden, **golden}
        return replace(self, photographs=check, golden=together, passed=self.passed and check.passed)

    def describe_failure(self) -> str:
        """Where and by how much the graph fails, in one line."""
        if self.photographs is not None and not self.photographs.passed:
            return f"parity failed: {self.photographs.describe()}"
        if self.noise is None:
            return f"parity failed: {self.violations}"
        worst = self.noise.worst
        probe = next((one for one in self.probes or () if not one.passed), None)
        if not self.outputs.finite or worst.max_abs is None:
            text = f"the graph gives NaN or infinity, first on {worst.input}"
        elif worst.max_abs > worst.allowed or probe is None:
            text = f"{worst.max_abs:.2e} on {worst.input}, where {worst.allowed:.2e} is allowed"
            text += f"; agreement {self.outputs.top1_agreement:.4f}"
        else:
            text = f"{probe.part} on {probe.probe}: {probe.note}"
        if self.first_difference is not None:
            text += f"; the first layer that differs is {self.first_difference.layer}"
        return f"parity failed: {text}"

    def to_json(self) -> schema.Parity:
        """The content of `parity.json`; keys of checks that were not made are absent."""
        outputs = self.outputs
        found: dict[str, object] = {"passed": self.passed, "gate": self.gate}
        if self.limits is not None:
            found |= {"limits": self.limits.limits.to_json(), "lost": self.violations}
        found["tolerance"] = self.tolerance
        if self.noise is not None:
            noise = self.noise
            found |= {
                "allowed_on_images": noise.allowed_on_images,
                "looked_at_again": list(noise.rechecked),
                "worst": noise.worst.to_json(),
                "worst_by_batch": {str(size): one.to_json() for size, one in noise.worst_by_batch.items()},
                "allowed_by_edge": dict(noise.allowed_by_edge),
            }
        found |= {
            "max_abs": outputs.max_abs,
            "relative": outputs.relative,
            "cosine": outputs.cosine,
            "noise_floor": outputs.noise_floor,
            "reference": outputs.reference,
            "largest_logit": outputs.largest_logit,
            "top1_agreement": outputs.top1_agreement,
            "flips": [asdict(flip) for flip in outputs.flips],
            "batches": list(outputs.batches),
            "max_abs_by_batch": {str(size): value for size, value in outputs.max_abs_by_batch.items()},
            "max_abs_by_edge": dict(outputs.max_abs_by_edge),
            "finite": outputs.finite,
            "images": outputs.images,
            "n": outputs.n,
            "provider": outputs.provider,
            "optimization": "all",
        }
        if outputs.accuracy is not None:
            found |= outputs.accuracy.to_json()
        if self.probes is not None:
            found["probes"] = [probe.to_json() for probe in self.probes]
        if self.located:
            found["diverges"] = self.first_difference.to_json() if self.first_difference else None
        if self.value_range is not None:
            found["inside"] = self.value_range
        if self.half is not None:
            found["half"] = self.half.to_json()
        if self.photographs is not None:
            found["photographs"] = self.photographs.to_json()
        if self.fp32 is not None:
            found["fp32"] = self.fp32.to_json()
        return cast(schema.Parity, found)
