"""The base of local poolings: windows as `nn.MaxPool2d` places them, and what the usual reductions over them need."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poolzoo.model.geometry import Geometry, LocalBuild

PAD_VALUE = 1e30  # a finite stand-in for ±∞ in the padding, where an infinity times a weight of zero would be NaN


class LocalPooling(nn.Module):
    """A local pooling: `float[N, C, H, W] → float[N, C, h, w]` with the output size of `nn.MaxPool2d`.

    Padding belongs to no window: a window that overlaps the border is a partial window, with fewer locations.

    Args:
        channels: Channels C of the input; for subclasses, the base needs no channels.
        geometry: Where the windows are.
    """

    def __init__(self, channels: int, geometry: Geometry) -> None:
        super().__init__()
        self.geometry = geometry
        self.kernel_size = geometry.kernel_size
        self.stride = geometry.stride
        self.padding = geometry.padding
        self.ceil_mode = geometry.ceil_mode

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"

    def output_size(self, x: Tensor) -> tuple[int, int]:
        """Height h and width w of the output."""
        return self.geometry.output_size(x.shape[2]), self.geometry.output_size(x.shape[3])

    def end_padding(self, x: Tensor) -> tuple[int, int]:
        """Rows and columns that must follow the last ones of x for the last windows to be whole."""
        rows, columns = (
            max(0, (count - 1) * self.stride + self.kernel_size - self.padding - size)
            for count, size in zip(self.output_size(x), x.shape[2:], strict=True)
        )
        return rows, columns

    def has_partial_windows(self, x: Tensor) -> bool:
        """Whether some window overlaps the border."""
        return self.padding > 0 or any(self.end_padding(x))

    def padded(self, x: Tensor, value: float) -> Tensor:
        """x with just enough padding of `value` for every window to be whole."""
        if not self.has_partial_windows(x):
            return x
        rows, columns = self.end_padding(x)
        return F.pad(x, (self.padding, columns, self.padding, rows), value=value)

    def patches(self, x: Tensor, pad_value: float) -> Tensor:
        """The values in each window, row by row, as `F.unfold` gives them: `float[N, C, k², h, w]`."""
        if torch.compiler.is_exporting():
            return torch.stack(self.patch_slices(x, pad_value), 2)  # 10 times as fast as ONNX's form of unfold
        size, x = self.output_size(x), self.padded(x, pad_value)
        return F.unfold(x, self.kernel_size, stride=self.stride).view(*x.shape[:2], -1, *size)

    def patch_slices(self, x: Tensor, pad_value: float) -> list[Tensor]:
        """The same as k² feature maps `float[N, C, h, w]`, one for each place in the window."""
        (rows, columns), k, stride = self.output_size(x), self.kernel_size, self.stride
        x = self.padded(x, pad_value)
        bottom, right = (rows - 1) * stride + 1, (columns - 1) * stride + 1
        return [x[:, :, i : i + bottom : stride, j : j + right : stride] for i in range(k) for j in range(k)]

    def valid_count(self, x: Tensor) -> Tensor:
        """How many locations of x each window has: `float[1, 1, h, w]`."""
        return self.patches(torch.ones_like(x[:1, :1]), 0.0).sum(2)

    def max_pool(self, x: Tensor) -> Tensor:
        """Maximum over each window, `float[N, C, h, w]`."""
        return F.max_pool2d(x, self.kernel_size, self.stride, self.padding, ceil_mode=self.ceil_mode)

    def avg_pool(self, x: Tensor) -> Tensor:
        """Mean over each window, padding not counted, `float[N, C, h, w]`."""
        return F.avg_pool2d(x, self.kernel_size, self.stride, self.padding, self.ceil_mode, count_include_pad=False)

    def sum_pool(self, x: Tensor) -> Tensor:
        """Sum over each window, `float[N, C, h, w]`."""
        return F.avg_pool2d(self.padded(x, 0.0), self.kernel_size, self.stride) * self.kernel_size**2


def local_build(make: Callable[..., nn.Module]) -> LocalBuild:
    """The `build` of a local pooling that takes its geometry as one value.

    Args:
        make: A class or function `(channels, geometry, *, options)`.

    Returns:
        `build(channels, kernel_size, stride, padding, ceil_mode, *, options)`, with the types, the defaults and the
        docstring of `make`, from which the command line reads a pooling's options.
    """

    def build(channels: int, kernel_size: int, stride: int, padding: int, ceil_mode: bool, **options: Any) -> nn.Module:
        return make(channels, Geometry(kernel_size, stride, padding, ceil_mode), **options)

    function: Any = build
    positional = list(inspect.signature(build).parameters.values())[:-1]
    options = [p for p in inspect.signature(make).parameters.values() if p.kind is p.KEYWORD_ONLY]
    function.__signature__ = inspect.Signature([*positional, *options])
    function.__doc__ = make.__doc__
    function.__wrapped__ = make.__init__ if inspect.isclass(make) else make  # where the annotations can be evaluated
    function.__annotations__ = {p.name: p.annotation for p in (*positional, *options)}
    return build
