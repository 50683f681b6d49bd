"""What a published network has between its last map and its classifier, and what becomes of it around our pooling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from poolzoo.model.accounting import listed

Pools = Literal["mean", "token", "other"]
Tensors = Mapping[str, Tensor]
# Where the norm is that a published network has behind its pooling: behind ours, at every position in front of ours
# because its width is not that of the pooled vector, or, as in runs of earlier versions, in the backbone.
NormPlace = Literal["pooled", "positions", "backbone"]


class FinalNorm(nn.Module):
    """A norm that the published network has behind its pooling: for pooled vectors, or for every position of a map.

    `float[N, C] → float[N, C]`, or `float[N, C, H, W] → float[N, C, H, W]`.

    Args:
        layer: The published layer.
        place: The name that it had in the backbone.
        channels_first: Whether it takes `float[N, C, H, W]`; else the channels come last.
    """

    def __init__(self, layer: nn.Module, place: str, channels_first: bool) -> None:
        super().__init__()
        self.layer, self.place, self.channels_first = layer, place, channels_first

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 2:
            return self.layer(x[:, :, None, None]).flatten(1) if self.channels_first else self.layer(x)
        return self.layer(x) if self.channels_first else self.layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class PublishedHead:
    """The layers that a published network has around its pooling; names are those of its own state dict.

    Attributes:
        norm: The only layer behind the pooling, where that is a norm; "" where there is none.
        norm_place: Where the backbone has that layer, at every position in front of our pooling; may be another name.
        norm_is_new: Whether the backbones of earlier versions did not have that layer.
        channels_first: Whether that layer takes `float[N, C, H, W]`.
        moved: Layers behind the pooling that the backbone runs at every position instead.
        kept: Layers of the published network's own pooling that the backbone runs at every position.
        left_out: Layers that have no part in the map.
        parameters: How many parameters the ones that are left out have.
        pools: What the published pooling computes of the map that the backbone gives.
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
        """Whether there is a layer to speak of."""
        return bool(self.norm or self.moved or self.kept or self.left_out)

    def average(self) -> str:
        """What the pooling `avg` equals."""
        if self.moved or self.kept:
            layers = listed(self.moved + self.kept)
            return f"avg averages what {layers} gives, which is not the published pooling"
        if self.pools == "mean":
            return "avg equals the published pooling"
        if self.pools == "token":
            return "avg is the mean of the map, the published network takes its class token"
        if self.left_out or self.pools == "other":
            return "avg is the mean of the map, which is not the published pooling"
        return "avg is the mean of the map"

    def line(self, norm: NormPlace | None, width: int) -> str:
        """What becomes of the layers, and what `avg` equals then.

        Args:
            norm: Where the norm is.
            width: Width of the pooled vector.
        """
        parts = []
        if self.norm and norm == "pooled":
            parts.append(f"{self.norm} follows the pooling, as published")
        elif self.norm:
            why = f", for {width} pooled numbers are not its width" if norm == "positions" else ""
            parts.append(f"{self.norm} runs at every position in front of the pooling{why}")
        if self.moved:
            parts.append(f"{listed(self.moved)} moved in front of the pooling, at every position")
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

    def to_json(self, norm: NormPlace | None, width: int) -> dict[str, Any]:
        """For `config.json` and `--json`; the arguments are those of `line`."""
        return {
            "text": self.line(norm, width),
            "changes": self.changes,
            "norm": self.norm or None,
            "norm_runs": norm,
            "moved": list(self.moved),
            "kept": list(self.kept),
            "left_out": list(self.left_out),
            "published_pooling": self.pools,
        }


class Origin(Protocol):
    """What the module of a backbone may have as its attribute `origin`: the network that it was cut from."""

    def adapted(self, own: Tensors, state: Tensors, source: str) -> tuple[dict[str, Tensor], tuple[str, ...]]:
        """A published state dict under the backbone's names, and the names of what is left out of it.

        Args:
            own: The backbone's state dict.
            state: Tensors as in a file.
            source: What they come from, for messages.
        """

    def head(self, module: nn.Module) -> PublishedHead:
        """What becomes of the published network's last layers in the backbone."""


def layers(names: Sequence[str], others: Sequence[str]) -> tuple[str, ...]:
    """The fewest modules that hold all of some tensors and none of others, by the tensors' dotted names."""
    found: dict[str, None] = {}
    for name in names:
        parts = name.split(".")
        paths = [".".join(parts[: depth + 1]) for depth in range(len(parts))]
        found[next(p for p in paths if p == name or not any(o.startswith(f"{p}.") for o in others))] = None
    return tuple(found)
