"""Power and exponential means: one number moves them from the mean to the maximum.

Global layers map `float[N, C, H, W] → float[N, C]`, local ones have the output shape of `nn.MaxPool2d`. Powers and
exponentials are taken in at least float32, because 1e-6 cubed is zero in half precision.

Two forms, equal to 1e-6. While training, a learned power is exp(p log x), whose gradient costs less than that of
`pow`; a graph for export has `pow`, which costs less there. An exponent that starts above `LARGEST_UNSHIFTED` takes
the maximum out first, so that nothing over- or underflows, however large it is.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from poolzoo.model.geometry import Geometry
from poolzoo.poolings.local import PAD_VALUE, LocalPooling, local_build
from poolzoo.poolings.shared import at_least_float32

LARGEST = 1e4  # far beyond where the mean is the maximum to every digit
LEAST = 0.1  # what a learned exponent or sharpness cannot fall below: at 0 neither mean is defined
LARGEST_UNSHIFTED = 5.0  # start values up to here are computed directly, …
NORMS = (1.0, 2.0)  # fixed exponents that need no powers
LARGEST_LEARNT = 8.0  # … and cannot learn to pass this: in float32, x^8 is a number from 2e-5 to 6e4


class GlobalLSE(nn.Module):
    """Log-mean-exp: `y = (1/r) log mean exp(r x)`, shifted by the maximum so that it cannot overflow.

    r → 0 is the mean and r → ∞ the maximum.
    Pinheiro and Collobert, From Image-level to Pixel-level Labeling, CVPR 2015, arXiv:1411.6228.

    Args:
        r: The sharpness, its start value where it is learned.
        learnable: Whether r is a parameter.
    """

    def __init__(self, channels: int, *, r: float = 10.0, learnable: bool = True) -> None:
        super().__init__()
        self.r = _number("r", r, learnable)

    def forward(self, x: Tensor) -> Tensor:
        wide = at_least_float32(x)
        return _log_mean_exp(wide.flatten(2), _bounded(self.r, wide), 2).to(x.dtype)


class LocalLSE(LocalPooling):
    """Log-mean-exp over each window: `y = (1/r) log mean exp(r x)`. As the global one."""

    def __init__(
        self,
        channels: int,
        geometry: Geometry,
        *,
        r: float = 10.0,
        learnable: bool = True,
    ) -> None:
        super().__init__(channels, geometry)
        self.r = _number("r", r, learnable)

    def forward(self, x: Tensor) -> Tensor:
        wide = at_least_float32(x)
        return _log_mean_exp_of_windows(self, wide, _bounded(self.r, wide)).to(x.dtype)


local_lse = local_build(LocalLSE)


def _log_mean_exp(x: Tensor, r: Tensor | float, dim: int, count: Tensor | float | None = None) -> Tensor:
    """`(1/r) log (1/count) Σ exp(r x)` along `dim`, whose length is the default count."""
    top = x.amax(dim, keepdim=True).detach()
    below = x - top
    mean = _mean_exp(below, r, dim) if count is None else (below * r).exp().sum(dim) / count
    return top.reshape(mean.shape) + mean.log() / r


def _mean_exp(x: Tensor, r: Tensor | float, dim: int | tuple[int, ...]) -> Tensor:
    """The mean of exp(r x) along `dim`.

    Where x has no gradient, as features of a frozen backbone, the derivative of a learned r is a mean too. Taken at
    once, it costs a third of what the chain rule does, which goes back through each operation on the feature map.
    """
    if not (isinstance(r, Tensor) and r.requires_grad) or x.requires_grad or torch.compiler.is_exporting():
        return (x * r).exp().mean(dim)
    fixed = r.detach()
    powers = (x * fixed).exp_()
    mean = powers.mean(dim)
    slope = powers.mul_(x).mean(dim)
    return mean + (r - fixed) * slope


def _log_mean_exp_of_windows(pooling: LocalPooling, x: Tensor, r: Tensor | float) -> Tensor:
    count = pooling.valid_count(x) if pooling.has_partial_windows(x) else None
    return _log_mean_exp(pooling.patches(x, -PAD_VALUE), r, 2, count)


class _Power(nn.Module):
    """`(mean w^p)^(1/p)` for positive w, in the form that suits the moment."""

    def __init__(self, p: float, learnable: bool) -> None:
        super().__init__()
        self.p = _number("p", p, learnable)
        self.shifted = p > LARGEST_UNSHIFTED

    def exponent(self, like: Tensor) -> Tensor | float:
        return _bounded(self.p, like, None if self.shifted else LARGEST_LEARNT)

    def root(self, mean: Tensor, p: Tensor | float) -> Tensor:
        mean = mean.clamp(min=torch.finfo(mean.dtype).tiny)  # where every power was too small to be a number
        return (mean.log() / p).exp() if _by_logarithm(p) else mean.pow(1 / p)

    def over_map(self, w: Tensor) -> Tensor:
        p = self.exponent(w)
        if self.shifted:
            return _log_mean_exp(w.log().flatten(2), p, 2).exp()
        return self.root(_mean_exp(w.log(), p, (2, 3)) if _by_logarithm(p) else w.pow(p).mean((2, 3)), p)

    def over_windows(self, w: Tensor, pooling: LocalPooling) -> Tensor:
        p = self.exponent(w)
        if self.shifted:
            return _log_mean_exp_of_windows(pooling, w.log(), p).exp()
        return self.root(pooling.avg_pool((w.log() * p).exp() if _by_logarithm(p) else w.pow(p)), p)


class GlobalGeM(_Power):
    """Generalized mean: `y = (mean max(x, eps)^p)^(1/p)`.

    p = 1 is the mean and p → ∞ the maximum of the clamped map.
    Radenović, Tolias and Chum, Fine-tuning CNN Image Retrieval with No Human Annotation, TPAMI 2019, arXiv:1711.02512.

    Args:
        p: The exponent, its start value where it is learned.
        learnable: Whether p is a parameter; one that starts at 5 or below stays at 8 or below.
        eps: The floor under x, which keeps negative and zero input defined.
    """

    def __init__(self, channels: int, *, p: float = 3.0, learnable: bool = True, eps: float = 1e-6) -> None:
        super().__init__(p, learnable)
        self.eps = _positive("eps", eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.over_map(at_least_float32(x).clamp(min=self.eps)).to(x.dtype)


class LocalGeM(LocalPooling):
    """Generalized mean over each window: `y = (mean max(x, eps)^p)^(1/p)`. As the global one."""

    def __init__(
        self,
        channels: int,
        geometry: Geometry,
        *,
        p: float = 3.0,
        learnable: bool = True,
        eps: float = 1e-6,
    ) -> None:
        super().__init__(channels, geometry)
        self.power = _Power(p, learnable)
        self.eps = _positive("eps", eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.power.over_windows(at_least_float32(x).clamp(min=self.eps), self).to(x.dtype)


local_gem = local_build(LocalGeM)


class GlobalLp(_Power):
    """The p-norm of the feature map: `y = (Σ |x|^p)^(1/p)`.

    Sermanet, Chintala and LeCun, Convolutional Neural Networks Applied to House Numbers Digit Classification,
    ICPR 2012, arXiv:1204.3968. `nn.LPPool2d` computes Σ x^p instead, which is NaN for odd p and negative x.

    Args:
        p: The exponent, its start value where it is learned.
        learnable: Whether p is a parameter.
    """

    def __init__(self, channels: int, *, p: float = 2.0, learnable: bool = False) -> None:
        super().__init__(p, learnable)

    def forward(self, x: Tensor) -> Tensor:
        wide = at_least_float32(x)
        if isinstance(self.p, float) and self.p in NORMS:
            return _norm(wide, self.p).to(x.dtype)
        wide = _magnitude(wide)
        count = x.shape[2] * x.shape[3]
        return (self.over_map(wide) * count ** (1 / self.exponent(wide))).to(x.dtype)


class LocalLp(LocalPooling):
    """The p-norm of each window: `y = (Σ |x|^p)^(1/p)`. As the global one."""

    def __init__(
        self,
        channels: int,
        geometry: Geometry,
        *,
        p: float = 2.0,
        learnable: bool = False,
    ) -> None:
        super().__init__(channels, geometry)
        self.power = _Power(p, learnable)

    def forward(self, x: Tensor) -> Tensor:
        wide = at_least_float32(x)
        if self.power.p == 2.0:
            return self.sum_pool(wide.square()).clamp(min=torch.finfo(wide.dtype).tiny).sqrt().to(x.dtype)
        wide = _magnitude(wide)
        count = self.valid_count(wide) if self.has_partial_windows(x) else self.kernel_size**2
        return (self.power.over_windows(wide, self) * count ** (1 / self.power.exponent(wide))).to(x.dtype)


local_lp = local_build(LocalLp)


def _norm(x: Tensor, p: float) -> Tensor:
    """The 1- or 2-norm over the feature map, `float[N, C, H, W] → float[N, C]`."""
    # Not torch's norm: sums of channels that lie side by side take a twentieth of its time. Nor is its graph as fast,
    # or reduced alike by every runtime.
    if p == 1:
        return x.abs().sum((2, 3))
    squares = (x * x).sum((2, 3))
    if not torch.compiler.is_exporting():
        squares = squares.clamp(min=torch.finfo(x.dtype).tiny)  # at 0 the root has no gradient
    return squares.sqrt()


def _magnitude(x: Tensor) -> Tensor:
    """|x|, kept above 0, where a power has no gradient."""
    return x.abs().clamp(min=torch.finfo(x.dtype).tiny)


def _number(name: str, value: float, learnable: bool) -> nn.Parameter | float:
    value = _positive(name, value)
    return nn.Parameter(torch.tensor([value])) if learnable else value


def _by_logarithm(p: Tensor | float) -> bool:
    return isinstance(p, Tensor) and not torch.compiler.is_exporting()


def _bounded(value: nn.Parameter | Tensor | float, like: Tensor, most: float | None = None) -> Tensor | float:
    return value.to(like.dtype).clamp(min=LEAST, max=most) if isinstance(value, Tensor) else value


def _positive(name: str, value: float) -> float:
    if not (math.isfinite(value) and 0 < value <= LARGEST):
        raise ValueError(f"{name}={value} must be above 0 and at most {LARGEST:g}")
    return value
