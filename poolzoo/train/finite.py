"""Whether a state can be kept: a NaN or an infinity in weights, averages or optimizer state ends a run for good."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

Named = Iterable[tuple[str, Tensor]]


def first_broken(tensors: Named, infinite: frozenset[str] = frozenset()) -> str | None:
    """The name of the first tensor that holds NaN or infinity; None where all are finite.

    The device is asked once for all tensors, and again only where something is wrong.

    Args:
        tensors: Names and tensors; integers are finite as they are.
        infinite: Names of tensors that may hold infinities, but no NaN.
    """
    names, flags = [], []
    for name, tensor in tensors:
        if (tensor.is_floating_point() or tensor.is_complex()) and tensor.numel():
            names.append(name)
            flags.append((~tensor.isnan()).all() if name in infinite else _all_finite(tensor))
    if not flags or bool(torch.stack([flag.to(flags[0].device) for flag in flags]).all()):
        return None
    return next(name for name, flag in zip(names, flags, strict=True) if not flag)


def _all_finite(tensor: Tensor) -> Tensor:
    return torch.linalg.vector_norm(tensor.detach(), torch.inf).isfinite()  # reads once and allocates nothing


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
