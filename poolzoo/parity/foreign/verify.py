"""Compares an ONNX file with a torch module, both from elsewhere, as `export` compares a graph with its network."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
import torch

from poolzoo.common import files, output
from poolzoo.data.sizes import Size
from poolzoo.parity import check, probes
from poolzoo.parity.foreign import debugging
from poolzoo.parity.foreign import images as image_source
from poolzoo.parity.foreign import model as models
from poolzoo.parity.foreign import module as modules
from poolzoo.parity.foreign.causes import Cause, Map, Side, find_cause
from poolzoo.parity.foreign.last_agreement import LastAgreement, find_last_agreement
from poolzoo.parity.foreign.model import ForeignModel
from poolzoo.parity.foreign.report import AgainstReport
from poolzoo.parity.reference import Reference
from poolzoo.parity.report import Limits, ParityReport, ProbeResult
from poolzoo.runtime import half_arithmetic, ort_session
from poolzoo.runtime.foreign import bundle, classifier
from poolzoo.runtime.foreign.canonical import LEAST, canonical, raw
from poolzoo.runtime.foreign.classifier import Classifier, FileOutput
from poolzoo.runtime.foreign.scaling import Scaling
from poolzoo.runtime.half_arithmetic import HalfCheck
from poolzoo.runtime.ort_session import OnnxModel
from poolzoo.runtime.runtimes import RuntimesReport, check_runtimes, select

CPU: Final = ort_session.PROVIDERS["cpu"]
CAUSE_IMAGES: Final = 32  # on which what a change gives is measured


@dataclass(frozen=True, kw_only=True)
class AgainstOptions:
    """How a file is compared.

    Attributes:
        output: The file's output that holds the scores; None for the one that is clear.
        size: Height and width of images where the file takes any; None for the module's own, or 224 × 224.
        images: A folder of images, or an image; None for photographs that scikit-learn ships.
        scaling: What floats are scaled to; None for what a module of timm states, or 0–1.
        runtimes: Names of runtimes in which the file is checked too, or "all".
        precision: Arithmetic of these, "fp32" or "auto".
        threads: Threads to compute with; None for ONNX Runtime's own choice.
        timeout: Seconds that a runtime may take for each step; None for the default.
        measure_speed: Whether to time the runtimes that agree.
        arithmetics: Types, "fp16" or "bf16", in which a file in fp32 shall agree too, but for rounding.
        debug: A directory, which must not exist, for the smallest graph and input that show a difference; None for
            none. Where a known mistake in the input explains it, there is nothing to reduce.
    """

    output: str | None = None
    size: Size | None = None
    images: Path | None = None
    scaling: Scaling | None = None
    runtimes: Sequence[str] = ()
    precision: str = "fp32"
    threads: int | None = None
    timeout: float | None = None
    measure_speed: bool = True
    arithmetics: Sequence[str] = ()
    debug: Path | None = None


@dataclass(frozen=True, eq=False)
class _Pair:
    """A file and a module that take the same images and give as many classes."""

    file: Classifier
    scores: FileOutput
    model: ForeignModel

    @property
    def scaling(self) -> Scaling:
        return self.model.takes.scaling

    def in_float(self, images: np.ndarray) -> np.ndarray:
        """Images `uint8[N, H, W, 3]` in 0–1, as `float32[N, C, H, W]` of the file's channels."""
        channels = self.file.given.channels
        return np.ascontiguousarray(images[..., :channels].transpose(0, 3, 1, 2), np.float32) / np.float32(255)


