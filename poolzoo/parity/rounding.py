"""Random rounding errors: other results that a computation in float32 could have had."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

UNIT: Final = 2.0**-20  # float32 rounds by 2^-24; sums of thousands, one after the other, lose a few bits more


class RandomRounding(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's class
    """A context in which every float32 result of an operation is changed by a random rounding error.

    Monte Carlo arithmetic (Parker, UCLA CSD-970002, 1997), at the level of tensors. It shows what another
    order of operations may not: a choice among almost equal values, such as an argmax, depends on rounding.

    Args:
        seed: Of the random rounding errors.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self._generator = torch.Generator().manual_seed(seed)

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = {id(one) for one in args}
        memory = {one.untyped_storage().data_ptr() for one in args if isinstance(one, Tensor)}
        result = func(*args, **(kwargs or {}))
        if not isinstance(result, Tensor) or result.dtype != torch.float32:
            return result
        if id(result) not in given and result.untyped_storage().data_ptr() in memory:
            return result  # a view: nothing was computed
        signs = torch.rand(result.shape, generator=self._generator).mul_(2).sub_(1)
        return result.mul_(signs.mul_(UNIT).add_(1)) if id(result) in given else result * signs.mul_(UNIT).add_(1)
