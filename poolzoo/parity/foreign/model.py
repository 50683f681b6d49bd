"""A torch module from elsewhere as a network of ours: stored images to logits and probabilities."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
import torch
from torch import Tensor, nn

from poolzoo.common.errors import CheckFailed, reason
from poolzoo.data import sizes
from poolzoo.data.sizes import Size, show
from poolzoo.runtime.foreign.canonical import LEAST, Scores
from poolzoo.runtime.foreign.classifier import TRIAL, FileInput, are_probabilities
from poolzoo.runtime.foreign.scaling import Scaling

FIELDS: Final = ("logits", "out", "output", "scores")  # where outputs that have names hold the scores


@dataclass(frozen=True)
class ModuleInput:
    """How a module takes images.

    Attributes:
        dtype: "uint8", or "float32" for scaled ones.
        layout: "NCHW" or "NHWC".
        channels: 1 or 3; of one, it is the first of an image.
        scaling: Of floats.
    """

    dtype: Literal["uint8", "float32"]
    layout: str
    channels: int
    scaling: Scaling

    def describe(self) -> str:
        """`float32 NCHW in 0–1`."""
        return f"{self.dtype} {self.layout} {'in 0–255' if self.dtype == 'uint8' else self.scaling.describe()}"


class ForeignModel(nn.Module):
    """A module behind what turns stored images into its input.

    Attributes:
        network: The module.
        scores: "logits" where its outputs are compared as they are; "probabilities" where the logarithm of the
            probabilities is.
    """

    def __init__(self, network: nn.Module, takes: ModuleInput) -> None:
        super().__init__()
        self.network = network
        self.takes = takes
        self.scores: Scores = "logits"
        self.gives_probabilities = False
        self.register_buffer("factor", torch.from_numpy(takes.scaling.factor[: takes.channels].copy()))
        self.register_buffer("offset", torch.from_numpy(takes.scaling.offset[: takes.channels].copy()))
        self.register_buffer("precision", torch.zeros(()))  # whose type is that of the network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Stored images, `uint8[N, H, W, 3]`, to logits and probabilities, `float[N, K]`."""
        return self.outputs(scores_of(self.network(self.prepare(images))))

    def prepare(self, images: Tensor) -> Tensor:
        """The module's input; it is computed in float32, as the file's is, whatever the network computes in."""
        takes = self.takes
        x = images[..., : takes.channels].permute(0, 3, 1, 2)
        if takes.dtype == "float32":
            x = x.float() / 255
            if not takes.scaling.is_identity:
                factor, offset = self.factor, self.offset
                assert isinstance(factor, Tensor)
                assert isinstance(offset, Tensor)
                x = x * factor.float() + offset.float()
            precision = self.precision
            assert isinstance(precision, Tensor)
            x = x.to(precision.dtype)
        return (x.permute(0, 2, 3, 1) if takes.layout == "NHWC" else x).contiguous()

    def outputs(self, found: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and probabilities from the module's own scores."""
        if self.scores == "logits":
            return found, found.softmax(1)
        probabilities = found if self.gives_probabilities else found.softmax(1)
        return probabilities.clamp(min=LEAST).log(), probabilities


class Core(nn.Module):
    """The module alone, from its own input to its scores, as probes need it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return scores_of(self.network(x))


def scores_of(found: Any) -> Tensor:
    """The scores `[N, K]` in what a module gives: a tensor, or one of several by name or place.

    Raises:
        CheckFailed: There is none.
    """
    if isinstance(found, Tensor):
        tensors = [found]
    elif isinstance(found, dict):
        tensors = [found[name] for name in (*FIELDS, *found) if name in found]
    else:
        named = [getattr(found, name) for name in FIELDS if hasattr(found, name)]
        tensors = [*named, *(found if isinstance(found, tuple | list) else ())]
    for one in tensors:
        if isinstance(one, Tensor) and one.ndim == 2 and one.is_floating_point():
            return one
    shown = (
        f"{type(found).__name__} of shape {list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
    )
    raise CheckFailed(f"the module gives {shown}, and no scores [N, classes]", "it must be a classifier of images")


def make_model(reference: str, module: nn.Module, given: FileInput, scaling: Scaling) -> ForeignModel:
    """The module with the input that it takes: what the file takes, or else floats with the channels first.

    Args:
        reference: What the module is called.
        module: The module, in eval mode.
        given: What the file takes.
        scaling: What floats are scaled to.

    Raises:
        CheckFailed: It takes neither, or is no classifier.
    """
    dtype: Literal["uint8", "float32"] = "uint8" if given.dtype == "uint8" else "float32"
    own = ModuleInput(dtype, given.layout, given.channels, scaling)
    usual = ModuleInput("float32", "NCHW", given.channels, scaling)
    problems = []
    for takes in dict.fromkeys((own, usual, replace(usual, channels=3))):
        model = ForeignModel(module, takes).eval()
        try:
            found = _trial(model, given.size)
        except CheckFailed as error:
            raise CheckFailed(error.message.replace("the module", reference, 1), error.hint) from error
        except Exception as error:  # of the module
            problems.append(error)
            continue
        model.gives_probabilities = are_probabilities(found)
        return model
    text = f"{reference} cannot be run on images {show(given.size)}: {reason(problems[0], 200)}"
    raise CheckFailed(text, f"the file has {given.describe()}; does the module take the same?")


def classes_of(model: ForeignModel, size: Size) -> int:
    """How many classes a module has."""
    return int(_trial(model, size).shape[1])


def require_deterministic(reference: str, model: ForeignModel, size: Size) -> None:
    """Makes sure that a module gives the same twice.

    Raises:
        CheckFailed: It does not: something in it is random.
    """
    if not np.array_equal(_trial(model, size), _trial(model, size), equal_nan=True):
        text = f"{reference} gives two answers to the same images: something in it is random"
        raise CheckFailed(text, "call .eval() on it before it is returned")


def check_classes(path: object, reference: str, found: int, expected: int) -> None:
    """Makes sure that file and module have as many classes.

    Raises:
        CheckFailed: They have not.
    """
    if found != expected:
        raise CheckFailed(
            f"{path} gives {found} classes, {reference} gives {expected}", "is it the file of this module?"
        )


def published_scaling(module: nn.Module) -> Scaling | None:
    """The scaling that a module of timm states in its `pretrained_cfg`; None where there is none that can be."""
    stated = getattr(module, "pretrained_cfg", None)
    if not isinstance(stated, dict) or not {"mean", "std"} <= stated.keys():
        return None
    try:
        mean, std = (tuple(float(one) for one in stated[key]) for key in ("mean", "std"))
    except (TypeError, ValueError, OverflowError):
        return None
    scaling = Scaling(mean=mean, std=std)
    return scaling if len(mean) == len(std) == 3 and scaling.is_possible else None


def published_size(module: nn.Module) -> Size | None:
    """Height and width that a module of timm states in its `pretrained_cfg`; None where there are none that can be."""
    stated = getattr(module, "pretrained_cfg", None)
    size = stated.get("input_size") if isinstance(stated, dict) else None
    if not isinstance(size, tuple | list) or len(size) != 3:
        return None
    try:
        return sizes.parse(tuple(map(int, size[1:])))
    except (TypeError, ValueError, OverflowError):
        return None


def _trial(model: ForeignModel, size: Size) -> np.ndarray:
    """The module's own scores of noise and a black image."""
    noise = np.random.default_rng(0).integers(0, 256, (TRIAL, *size, 3), dtype=np.uint8)
    noise[-1] = 0
    with torch.inference_mode():
        found = scores_of(model.network(model.prepare(torch.from_numpy(noise))))
    return np.asarray(found.float().numpy())
