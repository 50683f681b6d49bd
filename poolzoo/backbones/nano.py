"""Small backbones of our own, for images of about 32 × 32, that train on a CPU in minutes.

Both downsample by pooling alone, and measure the width behind it, so that any local pooling can take its place. Their
weights come with the package; `weights/README.md` says what they were learnt from.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from poolzoo.common.errors import UsageError
from poolzoo.model import accounting

WEIGHTS = Path(__file__).parent / "weights"
Build = Callable[[int, int, int, int, bool], nn.Module]  # channels, kernel_size, stride, padding, ceil_mode


class ConvNorm(nn.Sequential):
    """3 × 3 convolution, batch norm, ReLU: `float[N, inputs, H, W] → float[N, outputs, H, W]`."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            OrderedDict(
                conv=nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
                norm=nn.BatchNorm2d(outputs),
                act=nn.ReLU(inplace=True),
            )
        )


class Residual(nn.Module):
    """Two convolutions around which the input passes: `y = x + f(f(x))`, the shape stays."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvNorm(channels, channels)
        self.second = ConvNorm(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.first(x))
        return x + y


def plain(*, pretrained: bool = False, widths: str = "32-64-64", local_pool: Build | None = None) -> nn.Module:
    """The textbook network: conv, pool, conv, pool, conv. `float[N, 3, H, W] → float[N, 64, H/4, W/4]`."""
    trunk, _ = _trunk(widths, local_pool or _max_pool)
    return _filled(trunk, "nano-plain") if pretrained else trunk


def resnet(*, pretrained: bool = False, widths: str = "32-64-128", local_pool: Build | None = None) -> nn.Module:
    """Wider, once more pooled, and a residual block behind it. `float[N, 3, H, W] → float[N, 128, H/8, W/8]`."""
    make = local_pool or _max_pool
    trunk, width = _trunk(widths, make)
    pool3 = make(width, 2, 2, 0, False)
    trunk.add_module("pool3", pool3)
    trunk.add_module("block", Residual(_width_behind(pool3, width)))
    return _filled(trunk, "nano-resnet") if pretrained else trunk


def _filled(trunk: nn.Module, name: str) -> nn.Module:
    """The network with the package's weights.

    Raises:
        UsageError: They are for other widths.
    """
    state = load_file(WEIGHTS / f"{name}.safetensors")
    own = trunk.state_dict()
    learnt = {key: value.shape for key, value in own.items() if not key.startswith("pool")}  # a local pooling's is new
    strange = sorted(key for key in {*learnt, *state} if key not in state or learnt.get(key) != state[key].shape)
    if strange:
        raise UsageError(
            f"the weights of {name.replace('-', '/')} are for its default widths, not for these ({strange[0]})",
            "leave widths=, a local pooling that changes the channels, or --pretrained out",
        )
    filled: Any = trunk
    source = f"the package's weights of {name.replace('-', '/')}"
    filled.accounting = accounting.fill(trunk, state, source, fresh=("pool",))
    return trunk


def _max_pool(channels: int, kernel_size: int, stride: int, padding: int, ceil_mode: bool) -> nn.Module:
    return nn.MaxPool2d(kernel_size, stride, padding, ceil_mode=ceil_mode)


def _trunk(widths: str, make: Build) -> tuple[nn.Sequential, int]:
    """Three convolutions with a pooling after the first and the second, and the width behind them."""
    first, second, third = _numbers(widths)
    pool1, pool2 = (make(width, 2, 2, 0, False) for width in (first, second))
    layers = OrderedDict(
        conv1=ConvNorm(3, first),
        pool1=pool1,
        conv2=ConvNorm(_width_behind(pool1, first), second),
        pool2=pool2,
        conv3=ConvNorm(_width_behind(pool2, second), third),
    )
    return nn.Sequential(layers), third


def _width_behind(pool: nn.Module, channels: int) -> int:
    """The channels that a pooling layer gives: some change them."""
    with torch.no_grad():
        y: Tensor = pool.eval()(torch.zeros(1, channels, 8, 8))
    pool.train()
    return y.shape[1]


def _numbers(widths: str) -> tuple[int, int, int]:
    numbers = [int(width) if width.isdigit() else 0 for width in widths.split("-")]
    if len(numbers) != 3 or min(numbers) < 1:
        raise UsageError(f"widths={widths} does not fit", "write three numbers such as widths=32-64-64")
    return numbers[0], numbers[1], numbers[2]
