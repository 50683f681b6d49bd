"""Where a torchvision backbone comes from: which published weights it takes, and which layers it leaves out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from poolzoo.model.published import PublishedHead, Tensors, layers

BODY: Final = "body."  # prefix of torchvision's names in the backbone
NORM: Final = "norm"  # where the backbone has the norm behind the pooling
CLASSIFIER: Final = ("classifier", "fc", "head", "heads", "aux1", "aux2", "AuxLogits")
# The published DenseNets were saved when a module could still be called `norm.1`.
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")


def current(state: Tensors) -> dict[str, Tensor]:
    """A published state dict under the current names of torchvision's modules."""
    return {_OLD_DENSENET.sub(r"\1\2", key): value for key, value in state.items()}


def final_norm(model: nn.Module) -> str:
    """The name of the norm between a model's pooling and its one linear layer; "" where there is none."""
    ends = getattr(model, "classifier", None)
    named = ends.named_children() if isinstance(ends, nn.Sequential) else ()
    learn = [(name, layer) for name, layer in named if any(True for _ in layer.parameters())]
    return f"classifier.{learn[0][0]}" if len(learn) == 2 and isinstance(learn[0][1], nn.LayerNorm) else ""


@dataclass(frozen=True)
class TorchvisionOrigin:
    """The network that a backbone was cut from; see `poolzoo.model.published.Origin`.

    Attributes:
        shapes: Of the tensors of the whole network, its classifier among them.
        parameters: Names of those that are parameters.
        norm: The norm behind the pooling; "" where there is none.
    """

    shapes: dict[str, torch.Size]
    parameters: frozenset[str]
    norm: str = ""

    @classmethod
    def of(cls, model: nn.Module) -> TorchvisionOrigin:
        """The origin of a backbone that is cut from a model."""
        shapes = {key: value.shape for key, value in model.state_dict().items()}
        return cls(shapes, frozenset(name for name, _ in model.named_parameters()), final_norm(model))

    def _own(self, key: str) -> str:
        """The name in the backbone of one of torchvision's tensors."""
        if self.norm and key.startswith(f"{self.norm}."):
            return f"{NORM}.{key.removeprefix(f'{self.norm}.')}"
        return BODY + key

    def convert_state_dict(
        self, own: Tensors, state: Tensors, source: str
    ) -> tuple[dict[str, Tensor], tuple[str, ...]]:
        """The tensors of a file under the backbone's names, and the names of those that it leaves out."""
        state = current({key.removeprefix(BODY): value for key, value in state.items()})
        ends = tuple(f"{name}." for name in CLASSIFIER)
        left = tuple(k for k in state if self._own(k) not in own and (k in self.shapes or k.startswith(ends)))
        return {self._own(key): value for key, value in state.items() if key not in left}, left

    def head(self, module: nn.Module) -> PublishedHead:
        """The norm, and which layers before the classifier are left out."""
        own = module.state_dict()
        ends = tuple(f"{name}." for name in CLASSIFIER)
        left = [key for key in self.shapes if self._own(key) not in own and key.startswith(ends)]
        last = left[-1].rpartition(".")[0] if left else ""
        names = [key for key in left if key.rpartition(".")[0] != last]
        others = [key for key in self.shapes if key not in names]
        parameters = sum(self.shapes[key].numel() for key in names if key in self.parameters)
        left_out = layers(names, others)
        if not self.norm:
            return PublishedHead(left_out=left_out, parameters=parameters)
        return PublishedHead(
            norm=self.norm,
            norm_place=NORM,
            norm_is_new=True,
            channels_first=True,
            left_out=left_out,
            parameters=parameters,
            pools="mean",
        )
