"""Why a file differs from its module: a mistake in its input, or a place in the graph, which may be reduced."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import onnx
import torch

from poolzoo.common import output
from poolzoo.parity import check
from poolzoo.parity.foreign import debugging
from poolzoo.parity.foreign import model as models
from poolzoo.parity.foreign.causes import Cause, Map, Side, find_cause
from poolzoo.parity.foreign.images import evenly_spaced
from poolzoo.parity.foreign.last_agreement import LastAgreement, find_last_agreement
from poolzoo.parity.foreign.model import ForeignModel
from poolzoo.parity.foreign.pair import Pair
from poolzoo.parity.reference import Reference
from poolzoo.parity.report import ParityReport
from poolzoo.runtime import ort_session
from poolzoo.runtime.foreign import classifier
from poolzoo.runtime.foreign.canonical import LEAST, raw
from poolzoo.runtime.foreign.scaling import Scaling
from poolzoo.runtime.ort_session import OnnxModel

CPU: Final = ort_session.PROVIDERS["cpu"]
CAUSE_IMAGES: Final = 32  # on which what a change gives is measured


def explain(
    pair: Pair, expected: Reference, graph: onnx.ModelProto, opened: OnnxModel
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
    cause = find_cause(
        pair.in_float(regular[evenly_spaced(len(regular), CAUSE_IMAGES)]),
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


def reduce(
    pair: Pair, expected: Reference, opened: OnnxModel, parity: ParityReport, cause: Cause | None, place: Path
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


def _worst(expected: Reference, opened: OnnxModel) -> np.ndarray:
    """The rows of the images, the one furthest beyond its tolerance first."""
    return np.argsort(-check.measure(expected, opened).worst / expected.allowed, kind="stable")


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
