"""Encodings of the feature map by its distance from learned centers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from poolzoo.poolings.shared import at_least_float32, inverse_norm, normalized


class NetVLAD(nn.Module):
    """Residuals from learned centers, softly assigned: `float[N, C, H, W] → float[N, K C]`.

    `V_k = Σ_i a_k(x_i) (x_i − c_k)`, `a = softmax(W x_i)` over the K centers, x_i normalized to length 1 first; each
    V_k is normalized, then all of them together.
    Arandjelović, Gronat, Torii, Pajdla and Sivic, NetVLAD, CVPR 2016, arXiv:1511.07247. Centers start at random, not
    from a clustering of the data.

    Args:
        clusters: K.
        normalize_input: Whether to normalize the vector at each spatial location first, as in the paper.
    """

    def __init__(self, channels: int, *, clusters: int = 8, normalize_input: bool = True) -> None:
        super().__init__()
        if clusters < 1:
            raise ValueError(f"clusters={clusters} must be at least 1")
        self.normalize_input = normalize_input
        self.assign = nn.Conv2d(channels, clusters, 1, bias=False)
        self.centers = nn.Parameter(torch.rand(clusters, channels))

    def forward(self, x: Tensor) -> Tensor:
        wide = at_least_float32(x)
        if self.normalize_input:
            wide = normalized(wide, 1)
        assignment = at_least_float32(self.assign(wide.to(self.assign.weight.dtype))).flatten(2).softmax(1)
        with torch.autocast(x.device.type, enabled=False):
            sums = assignment @ wide.flatten(2).transpose(1, 2)
            residuals = torch.addcmul(sums, assignment.sum(2, keepdim=True), self.centers.to(wide.dtype), value=-1)
        return _normalized_twice(residuals).to(x.dtype)


def _normalized_twice(x: Tensor) -> Tensor:
    """Each vector of `float[N, K, C]` normalized, then all K together: `float[N, K C]`."""
    if torch.compiler.is_exporting():
        return normalized(normalized(x, 2).flatten(1), 1)
    norms = torch.linalg.vector_norm(x, dim=2, keepdim=True)
    own = inverse_norm(norms, x.shape[2])
    of_all = torch.linalg.vector_norm(norms * own, dim=1, keepdim=True)
    return (x * (own * inverse_norm(of_all, x.shape[1] * x.shape[2]))).flatten(1)
