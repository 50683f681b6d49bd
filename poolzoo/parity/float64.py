"""Networks in float64, the precision of references."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


@contextmanager
def in_float64(module: nn.Module) -> Iterator[None]:
    """Within it, a float32 module computes in float64.

    Its weights return exactly: every float32 is a float64. A copy would trust that modules can be copied.
    """
    try:
        module.double()
        with _DepthwiseByTaps():
            yield
    finally:
        module.float()


class _DepthwiseByTaps(TorchFunctionMode):
    """A context in which a depthwise convolution in float64 is a sum over the taps of its kernel.

    torch has no kernel for it, and makes a convolution of each channel: 2 to 4 times the time for small maps.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return (_conv2d if func is F.conv2d else func)(*args, **(kwargs or {}))


def _conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """`F.conv2d`, with its arguments."""
    is_depthwise = input.dim() == 4 and groups > 1 and groups == input.shape[1] == weight.shape[0]
    if not is_depthwise or isinstance(padding, str) or input.dtype != torch.float64 or input.device.type != "cpu":
        return F.conv2d(input, weight, bias, stride, padding, dilation, groups)
    strides, margins, dilations = map(_pair, (stride, padding, dilation))
    x = F.pad(input, (margins[1], margins[1], margins[0], margins[0])) if any(margins) else input
    height, width = (
        1 + (x.shape[axis] - 1 - apart * (weight.shape[axis] - 1)) // step
        for axis, step, apart in zip((2, 3), strides, dilations, strict=True)
    )
    if height < 1 or width < 1:
        return F.conv2d(input, weight, bias, stride, padding, dilation, groups)  # which says what is wrong
    y = x.new_zeros(len(x), groups, height, width)
    if bias is not None:
        y += bias.view(-1, 1, 1)
    for row in range(weight.shape[2]):
        rows = slice(row * dilations[0], row * dilations[0] + (height - 1) * strides[0] + 1, strides[0])
        for column in range(weight.shape[3]):
            first = column * dilations[1]
            columns = slice(first, first + (width - 1) * strides[1] + 1, strides[1])
            y.addcmul_(x[:, :, rows, columns], weight[:, 0, row, column].view(-1, 1, 1))
    return y


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    """(vertical, horizontal), which torch lets one number stand for."""
    if isinstance(value, int):
        return value, value
    return (value[0], value[0]) if len(value) == 1 else (value[0], value[1])