def verify_against(path: Path, reference: str, options: AgainstOptions | None = None) -> AgainstReport:
    """Compares a file with the module that a function returns.

    Args:
        path: The ONNX file.
        reference: "MODULE:FUNCTION", where MODULE may be the path of a Python file.
        options: How; None for the defaults.

    Raises:
        UsageError: The file is no image classifier, or the reference names nothing.
        CheckFailed: The file is damaged, the module cannot be built or run, or both have other classes.
        EnvironmentProblem: The file is too new, or a runtime that is named is not installed.
    """
    options = options or AgainstOptions()
    select(options.runtimes)  # a name that does not exist fails before the work
    if options.debug is not None:
        files.require_free(options.debug)
    file = classifier.inspect(path, options.size)
    output.detail("loading torch")
    module = modules.load(reference)
    size = models.published_size(module)
    if options.size is None and size is not None and size != file.given.size and _takes_any_size(file):
        file = classifier.inspect(path, size)
    scaling = options.scaling or models.published_scaling(module) or Scaling()
    model = models.make_model(reference, module, file.given, scaling)
    models.require_deterministic(reference, model, file.given.size)
    classes = models.classes_of(model, file.given.size)
    scores = file.output(options.output, classes)
    models.check_classes(path, reference, scores.classes, classes)
    if scores.is_probabilities or model.gives_probabilities:
        model.scores = "probabilities"
    pair = _Pair(file, scores, model)
    names, pixels = image_source.gather(options.images, file.given.size)
    graph = canonical(file, scores, model.scores, scaling)
    output.say("computing the module's own outputs")
    expected = Reference.compute(model, pixels, None)
    expected = replace(expected, names=[*expected.names[: expected.edge_count], *names])
    output.say("checking parity")
    with tempfile.TemporaryDirectory(prefix="poolzoo-") as work:
        place = Path(work) / "model.onnx"
        onnx.save(graph, place)
        opened = ort_session.open_model(place, "cpu", options.threads)
        parity = _check(pair, expected, opened, graph)
    rounded = _in_arithmetics(expected, opened, graph, options.arithmetics) if parity.passed else ()
    natural = len(pixels) - image_source.SYNTHETIC
    kind = "natural and synthetic" if natural else "synthetic"
    parity = replace(parity, outputs=replace(parity.outputs, images=kind))
    cause, last = (None, None) if parity.passed else _explain(pair, expected, graph, opened)
    reduced = False
    if options.debug is not None and not parity.passed:
        reduced = _reduce(pair, expected, opened, parity, cause, options.debug)
    runtimes = _runtimes(graph, parity, options) if parity.passed and options.runtimes else None
    return AgainstReport(
        file=str(path),
        module=reference,
        takes=(f"{file.given.describe()}, {scores.describe()}", model.takes.describe()),
        opset=file.opset,
        precision=file.precision,
        parity=parity,
        natural=natural,
        cause=cause,
        last_agreement=last,
        runtimes=runtimes,
        rounded=rounded,
        remarks=_remarks(pair, parity),
        reduction=str(options.debug) if reduced else None,
    )


def _takes_any_size(file: Classifier) -> bool:
    """Whether a file states neither height nor width."""
    sides = file.proto.graph.input[0].type.tensor_type.shape.dim
    at = (2, 3) if file.given.layout == "NCHW" else (1, 2)
    return not sides or all(sides[index].dim_value <= 0 for index in at)


def _check(pair: _Pair, expected: Reference, opened: OnnxModel, graph: onnx.ModelProto) -> ParityReport:
    """All outputs against the module's; of a file in lower precision, against limits, and in half arithmetic."""
    if pair.file.precision == "fp32":
        parity = check.check_outputs(expected, opened)
        found = _probe(pair)
        return replace(parity, probes=found, passed=parity.passed and all(one.passed for one in found or ()))
    parity = check.check_limits(expected, opened, Limits())
    if pair.file.precision != "fp16":
        return parity
    rows = _half_rows(expected)
    try:
        logits = half_arithmetic.logits(graph, opened.to_input(expected.images[rows]))
    except Exception as error:  # whatever onnx raises for an operator that its reference does not have
        output.warn(f"it is not checked in half arithmetic: {error}")
        return parity
    half = half_arithmetic.check_logits(
        logits, expected.float32[0][rows], rows >= expected.edge_count, Limits().agreement
    )
    return parity.with_half_arithmetic(half)


def _half_rows(expected: Reference) -> np.ndarray:
    """The images that are run in half arithmetic: edge cases and natural images first."""
    return half_arithmetic.sample_rows(min(len(expected.images), 2 * expected.edge_count))


def _in_arithmetics(
    expected: Reference, opened: OnnxModel, graph: onnx.ModelProto, names: Sequence[str]
) -> tuple[HalfCheck, ...]:
    """What a file in fp32 gives in arithmetic of 16 bits."""
    rows = _half_rows(expected)
    inputs = opened.to_input(expected.images[rows])
    wanted, regular = expected.float32[0][rows], rows >= expected.edge_count
    return tuple(
        half_arithmetic.check_rounded(graph, inputs, name, wanted, regular, Limits().agreement) for name in names
    )


def _probe(pair: _Pair) -> tuple[ProbeResult, ...] | None:
    """The module and the file on extreme inputs; None where a file takes uint8, which holds none."""
    given = pair.file.given
    takes = pair.model.takes
    if given.dtype != "float32" or takes.dtype != "float32" or takes.layout != "NCHW":
        return None
    if pair.scores.is_probabilities != pair.model.gives_probabilities or given.channels != takes.channels:
        return None
    proto = raw(pair.file, pair.scores)
    part = probes.Part(
        name="core",
        module=models.Core(pair.model.network),
        session=_Pieces(ort_session.open_session(proto.SerializeToString(), CPU), given.batch),
        shape=(given.channels, *given.size),
        image=None,
        loses_nan=any(node.op_type in probes.LOSES_NAN for node in proto.graph.node),
    )
    return tuple(probes.check_inputs(part, probes.core_probes(part.shape)))


