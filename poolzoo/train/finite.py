"""Whether a state can be kept: a NaN or an infinity in weights, averages or optimizer state ends a run for good."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

Named = Iterable[tuple[str, Tensor]]


def first_broken(tensors: Named, infinite: frozenset[str] = frozenset()) -> str | None:
    """The name of the first tensor that holds NaN or infinity; None where all are finite.

    A finite sum has finite terms alone, so that a sum of each tensor, and one question to the device, tells that all is
    well. Only where a sum is not finite, which may be an overflow, are its terms looked at.

    Args:
        tensors: Names and tensors; integers are finite as they are.
        infinite: Names of tensors that may hold infinities, but no NaN.
    """
    floats = [(name, tensor.detach()) for name, tensor in tensors if tensor.is_floating_point() or tensor.is_complex()]
    sums = [tensor.sum().isfinite() for _, tensor in floats]
    if not sums or bool(torch.stack([each.to(sums[0].device) for each in sums]).all()):
        return None
    return next((name for name, tensor in floats if _is_broken(tensor, name in infinite)), None)


def _is_broken(tensor: Tensor, may_be_infinite: bool) -> bool:
    return bool((tensor.isnan() if may_be_infinite else ~tensor.isfinite()).any())


def meant_infinite(module: nn.Module) -> frozenset[str]:
    """Names of the buffers that hold an infinity, as the masks of attention do, before anything is learnt."""
    return frozenset(
        name
        for name, buffer in module.named_buffers()
        if buffer.is_floating_point() and bool(buffer.isinf().any()) and not bool(buffer.isnan().any())
    )


def optimizer_tensors(optimizer: torch.optim.Optimizer, module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The tensors of an optimizer's state, each with its parameter's name."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    for parameter, state in optimizer.state.items():
        for key, value in _tensors(state):
            yield f"the optimizer's {key} of {names.get(id(parameter), 'a parameter')}", value


def _tensors(value: Any, key: str = "state") -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield key, value
    elif isinstance(value, dict):
        for name, part in value.items():
            yield from _tensors(part, str(name))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part, key)
