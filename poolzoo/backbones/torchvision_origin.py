"""torchvision's networks as published: which of their weights a backbone takes, and which layers it leaves out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from poolzoo.published import PublishedHead, Tensors, layers

BODY: Final = "body."  # before the names of torchvision in the backbone
CLASSIFIER: Final = ("classifier", "fc", "head", "heads", "aux1", "aux2", "AuxLogits")
# The published DenseNets were saved when a module could still be called `norm.1`.
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")


def current(state: Tensors) -> dict[str, Tensor]:
    """A published state dict under the names that torchvision's modules have today."""
    return {_OLD_DENSENET.sub(r"\1\2", key): value for key, value in state.items()}


@dataclass(frozen=True)
class TorchvisionOrigin:
    """The network that a backbone was cut from; see `poolzoo.published.Origin`.

    Attributes:
        shapes: Of the tensors of the whole network, its classifier among them.
        parameters: Names of those that are parameters.
    """

    shapes: dict[str, torch.Size]
    parameters: frozenset[str]

    @classmethod
    def of(cls, model: nn.Module) -> TorchvisionOrigin:
        """The origin of what is cut from a model."""
        shapes = {key: value.shape for key, value in model.state_dict().items()}
        return cls(shapes, frozenset(name for name, _ in model.named_parameters()))

    def adapted(self, own: Tensors, state: Tensors, source: str) -> tuple[dict[str, Tensor], tuple[str, ...]]:
        """A file's tensors under the names that the backbone has for them, and the names of what is left out."""
        state = current({key.removeprefix(BODY): value for key, value in state.items()})
        ends = tuple(f"{name}." for name in CLASSIFIER)
        left = tuple(k for k in state if BODY + k not in own and (k in self.shapes or k.startswith(ends)))
        return {BODY + key: value for key, value in state.items() if key not in left}, left

    def head(self, module: nn.Module) -> PublishedHead:
        """Which layers are left out, beside the classifier, the last of them."""
        own = module.state_dict()
        left = [key for key in self.shapes if BODY + key not in own]
        last = left[-1].rpartition(".")[0] if left else ""
        names = [key for key in left if key.rpartition(".")[0] != last]
        others = [key for key in self.shapes if key not in names]
        parameters = sum(self.shapes[key].numel() for key in names if key in self.parameters)
        return PublishedHead(left_out=layers(names, others), parameters=parameters)
