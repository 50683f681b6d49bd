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

    torch has no kernel for it, and makes a convolution of each channel; `benchmarks/parity/float64.py` measures both.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        own = func is F.conv2d and not types  # of tensors that define theirs
        return (_conv2d if own else func)(*args, **(kwargs or {}))


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
    is_depthwise = input.dim() == weight.dim() == 4 and 1 < groups == input.shape[1] and weight.shape[:2] == (groups, 1)
    tensors = [input, weight] if bias is None else [input, weight, bias]
    is_float64 = all(one.dtype == torch.float64 and one.device.type == "cpu" for one in tensors)
    if not is_depthwise or not is_float64 or isinstance(padding, str):
        return F.conv2d(input, weight, bias, stride, padding, dilation, groups)
    strides, margins, dilations = map(_pair, (stride, padding, dilation))
    x = F.pad(input, (margins[1], margins[1], margins[0], margins[0])) if any(margins) else input
    height, width = (
        1 + (x.shape[axis] - 1 - apart * (weight.shape[axis] - 1)) // step
        for axis, step, apart in zip((2, 3), strides, dilations, strict=True)
    )
    if height < 1 or width < 1:
        return F.conv2d(input, weight, bias, stride, padding, dilation, groups)  # which says what is wrong
    taps = []
    for row in range(weight.shape[2]):
        rows = slice(row * dilations[0], row * dilations[0] + (height - 1) * strides[0] + 1, strides[0])
        for column in range(weight.shape[3]):
            first = column * dilations[1]
            columns = slice(first, first + (width - 1) * strides[1] + 1, strides[1])
            taps.append((x[:, :, rows, columns], weight[:, 0, row, column].view(-1, 1, 1)))
    y = torch.mul(*taps[0]) if bias is None else torch.addcmul(bias.view(-1, 1, 1), *taps[0])
    for tap in taps[1:]:
        y.addcmul_(*tap)
    return y


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    """(vertical, horizontal), which torch lets one number stand for."""
    first, *others = value if isinstance(value, Sequence) else [value]
    return int(first), int(others[0] if others else first)
