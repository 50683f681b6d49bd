"""A file and a module that take the same images and give scores of the same classes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx

from poolzoo.common import output as messages
from poolzoo.data.sizes import Size
from poolzoo.parity.foreign import model as models
from poolzoo.parity.foreign import module as modules
from poolzoo.parity.foreign.model import ForeignModel
from poolzoo.runtime.foreign import classifier
from poolzoo.runtime.foreign.canonical import canonical
from poolzoo.runtime.foreign.classifier import Classifier, FileOutput
from poolzoo.runtime.foreign.scaling import Scaling


@dataclass(frozen=True, eq=False)
class Pair:
    """Both, ready to be compared.

    Attributes:
        file: The file.
        scores: Its output that holds the scores.
        model: The module, from stored images.
    """

    file: Classifier
    scores: FileOutput
    model: ForeignModel

    @property
    def scaling(self) -> Scaling:
        """What floats are scaled to."""
        return self.model.takes.scaling

    @cached_property
    def graph(self) -> onnx.ModelProto:
        """The file in a bundle's form."""
        return canonical(self.file, self.scores, self.model.scores, self.scaling)

    def in_float(self, images: np.ndarray) -> np.ndarray:
        """Images `uint8[N, H, W, 3]` in 0–1, as `float32[N, C, H, W]` of the file's channels."""
        channels = self.file.given.channels
        return np.ascontiguousarray(images[..., :channels].transpose(0, 3, 1, 2), np.float32) / np.float32(255)


def make_pair(path: Path, reference: str, *, output: str | None, size: Size | None, scaling: Scaling | None) -> Pair:
    """Reads the file, builds the module, and makes sure that they can be compared.

    Args:
        path: The ONNX file.
        reference: "MODULE:FUNCTION".
        output: The file's output that holds the scores; None for the one that is clear.
        size: Height and width of images where the file takes any; None for the module's own, or 224 × 224.
        scaling: What floats are scaled to; None for what a module of timm states, or 0–1.

    Raises:
        UsageError: The file is no image classifier, or the reference names nothing.
        CheckFailed: The file is damaged, the module cannot be built or run, or both have other classes.
        EnvironmentProblem: The file is too new.
    """
    file = classifier.inspect(path, size)
    messages.detail("loading torch")
    module = modules.load(reference)
    own = models.published_size(module)
    if size is None and own is not None and own != file.given.size and takes_any_size(file):
        file = classifier.inspect(path, own)
    model = models.make_model(reference, module, file.given, scaling or models.published_scaling(module) or Scaling())
    models.require_deterministic(reference, model, file.given.size)
    classes = models.classes_of(model, file.given.size)
    scores = file.output(output, classes)
    models.check_classes(path, reference, scores.classes, classes)
    if scores.is_probabilities or model.gives_probabilities:
        model.scores = "probabilities"
    return Pair(file, scores, model)


def takes_any_size(file: Classifier) -> bool:
    """Whether a file states neither height nor width."""
    sides = file.proto.graph.input[0].type.tensor_type.shape.dim
    at = (2, 3) if file.given.layout == "NCHW" else (1, 2)
    return not sides or all(sides[index].dim_value <= 0 for index in at)
