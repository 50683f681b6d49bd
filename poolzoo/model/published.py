"""The layers of a published network between its last feature map and its classifier, and where ours has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, TypedDict

from torch import Tensor, nn

from poolzoo.model.accounting import listed

Pools = Literal["mean", "token", "other"]
Tensors = Mapping[str, Tensor]
# Where our network applies the norm that a published network has behind its pooling: to the pooled vector; at every
# spatial location before the pooling, where the widths differ; or in the backbone, as in runs of earlier versions.
NormPlace = Literal["pooled", "positions", "backbone"]


class FinalNorm(nn.Module):
    """A norm that the published network has behind its pooling, for pooled vectors or for every spatial location.

    `float[N, C] → float[N, C]`, or `float[N, C, H, W] → float[N, C, H, W]`.

    Args:
        layer: The published layer.
        place: The name that it had in the backbone.
        channels_first: Whether it takes `float[N, C, H, W]`; else the channels come last.
    """

    def __init__(self, layer: nn.Module, place: str, channels_first: bool) -> None:
        super().__init__()
        self.layer = layer
        self.place = place
        self.channels_first = channels_first

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor
        if x.ndim == 2:
            y = self.layer(x[:, :, None, None]).flatten(1) if self.channels_first else self.layer(x)
        else:
            y = self.layer(x) if self.channels_first else self.layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return y


class PublishedHeadJson(TypedDict):
    """`published_head` in config.json."""

    text: str
    changes: bool
    norm: str | None
    norm_runs: NormPlace | None
    moved: list[str]
    kept: list[str]
    left_out: list[str]
    published_pooling: Pools | None


@dataclass(frozen=True)
class PublishedHead:
    """The layers that a published network has around its pooling; names are those of its own state dict.

    Attributes:
        norm: The only layer behind the pooling, where that is a norm; "" where there is none.
        norm_place: The name of that layer in the backbone, which may differ.
        norm_is_new: Whether the backbones of earlier versions lacked that layer.
        channels_first: Whether that layer takes `float[N, C, H, W]`.
        moved: Layers behind the pooling that the backbone applies at every spatial location instead.
        kept: Layers of the published network's own pooling that the backbone applies at every spatial location.
        left_out: Layers that the backbone does not have.
        parameters: Number of parameters of those.
        pools: What the published pooling computes from the backbone's feature map.
    """

    norm: str = ""
    norm_place: str = ""
    norm_is_new: bool = False
    channels_first: bool = False
    moved: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    parameters: int = 0
    pools: Pools | None = None

    def without_norm(self) -> PublishedHead:
        """The same where the norm has no part in the network."""
        return replace(self, norm="", norm_place="", left_out=(self.norm, *self.left_out))

    @property
    def changes(self) -> bool:
        """Whether any layer was moved, kept or left out."""
        return bool(self.norm or self.moved or self.kept or self.left_out)

    def average(self) -> str:
        """What the pooling `avg` equals."""
        if self.moved or self.kept:
            layers = listed(self.moved + self.kept)
            return f"avg averages the output of {layers}, which is not the published pooling"
        if self.pools == "mean":
            return "avg equals the published pooling"
        if self.pools == "token":
            return "avg is the mean of the feature map, the published network takes its class token"
        if self.left_out or self.pools == "other":
            return "avg is the mean of the feature map, which is not the published pooling"
        return "avg is the mean of the feature map"

    def line(self, norm: NormPlace | None, out_features: int) -> str:
        """Where each layer is now, and what `avg` equals then.

        Args:
            norm: Where the norm is.
            out_features: Features of the pooled vector.
        """
        parts = []
        if self.norm and norm == "pooled":
            parts.append(f"{self.norm} follows the pooling, as published")
        elif self.norm:
            other = f", because the pooled vector has {out_features} features"
            why = other if norm == "positions" else ""
            parts.append(f"{self.norm} runs at every spatial location before the pooling{why}")
        if self.moved:
            parts.append(f"{listed(self.moved)} moved before the pooling, to every spatial location")
        if self.kept:
            parts.append(f"{listed(self.kept)} (the published pooling's own layers) kept in the backbone")
        if self.left_out:
            parts.append(f"left out: {listed(self.left_out)} ({self.parameters:,} parameters)")
        if norm == "pooled" or not self.norm:
            parts.append(self.average())
        else:
            parts.append(
                "with avg it follows the pooling" if norm == "positions" else "avg is not the published pooling"
            )
        return "; ".join(parts)

    def to_json(self, norm: NormPlace | None, out_features: int) -> PublishedHeadJson:
        """For `config.json` and `--json`; the arguments are those of `line`."""
        return {
            "text": self.line(norm, out_features),
            "changes": self.changes,
            "norm": self.norm or None,
            "norm_runs": norm,
            "moved": list(self.moved),
            "kept": list(self.kept),
            "left_out": list(self.left_out),
            "published_pooling": self.pools,
        }


class Origin(Protocol):
    """The published network that a backbone was cut from; a backbone's module may have it as its attribute `origin`."""

    def convert_state_dict(
        self, own: Tensors, state: Tensors, source: str
    ) -> tuple[dict[str, Tensor], tuple[str, ...]]:
        """A published state dict under the backbone's names, and the names of the tensors that it leaves out.

        Args:
            own: The backbone's state dict.
            state: Tensors as in a file.
            source: Where they come from, for messages.
        """

    def head(self, module: nn.Module) -> PublishedHead:
        """Where the backbone has the published network's last layers."""


def layers(names: Sequence[str], others: Sequence[str]) -> tuple[str, ...]:
    """The fewest modules that hold all of some tensors and none of others, by the tensors' dotted names."""
    found: dict[str, None] = {}
    for name in names:
        parts = name.split(".")
        paths = [".".join(parts[: depth + 1]) for depth in range(len(parts))]
        found[next(p for p in paths if p == name or not any(o.startswith(f"{p}.") for o in others))] = None
    return tuple(found)
