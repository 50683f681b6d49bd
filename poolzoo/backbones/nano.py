"""Small backbones of our own, for images of about 32 × 32, that train on a CPU in minutes.

Both downsample with `nn.MaxPool2d` modules, so that any local pooling can take their place.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor, nn

from poolzoo.errors import UsageError


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
        return x + self.second(self.first(x))


def plain(*, pretrained: bool = False, widths: str = "32-64-64") -> nn.Module:
    """The textbook network: conv, pool, conv, pool, conv. `float[N, 3, H, W] → float[N, 64, H/4, W/4]`."""
    return _checked(pretrained, _plain, widths)


def resnet(*, pretrained: bool = False, widths: str = "32-64-64") -> nn.Module:
    """The textbook network with a residual block behind it. `float[N, 3, H, W] → float[N, 64, H/4, W/4]`."""
    return _checked(pretrained, _resnet, widths)


def _plain(first: int, second: int, third: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv1=ConvNorm(3, first),
            pool1=nn.MaxPool2d(2),
            conv2=ConvNorm(first, second),
            pool2=nn.MaxPool2d(2),
            conv3=ConvNorm(second, third),
        )
    )


def _resnet(first: int, second: int, third: int) -> nn.Module:
    trunk = _plain(first, second, third)
    trunk.add_module("block", Residual(third))
    return trunk


def _checked(pretrained: bool, build: Callable[..., nn.Module], widths: str) -> nn.Module:
    if pretrained:
        raise UsageError("the nano/ backbones have no pretrained weights", "leave --pretrained out")
    try:
        numbers = [int(width) for width in widths.split("-")]
        return build(*numbers)
    except (ValueError, TypeError) as error:
        raise UsageError(f"widths={widths} does not fit", "write numbers such as widths=32-64-64") from error
