"""Attention over the spatial locations of the feature map: `float[N, C, H, W] → float[N, C]`."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poolzoo.poolings.shared import divisor_at_most

MAX_HEADS = 8  # by default
GRID = (7, 7)  # of the position embedding where the size of the feature map is not known


def as_sequence(x: Tensor) -> Tensor:
    """`float[N, C, H, W] → float[N, HW, C]`."""
    return x.flatten(2).transpose(1, 2)


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """`softmax(q kᵀ / √d) v` for each head of d = C / heads channels.

    `float[N, Q, C], float[N, L, C], float[N, L, C] → float[N, Q, C]`.
    """
    q, k, v = (torch.unflatten(x, 2, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    if torch.compiler.is_exporting():  # without the dozen operators on shapes that torch's own attention becomes
        answer = (q * q.shape[3] ** -0.5 @ k.transpose(2, 3)).softmax(3) @ v
    else:
        answer = F.scaled_dot_product_attention(q, k, v)
    joined: Tensor = answer.transpose(1, 2).flatten(2)
    return joined


def _heads(channels: int, heads: int | None) -> int:
    if heads is None:
        return divisor_at_most(MAX_HEADS, channels)
    if heads < 1 or channels % heads:
        raise ValueError(f"heads={heads} does not divide {channels} channels")
    return heads


class AttentionPool(nn.Module):
    """CLIP's pooling: the mean of the feature map is the query, and the mean and all positions are keys and values.

    `y = W attention(q = Q t₀, k = K t, v = V t)`, t = [mean x, x] + position embedding.
    Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021, arXiv:2103.00020.
    Computes only the query that is kept. The output has C channels.

    Args:
        heads: Heads of the attention; the largest divisor of C up to 8 by default.
        map_size: (H, W) of the position embedding, 7 × 7 where it is not known. Interpolated for feature maps of other
            sizes.
    """

    def __init__(self, channels: int, *, heads: int | None = None, map_size: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.heads = _heads(channels, heads)
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)
        self.mean_position = nn.Parameter(torch.empty(channels))
        self.position = nn.Parameter(torch.empty(1, channels, *(map_size or GRID)))
        for embedding in (self.mean_position, self.position):
            nn.init.trunc_normal_(embedding, std=channels**-0.5)
        for layer in (self.query, self.key, self.value):
            nn.init.trunc_normal_(layer.weight, std=channels**-0.5)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        position = self.position.to(x.dtype)
        if position.shape[2:] != x.shape[2:]:
            position = F.interpolate(position, size=x.shape[2:], mode="bilinear", align_corners=False)
        first = as_sequence(x.mean((2, 3), keepdim=True)) + self.mean_position.to(x.dtype)
        tokens = torch.cat((first, as_sequence(x + position)), 1)
        answer = attend(self.query(first), self.key(tokens), self.value(tokens), self.heads)
        pooled: Tensor = self.out(answer.flatten(1))
        return pooled


class GELU(nn.Module):
    """`nn.GELU()`; its graph multiplies by 1/√2, because OpenCV ends the process at the division by √2."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_exporting():
            return x * (0.5 * ((x * math.sqrt(0.5)).erf() + 1))
        return F.gelu(x)


class MapPool(nn.Module):
    """Multi-head attention pooling: a learned query, then a two-layer network.

    `z = W attention(q = Q latent, k = K x, v = V x)`, `y = z + MLP(LN(z))`. Without a position embedding: the order of
    the spatial locations does not matter.
    Lee, Lee, Kim, Kosiorek, Choi and Teh, Set Transformer, ICML 2019, arXiv:1810.00825, with one seed vector.

    Args:
        heads: Heads of the attention; the largest divisor of C up to 8 by default.
        ratio: Width of the hidden layer as a multiple of C.
    """

    def __init__(self, channels: int, *, heads: int | None = None, ratio: float = 4.0) -> None:
        super().__init__()
        hidden = int(channels * ratio)
        if hidden < 1:
            raise ValueError(f"ratio={ratio} leaves no hidden layer")
        self.heads = _heads(channels, heads)
        self.latent = nn.Parameter(torch.empty(1, 1, channels))
        nn.init.trunc_normal_(self.latent, std=channels**-0.5)
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)
        self.mlp = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, hidden), GELU(), nn.Linear(hidden, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        sequence = as_sequence(x)
        query = self.query(self.latent.to(x.dtype)).expand(x.shape[0], -1, -1)
        pooled: Tensor = self.out(attend(query, self.key(sequence), self.value(sequence), self.heads).flatten(1))
        refined: Tensor = self.mlp(pooled)
        return pooled + refined


class SimPool(nn.Module):
    """Attention with the mean as the query: `y = attention(q = Q mean x, k = K LN(x), v = LN(x))`.

    Psomas, Kakogeorgiou, Karantzalos and Avrithis, Keep It SimPool, ICCV 2023, arXiv:2309.06891, with γ = none: the
    authors' code with γ subtracts a minimum over the whole batch, which makes images depend on their neighbors.
    """

    def __init__(self, channels: int, *, heads: int = 1) -> None:
        super().__init__()
        self.heads = _heads(channels, heads)
        self.norm = nn.LayerNorm(channels, eps=1e-6)  # as in the authors' code
        self.query = nn.Linear(channels, channels, bias=False)
        self.key = nn.Linear(channels, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        sequence = self.norm(as_sequence(x)).to(x.dtype)
        query = self.query(as_sequence(x.mean((2, 3), keepdim=True)))
        return attend(query, self.key(sequence), sequence, self.heads).flatten(1)


class PRR(nn.Module):
    """Patch representation refinement: self-attention of all spatial locations, then the mean. No parameters.

    `y = mean attention(q = x, k = x, v = x)`.
    Hajimiri, Beizaee, Shakeri, Desrosiers, Ben Ayed and Dolz, Locality-Attending Vision Transformer, ICLR 2026,
    arXiv:2603.04892.

    Args:
        heads: Heads of the attention; the largest divisor of C up to 8 by default.
    """

    def __init__(self, channels: int, *, heads: int | None = None) -> None:
        super().__init__()
        self.heads = _heads(channels, heads)

    def forward(self, x: Tensor) -> Tensor:
        sequence = as_sequence(x)
        return attend(sequence, sequence, sequence, self.heads).mean(1)
