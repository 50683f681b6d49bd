"""Power and exponential means: one parameter moves them from the mean to the maximum.

Every layer maps `float[N, C, H, W] → float[N, C]`. Powers and exponentials are taken in at least float32, because
1e-6 cubed is zero in half precision.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

LARGEST = 1e4  # far beyond where the mean is the maximum to every digit
LEAST = 0.1  # what a learnt exponent or sharpness cannot fall below: at 0 neither mean is defined


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


class GlobalGeM(nn.Module):
    """Generalised mean: `y = (mean max(x, eps)^p)^(1/p)`.

    p = 1 is the mean and p → ∞ the maximum of the clamped map.
    Radenović, Tolias and Chum, Fine-tuning CNN Image Retrieval, TPAMI 2018, arXiv:1711.02512.

    Args:
        p: The exponent, its start value where it is learnt.
        learnable: Whether p is a parameter.
        eps: The floor under x, which keeps negative and zero input defined.
    """

    def __init__(self, p: float, learnable: bool, eps: float) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor([p]), requires_grad=learnable)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = _at_least_float32(x).clamp(min=self.eps)
        p = self.p.to(wide.dtype).clamp(min=LEAST)
        top = wide.amax((2, 3), keepdim=True).detach()  # cancels out; without it 1e-6 to the seventh is zero
        mean = (wide / top).pow(p).mean((2, 3))
        return (top.flatten(1) * mean.pow(1 / p)).to(x.dtype)


class GlobalLSE(nn.Module):
    """Log-mean-exp: `y = (1/r) log mean exp(r x)`, shifted by the maximum so that it cannot overflow.

    r → 0 is the mean and r → ∞ the maximum.
    Pinheiro and Collobert, From Image-level to Pixel-level Labeling, CVPR 2015, arXiv:1411.6228.

    Args:
        r: The sharpness, its start value where it is learnt.
        learnable: Whether r is a parameter.
    """

    def __init__(self, r: float, learnable: bool) -> None:
        super().__init__()
        self.r = nn.Parameter(torch.tensor([r]), requires_grad=learnable)

    def forward(self, x: Tensor) -> Tensor:
        wide = _at_least_float32(x)
        r = self.r.to(wide.dtype).clamp(min=LEAST)
        top = wide.amax((2, 3), keepdim=True).detach()
        mean = ((wide - top) * r).exp().mean((2, 3))
        return (top.flatten(1) + mean.log() / r).to(x.dtype)


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if not 0 < value <= LARGEST:
            raise ValueError(f"{name}={value} must be above 0 and at most {LARGEST:g}")


def global_gem(channels: int, *, p: float = 3.0, learnable: bool = True, eps: float = 1e-6) -> nn.Module:
    _check_positive(p=p, eps=eps)
    return GlobalGeM(p, learnable, eps)


def global_lse(channels: int, *, r: float = 10.0, learnable: bool = True) -> nn.Module:
    _check_positive(r=r)
    return GlobalLSE(r, learnable)
