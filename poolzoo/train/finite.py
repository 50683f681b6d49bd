"""Checks that a training state is finite: NaN or infinity in weights, averages or optimizer state cannot be undone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn


def first_non_finite(tensors: Iterable[tuple[str, Tensor]], allow_infinite: frozenset[str] = frozenset()) -> str | None:
    """The name of the first tensor that holds NaN or infinity; None if all are finite.

    A finite sum has finite terms. One sum of each tensor and a single read from the device therefore suffice if all is
    well. A sum that is not finite may have overflowed, so that its terms are checked.

    Args:
        tensors: Names and tensors; integer tensors are skipped.
        allow_infinite: Names of tensors that may hold infinities, but no NaN.
    """
    floats = [(name, tensor.detach()) for name, tensor in tensors if tensor.is_floating_point() or tensor.is_complex()]
    sums = [tensor.sum().isfinite() for _, tensor in floats]
    if not sums or bool(torch.stack([each.to(sums[0].device) for each in sums]).all()):
        return None
    return next((name for name, tensor in floats if _has_non_finite(tensor, name in allow_infinite)), None)


def _has_non_finite(tensor: Tensor, allow_infinite: bool) -> bool:
    return bool((tensor.isnan() if allow_infinite else ~tensor.isfinite()).any())


def infinite_buffers(module: nn.Module) -> frozenset[str]:
    """Names of the buffers that hold infinities by design, such as attention masks; call it before training."""
    return frozenset(
        name
        for name, buffer in module.named_buffers()
        if buffer.is_floating_point() and bool(buffer.isinf().any()) and not bool(buffer.isnan().any())
    )


def named_optimizer_state(optimizer: torch.optim.Optimizer, module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The tensors of an optimizer's state, each with the name of its parameter."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    for parameter, state in optimizer.state.items():
        for key, value in _tensors_in(state):
            yield f"the optimizer's {key} of {names.get(id(parameter), 'a parameter')}", value


def _tensors_in(value: object, key: str = "state") -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield key, value
    elif isinstance(value, dict):
        for name, part in value.items():
            yield from _tensors_in(part, str(name))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors_in(part, key)
