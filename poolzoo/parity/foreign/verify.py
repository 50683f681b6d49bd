"""Compares an ONNX file with a torch module, both from elsewhere, as `export` compares a graph with its network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime

from poolzoo.common import files, output
from poolzoo.common.errors import PoolzooError, UsageError
from poolzoo.common.temporary import temporary_folder
from poolzoo.data.sizes import Size, show
from poolzoo.parity import check, probes
from poolzoo.parity.foreign import images as image_source
from poolzoo.parity.foreign import model as models
from poolzoo.parity.foreign.explaining import explain, reduce
from poolzoo.parity.foreign.pair import Pair, make_pair, takes_any_size
from poolzoo.parity.foreign.report import AgainstReport
from poolzoo.parity.reference import Reference
from poolzoo.parity.report import Limits, ParityReport, ProbeResult
from poolzoo.runtime import half_arithmetic, ort_session
from poolzoo.runtime.foreign import bundle, classifier
from poolzoo.runtime.foreign.canonical import raw
from poolzoo.runtime.foreign.scaling import Scaling
from poolzoo.runtime.half_arithmetic import HalfCheck
from poolzoo.runtime.ort_session import OnnxModel
from poolzoo.runtime.runtimes import RuntimesReport, check_runtimes, select
from poolzoo.runtime.verify import Check

CPU: Final = ort_session.PROVIDERS["cpu"]
MORE: Final = (32, 64)  # pixels of height and width, at which a file of any size is checked again …
FEW: Final = 4  # … on so many images
FEW_FACTOR: Final = 16.0  # of their tolerances, whose noise floors come from so few
LOWER_SHARE: Final = 1 / 8  # of the largest logit, that a file in float16 or int8 may be off


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
    pair = make_pair(path, reference, output=options.output, size=options.size, scaling=options.scaling)
    file, scores, model = pair.file, pair.scores, pair.model
    if options.arithmetics and file.precision != "fp32":
        raise UsageError(f"{path} is in {file.precision}, and --arithmetic is for float32", "leave it out")
    names, pixels = image_source.gather(options.images, file.given.size)
    graph = pair.graph
    output.say("computing the module's own outputs")
    expected = Reference.compute(model, pixels, None)
    expected = replace(expected, names=[*expected.names[: expected.edge_count], *names])
    output.say("checking parity")
    opened = _open(graph, options.threads)
    parity = _check(pair, expected, opened, graph)
    rounded = _in_arithmetics(expected, opened, graph, options.arithmetics) if parity.passed else ()
    natural = len(pixels) - image_source.SYNTHETIC
    kind = "natural and synthetic" if natural else "synthetic"
    parity = replace(parity, outputs=replace(parity.outputs, images=kind))
    cause, last = (None, None) if parity.passed else explain(pair, expected, graph, opened)
    reduced = False
    if options.debug is not None and not parity.passed:
        reduced = reduce(pair, expected, opened, parity, cause, options.debug)
    other_size = _at_other_size(pair, options) if parity.passed else None
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
        other_size=other_size,
        remarks=_remarks(pair, parity),
        reduction=str(options.debug) if reduced else None,
    )


def _open(graph: onnx.ModelProto, threads: int | None) -> OnnxModel:
    with temporary_folder() as work:
        place = work / "model.onnx"
        onnx.save(graph, place)
        return ort_session.open_model(place, "cpu", threads)


def _at_other_size(pair: Pair, options: AgainstOptions) -> Check | None:
    """Whether a file of any image size agrees at another size too; None where file or module takes one size alone."""
    if pair.file.precision != "fp32" or not takes_any_size(pair.file):
        return None
    height, width = pair.file.given.size
    size = height + MORE[0], width + MORE[1]
    try:
        models.classes_of(pair.model, size)
    except Exception:  # the module takes one size alone
        return None
    try:
        other = replace(pair, file=classifier.inspect(pair.file.path, size))
    except PoolzooError as error:
        return Check(
            "other-size", False, f"the module takes images {show(size)}, and the file does not: {error.message}"
        )
    _, pixels = image_source.gather(options.images, size)
    few = pixels[image_source.evenly_spaced(len(pixels), FEW)]
    parity = check.check_outputs(Reference.compute(pair.model, few, None), _open(other.graph, options.threads))
    assert parity.noise is not None
    worst = parity.noise.worst
    apart = "not finite" if worst.max_abs is None else f"difference {worst.max_abs:.2e}"
    near = worst.ratio is not None and worst.ratio <= FEW_FACTOR
    return Check("other-size", near, f"images {show(size)}: {apart} of {FEW_FACTOR * worst.allowed:.2e} allowed")


def _check(pair: Pair, expected: Reference, opened: OnnxModel, graph: onnx.ModelProto) -> ParityReport:
    """All outputs against the module's; of a file in lower precision, against limits, and in half arithmetic."""
    if pair.file.precision == "fp32":
        parity = check.check_outputs(expected, opened)
        found = _probe(pair)
        return replace(parity, probes=found, passed=parity.passed and all(one.passed for one in found or ()))
    parity = _with_share(check.check_limits(expected, opened, Limits()), expected)
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


def _with_share(parity: ParityReport, expected: Reference) -> ParityReport:
    """A report on lower precision, whose logits must also be near: of few classes, most agree by chance."""
    logits = expected.float32[0][expected.regular]
    apart, largest = float(np.abs(parity.logits - logits).max()), float(np.abs(logits).max())
    if apart <= LOWER_SHARE * largest or parity.limits is None:
        return parity
    text = f"logits differ by {apart:.2e}, more than an eighth of the largest one"
    limits = replace(parity.limits, violations=(*parity.limits.violations, text))
    return replace(parity, limits=limits, passed=False)


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


def _probe(pair: Pair) -> tuple[ProbeResult, ...] | None:
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


def _remarks(pair: Pair, parity: ParityReport) -> tuple[str, ...]:
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