class _Pieces:
    """A session that takes a fixed batch, as one that takes any."""

    def __init__(self, session: onnxruntime.InferenceSession, batch: int | None) -> None:
        self._session = session
        self._batch = batch

    def get_inputs(self) -> Any:
        return self._session.get_inputs()

    def run(self, outputs: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        (x,) = inputs.values()
        return classifier.run_in_pieces(self._session, x, self._batch)


def _explain(
    pair: _Pair, expected: Reference, graph: onnx.ModelProto, opened: OnnxModel
) -> tuple[Cause | None, LastAgreement | None]:
    """Why a file differs: a known mistake in its input, or else the layer from which on it differs."""
    output.say("looking for the cause")
    given, model = pair.file.given, pair.model
    session = ort_session.open_session(raw(pair.file, pair.scores).SerializeToString(), CPU)

    def run_file(numbers: np.ndarray) -> np.ndarray:
        (found,) = classifier.run_in_pieces(session, numbers, given.batch)
        return _comparable(torch.from_numpy(found), model, of_probabilities=pair.scores.is_probabilities)

    def run_module(numbers: np.ndarray) -> np.ndarray:
        x = numbers.astype(model.takes.dtype)
        if model.takes.layout == "NHWC":
            x = x.transpose(0, 2, 3, 1)
        with torch.inference_mode():
            found = models.scores_of(model.network(torch.from_numpy(np.ascontiguousarray(x))))
        return _comparable(found, model, of_probabilities=model.gives_probabilities)

    regular = expected.images[expected.regular]
    rows = np.unique(np.linspace(0, len(regular) - 1, CAUSE_IMAGES).round().astype(int))
    cause = find_cause(
        pair.in_float(regular[rows]),
        file=_side(run_file, given.dtype, pair.scaling),
        module=_side(run_module, model.takes.dtype, pair.scaling),
        scaling=pair.scaling,
    )
    if cause is not None and cause.agrees:
        return cause, None
    worst = _worst(expected, opened)[0]
    image = expected.images[worst : worst + 1]
    with torch.inference_mode():
        x = model.prepare(torch.from_numpy(image))
    last = find_last_agreement(model.network, x, graph, opened.to_input(image), given.batch)
    return cause, last


def _worst(expected: Reference, opened: OnnxModel) -> np.ndarray:
    """The rows of the images, the one furthest beyond its tolerance first."""
    return np.argsort(-check.measure(expected, opened).worst / expected.allowed, kind="stable")


def _reduce(
    pair: _Pair, expected: Reference, opened: OnnxModel, parity: ParityReport, cause: Cause | None, place: Path
) -> bool:
    """Writes the smallest graph and input that show a difference; returns whether there is one to write."""
    if cause is not None and cause.agrees:
        output.warn(
            f"{place} is not written: {cause.change}, which is no fault of the graph", "change what it is given"
        )
        return False
    if pair.file.precision != "fp32":
        output.warn(f"{place} is not written: every value of a file in {pair.file.precision} differs", "debug float32")
        return False
    given = pair.file.given
    images = pair.in_float(expected.images[_worst(expected, opened)])
    return debugging.reduce(
        graph=raw(pair.file, pair.scores),
        model=pair.model,
        given=given,
        scores=pair.scores,
        parity=parity,
        numbers=_levels(images).astype(np.float32) if given.dtype == "uint8" else pair.scaling.apply(images),
        place=place,
    )


def _side(run: Map, dtype: str, scaling: Scaling) -> Side:
    return Side(run, _levels, False) if dtype == "uint8" else Side(run, scaling.apply, True)


def _levels(images: np.ndarray) -> np.ndarray:
    """Images in 0–1 as they are stored."""
    return np.asarray(np.rint(images * 255))


def _comparable(found: torch.Tensor, model: ForeignModel, *, of_probabilities: bool) -> np.ndarray:
    """Scores as they are compared: as they are, or the logarithm of probabilities."""
    if model.scores == "probabilities":
        found = (found if of_probabilities else found.softmax(1)).clamp(min=LEAST).log()
    return np.asarray(found.float().numpy())


def _runtimes(graph: onnx.ModelProto, parity: ParityReport, options: AgainstOptions) -> RuntimesReport:
    with bundle.as_bundle(graph, parity.golden, {**parity.to_json()}) as directory:
        return check_runtimes(
            directory,
            options.runtimes,
            threads=options.threads,
            precision=options.precision,
            timeout=options.timeout,
            measure_speed=options.measure_speed,
        )


def _remarks(pair: _Pair, parity: ParityReport) -> tuple[str, ...]:
    found = []
    given, model = pair.file.given, pair.model
    if given.batch is not None:
        found.append(f"the file takes batches of {given.batch} alone: others are filled up")
    if pair.scores.is_probabilities != model.gives_probabilities:
        names = ("probabilities", "logits") if pair.scores.is_probabilities else ("logits", "probabilities")
        found.append(f"the file gives {names[0]} and the module {names[1]}: both are compared as probabilities")
    if parity.probes is None and pair.file.precision == "fp32":
        found.append("extreme inputs such as NaN are not tried, since file and module take no such floats alike")
    return tuple(found)
