"""Second-order statistics of the feature map, `float[N, C, H, W] → float[N, D]`: variance, covariance, products.

Computed in at least float32, autocast switched off.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from poolzoo.poolings.shared import GlobalPooling, at_least_float32, normalized

VARIANCE_FLOOR = 1e-5  # added under the root, as in batch norm; keeps the gradient of a constant map finite
NORM_FLOOR = 1e-12  # under a root or a trace that is divided by
STEEPEST = 4e-6  # below it, as with a dead channel, the gradient of a root is too large to learn from
MOST_STEPS = 25  # of Newton–Schulz; where the covariance has no full rank, rounding errors have grown to NaN at 30


class GlobalStd(GlobalPooling):
    """Mean and standard deviation: `y = [mean x, √(var x + 1e-5)]`, biased variance, D = 2C.

    Snyder, Garcia-Romero, Sell, Povey and Khudanpur, X-Vectors: Robust DNN Embeddings for Speaker Recognition,
    ICASSP 2018, whose statistics pooling is over time; here it is over the feature map.
    """

    def forward(self, x: Tensor) -> Tensor:
        wide = at_least_float32(x)
        mean = wide.mean((2, 3), keepdim=True)
        variance = (wide - mean).square().mean((2, 3))
        return torch.cat((mean.flatten(1), (variance + VARIANCE_FLOOR).sqrt()), 1).to(x.dtype)


class _SecondOrder(nn.Module):
    """Channels reduced to at most `width` by a 1 × 1 convolution, then what a subclass makes of `float[N, d, HW]`."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        if width < 0:
            raise ValueError(f"width={width} must not be negative")
        self.width = min(channels, width) if width else channels
        self.reduce = nn.Conv2d(channels, self.width, 1, bias=False) if self.width < channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        reduced = at_least_float32(self.reduce(x).flatten(2))
        with torch.autocast(x.device.type, enabled=False):
            return self.pooled(reduced).to(x.dtype)

    def pooled(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class Cov(_SecondOrder):
    """Square root of the covariance of the channels, upper triangle: `y = triu(Σ^½)`, D = d (d + 1) / 2.

    `Σ = (x − mean x)(x − mean x)ᵀ / HW` of the reduced channels; Σ^½ by Newton–Schulz steps on Σ / tr Σ, which need no
    eigenvalues and so can be exported, times √tr Σ.
    Li, Xie, Wang and Gao, Towards Faster Training of Global Covariance Pooling Networks by Iterative Matrix Square
    Root Normalization (iSQRT-COV), CVPR 2018, arXiv:1712.01034. The reduction has no batch norm here.

    Args:
        width: d, the channels that are left by a 1 × 1 convolution (none where C is not above it); 0 keeps all.
        steps: Newton–Schulz steps.
    """

    def __init__(self, channels: int, *, width: int = 64, steps: int = 5) -> None:
        if not 1 <= steps <= MOST_STEPS:
            raise ValueError(f"steps={steps} must be from 1 to {MOST_STEPS}")
        super().__init__(channels, width)
        self.steps = steps
        index = torch.arange(self.width)
        self.register_buffer("upper", _flat_upper(index), persistent=False)

    upper: Tensor

    def pooled(self, x: Tensor) -> Tensor:
        centered = x - x.mean(2, keepdim=True)
        covariance = centered @ centered.transpose(1, 2) / x.shape[2]
        identity = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        trace = (covariance * identity).sum((1, 2), keepdim=True).clamp(min=NORM_FLOOR)
        root = newton_schulz(covariance / trace, self.steps) * trace.sqrt()
        return root.flatten(1).index_select(1, self.upper)


def _flat_upper(index: Tensor) -> Tensor:
    """The flat positions of the upper triangle of a square matrix, row by row."""
    row, column = torch.meshgrid(index, index, indexing="ij")
    return (row * len(index) + column)[row <= column]


def newton_schulz(a: Tensor, steps: int) -> Tensor:
    """The square root of positive semi-definite matrices of trace at most 1, `float[N, d, d]`, after some steps.

    `y ← y (3 I − z y) / 2`, `z ← (3 I − z y) z / 2`, from y = a, z = I.
    """
    three = 3 * torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    half = (three - a) / 2
    y, z = a @ half, half
    for _ in range(steps - 1):
        half = (three - z @ y) / 2
        y, z = y @ half, half @ z
    return y


class Bilinear(_SecondOrder):
    """Products of all pairs of channels, averaged: `Y = x xᵀ / HW`, signed root, norm 1; D = d².

    `y = s / ‖s‖₂`, `s = sign(Y) √|Y|`.
    Lin, RoyChowdhury and Maji, Bilinear CNN Models for Fine-grained Visual Recognition, ICCV 2015, arXiv:1504.07889,
    with both streams the same; the reduction is ours, as d² numbers are many.

    Args:
        width: d, the channels that are left by a 1 × 1 convolution (none where C is not above it); 0 keeps all.
    """

    def __init__(self, channels: int, *, width: int = 64) -> None:
        super().__init__(channels, width)

    def pooled(self, x: Tensor) -> Tensor:
        return _rooted_and_normalized((x @ x.transpose(1, 2) / x.shape[2]).flatten(1))


class CompactBilinear(nn.Module):
    """An unbiased sketch of `bilinear` with D = `width` numbers: products of pairs, added up in random buckets.

    `Y[b] = Σ s₁[i] s₂[j] (x xᵀ / HW)[i, j] over i, j with h₁[i] + h₂[j] ≡ b mod D`, h and s fixed random places and
    signs; signed root and norm 1 as in `bilinear`.
    Gao, Beijbom, Zhang and Darrell, Compact Bilinear Pooling, CVPR 2016, arXiv:1511.06062 (tensor sketch). They reach
    the same numbers by Fourier transforms, whose rounding the root would magnify wherever a bucket is empty; here each
    position's two sketches are multiplied out and added up along the wrapped diagonals.

    Args:
        width: D.
        seed: Of places and signs, which are stored with the weights.
    """

    places: Tensor
    signs: Tensor

    def __init__(self, channels: int, *, width: int = 512, seed: int = 0) -> None:
        super().__init__()
        if width < 2:
            raise ValueError(f"width={width} must be at least 2")
        self.width = width
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("places", torch.randint(width, (2, channels), generator=generator))
        self.register_buffer("signs", torch.randint(2, (2, channels), generator=generator).float() * 2 - 1)

    def forward(self, x: Tensor) -> Tensor:
        wide = at_least_float32(x.flatten(2)).transpose(1, 2)
        with torch.autocast(x.device.type, enabled=False):
            first, second = (self._sketch(index).to(wide.dtype) for index in (0, 1))
            products = (wide @ first).transpose(1, 2) @ (wide @ second)
        return _rooted_and_normalized(_sums_of_wrapped_diagonals(products) / wide.shape[1]).to(x.dtype)

    def _sketch(self, index: int) -> Tensor:
        """One of the two count sketches, `float[C, D]`: a sign in each row, in a random column."""
        return nn.functional.one_hot(self.places[index], self.width) * self.signs[index, :, None]


def _sums_of_wrapped_diagonals(x: Tensor) -> Tensor:
    """`y[b] = Σ x[i, j] over i + j ≡ b mod D`, `float[N, D, D] → float[N, D]`.

    Two copies side by side, read in rows that are one shorter, are the matrix with its row i shifted by i. Adding up
    with scattered indices would say it more plainly, but ONNX Runtime does that in several threads that lose sums.
    """
    size = x.shape[1]
    shifted = torch.unflatten(torch.cat((x, x), 2).flatten(1)[:, size:], 1, (size, 2 * size - 1))
    return shifted[:, :, :size].sum(1)


def _rooted_and_normalized(x: Tensor) -> Tensor:
    """`s / ‖s‖₂`, `s = sign(x) √|x|`."""
    return normalized(_signed_root(x), 1)


def _signed_root(x: Tensor) -> Tensor:
    """`sign(x) √|x|`. Its gradient, which has no bound at 0, goes no further than that at 4e-6, which is 250."""
    fixed = x.detach() if x.requires_grad and not torch.compiler.is_exporting() else x
    inverse = fixed.abs().clamp(min=NORM_FLOOR).rsqrt()
    if fixed is x:
        return x * inverse
    return fixed * inverse + (x - fixed) * (inverse.clamp(max=STEEPEST**-0.5) / 2)
