"""Small backbones of our own, for images of about 32 × 32, that train on a CPU in minutes.

Both downsample only by pooling and measure the channels behind it, so that any local pooling can replace it. Their
weights come with the package; `weights/README.md` says how they were trained.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Final, cast

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from poolzoo.common.errors import UsageError
from poolzoo.model import accounting
from poolzoo.model.accounting import HasAccounting
from poolzoo.model.geometry import Geometry, LocalBuild

WEIGHTS: Final = Path(__file__).parent / "weights"
TRAINED_ON: Final = WEIGHTS / "trained-on.npy"  # a sample of the images by their digests, the same for both
GEOMETRY: Final = Geometry(kernel_size=2, stride=2)  # of every pooling


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
    """Two convolutions with a skip connection: `y = x + g(f(x))`, `float[N, C, H, W] → float[N, C, H, W]`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvNorm(channels, channels)
        self.second = ConvNorm(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.first(x))
        return x + y


def plain(*, pretrained: bool = False, widths: str = "32-64-64", local_pool: LocalBuild | None = None) -> nn.Module:
    """The textbook network: conv, pool, conv, pool, conv. `float[N, 3, H, W] → float[N, 64, H/4, W/4]`."""
    trunk, _ = _trunk(widths, local_pool or _max_pool)
    return _filled(trunk, "nano-plain") if pretrained else trunk


def resnet(*, pretrained: bool = False, widths: str = "32-64-128", local_pool: LocalBuild | None = None) -> nn.Module:
    """Wider, with a third pooling and a residual block behind it. `float[N, 3, H, W] → float[N, 128, H/8, W/8]`."""
    make = local_pool or _max_pool
    trunk, channels = _trunk(widths, make)
    pool3 = GEOMETRY.build(make, channels)
    trunk.add_module("pool3", pool3)
    trunk.add_module("block", Residual(_out_channels(pool3, channels)))
    return _filled(trunk, "nano-resnet") if pretrained else trunk


def trained_digests() -> np.ndarray:
    """A sample of the images that the package's weights were trained on, `uint8[K, 8]`."""
    return np.asarray(np.load(TRAINED_ON))


def _filled(trunk: nn.Module, name: str) -> nn.Module:
    """The network with the package's weights.

    Raises:
        UsageError: They are for other widths.
    """
    state = load_file(WEIGHTS / f"{name}.safetensors")
    own = trunk.state_dict()
    stored = {key: value.shape for key, value in own.items() if not key.startswith("pool")}  # a local pooling is fresh
    different = sorted(key for key in {*stored, *state} if key not in state or stored.get(key) != state[key].shape)
    if different:
        raise UsageError(
            f"the weights of {name.replace('-', '/')} are for its default widths, not for these ({different[0]})",
            "leave widths=, a local pooling that changes the channels, or --pretrained out",
        )
    source = f"the package's weights of {name.replace('-', '/')}"
    cast(HasAccounting, trunk).accounting = accounting.fill(trunk, state, source, fresh=("pool",))
    return trunk


def _max_pool(channels: int, kernel_size: int, stride: int, padding: int, ceil_mode: bool) -> nn.Module:
    return nn.MaxPool2d(kernel_size, stride, padding, ceil_mode=ceil_mode)


def _trunk(widths: str, make: LocalBuild) -> tuple[nn.Sequential, int]:
    """Three convolutions with a pooling after the first and the second, and the number of output channels."""
    first, second, third = _numbers(widths)
    pool1 = GEOMETRY.build(make, first)
    pool2 = GEOMETRY.build(make, second)
    layers = OrderedDict(
        conv1=ConvNorm(3, first),
        pool1=pool1,
        conv2=ConvNorm(_out_channels(pool1, first), second),
        pool2=pool2,
        conv3=ConvNorm(_out_channels(pool2, second), third),
    )
    return nn.Sequential(layers), third


def _out_channels(pool: nn.Module, channels: int) -> int:
    """The output channels of a pooling layer: some change them."""
    with torch.no_grad():
        y: Tensor = pool.eval()(torch.zeros(1, channels, 8, 8))
    pool.train()
    return y.shape[1]


def _numbers(widths: str) -> tuple[int, int, int]:
    numbers = [int(width) if width.isdecimal() else 0 for width in widths.split("-")]
    if len(numbers) != 3 or min(numbers) < 1:
        raise UsageError(f"widths={widths} does not fit", "write three numbers such as widths=32-64-64")
    return numbers[0], numbers[1], numbers[2]
