"""From a file that does not compute what its module computes to the smallest graph and input that show it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from poolzoo.common import output
from poolzoo.parity import probes
from poolzoo.parity.foreign.model import ForeignModel, scores_of
from poolzoo.parity.reduction import folder
from poolzoo.parity.reduction.reduce import BUDGET, NothingToReduce, reduce_failure
from poolzoo.parity.report import ParityReport
from poolzoo.runtime.foreign.classifier import FileInput, FileOutput

BATCH = 7  # images at once, where none shows the difference alone


class FromNumbers(nn.Module):
    """A module from the file's numbers, `float32[N, C, H, W]`, to what the file's output should be."""

    def __init__(self, model: ForeignModel, given: FileInput, scores: FileOutput) -> None:
        super().__init__()
        self.network = model.network
        self.takes = model.takes
        self.from_levels = given.dtype == "uint8" and model.takes.dtype == "float32"
        self.softmax = scores.is_probabilities and not model.gives_probabilities
        self.register_buffer("factor", torch.from_numpy(model.takes.scaling.factor[: model.takes.channels].copy()))
        self.register_buffer("offset", torch.from_numpy(model.takes.scaling.offset[: model.takes.channels].copy()))

    def forward(self, numbers: Tensor) -> Tensor:
        x = numbers
        if self.from_levels:
            factor, offset = self.factor, self.offset
            assert isinstance(factor, Tensor)
            assert isinstance(offset, Tensor)
            x = x / 255 * factor.to(x.dtype) + offset.to(x.dtype)
        if self.takes.dtype == "uint8":
            x = x.to(torch.uint8)
        if self.takes.layout == "NHWC":
            x = x.permute(0, 2, 3, 1)
        found = scores_of(self.network(x))
        return found.softmax(1) if self.softmax else found


def reduce(
    *,
    graph: onnx.ModelProto,
    model: ForeignModel,
    given: FileInput,
    scores: FileOutput,
    parity: ParityReport,
    numbers: np.ndarray,
    place: Path,
    budget: float = BUDGET,
) -> bool:
    """Writes a folder with the smallest graph and input that still show a difference; returns whether it did.

    Args:
        graph: The file from `images`, its numbers, to its scores.
        model: The module.
        given: What the file takes.
        scores: What it gives.
        parity: What was found.
        numbers: The file's numbers for images, `float32[N, C, H, W]`, the one furthest beyond its tolerance first.
        place: The folder, which must not exist.
        budget: Seconds for the search.
    """
    if model.gives_probabilities and not scores.is_probabilities:
        output.warn("the module gives probabilities and the file logits: that is not reduced", "compare logits of both")
        return False
    network = FromNumbers(model, given, scores).eval()
    for title, x in _inputs(parity, numbers, given):
        output.say(f"reducing the difference on {title}, for at most {budget:.0f} s; Ctrl-C keeps the smallest")
        try:
            found = reduce_failure(graph, {"images": x}, network, budget=budget)
        except NothingToReduce:
            continue
        folder.write(found, place)
        output.say(f"{place}: {folder.title(found)}")
        return True
    output.warn("nothing that failed shows the difference by itself", "see parity in --json")
    return False


def _inputs(parity: ParityReport, numbers: np.ndarray, given: FileInput) -> Iterator[tuple[str, np.ndarray]]:
    """Inputs that may show the difference: one image, several at once, and those of probes that failed."""
    fixed = given.batch
    for title, x in (("one image", numbers[:1]), (f"{BATCH} images", numbers[:BATCH])):
        yield title, x if fixed is None else np.resize(x, (fixed, *x.shape[1:]))
    made = probes.core_probes(numbers.shape[1:])
    for probe in parity.probes or ():
        if not probe.passed:
            x = made[probe.probe]
            yield probe.probe, x if fixed is None else np.resize(x, (fixed, *x.shape[1:]))
