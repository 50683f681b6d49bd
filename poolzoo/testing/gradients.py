"""Whether gradients stay bounded where maps are degenerate: zero, constant, tied, tiny, in the thousands, one spike.

A gradient that is finite can end a training as well: one of 1e12 at a map that is exactly zero leaves the first layers
with infinities one step later. So each is compared with the layer's own gradients on ordinary maps, which makes the
bound free of the layer's gain, its width and its options.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, get_args, get_origin

import torch
from torch import Tensor, nn

# How many times an ordinary gradient a degenerate one may be. LayerNorm with its usual eps of 1e-6 divides by 1e-3
# where a map is constant, and so magnifies a thousand times; nothing that is in use needs more than ten times that.
LARGEST_GAIN: Final = 1e4
SIZE: Final = (4, 5)  # of the maps: rows and columns
ORDINARY: Final = 4  # random maps whose gradients are the measure: several, as a gate may be shut on one of them
SMALLEST: Final = 1e-2  # that an ordinary gradient counts as: that of a layer which gives a constant is rounding alone
MAP: Final = "the map"
LARGE, TINY = 1e3, 1e-6  # scales of the maps in the thousands, and of those that are all but zero


def maps(channels: int) -> dict[str, Tensor]:
    """Degenerate maps by name, `float[1, channels, 4, 5]` each."""
    x = torch.randn(1, channels, *SIZE, generator=torch.Generator().manual_seed(0))
    spike, hole, dead = torch.zeros_like(x), x.clone(), x.clone()
    spike[:, channels // 2, 1, 2] = 1.0
    hole[:, 0], dead[:, :, 1, 2] = 0.0, 0.0
    return {
        "zeros": torch.zeros_like(x),
        "one zero channel": hole,
        "one zero position": dead,
        "after a ReLU": x.relu(),
        "one spike": spike,
        "ties": x.sign(),
        "ties of 1e3": LARGE * x.sign(),
        "a constant": torch.ones_like(x),
        "a constant of -1": -torch.ones_like(x),
        "a constant of 1e3": torch.full_like(x, LARGE),
        "thousands": LARGE * x,
        "about 1e-3": LARGE * TINY * x,
        "about 1e-6": TINY * x,
        "a constant of 1e-6": torch.full_like(x, TINY),
    }


def largest(layer: nn.Module, x: Tensor) -> dict[str, float]:
    """The largest entry of each gradient, for the map and every parameter, at an upstream gradient of order 1.

    The random generator is seeded first, so that a layer that draws in training draws the same every time.
    """
    torch.manual_seed(0)
    x = x.clone().requires_grad_()
    layer.zero_grad()
    y = layer(x)
    if y.requires_grad:
        (y * torch.randn(y.shape[1:], generator=torch.Generator().manual_seed(1))).sum().backward()
    named = [(MAP, x.grad), *((name, parameter.grad) for name, parameter in layer.named_parameters())]
    return {name: float(grad.abs().max()) for name, grad in named if grad is not None}


def unbounded(layer: nn.Module, channels: int) -> Iterator[str]:
    """What is wrong with a layer's gradients, in words: which map, which gradient, how large, and what was allowed.

    A gradient for a map in the thousands may grow with it, as that of a product does. All maps go through the layer
    together first, and one by one only where that shows something.
    """
    ordinary = largest(layer, torch.randn(ORDINARY, channels, *SIZE, generator=torch.Generator().manual_seed(2)))
    every = maps(channels)
    for large in (False, True):
        some = {title: x for title, x in every.items() if (float(x.abs().max()) > LARGE / 2) == large}
        if not any(_beyond(layer, torch.cat(list(some.values())), ordinary)):
            continue
        for title, x in some.items():
            for name, size, allowed in _beyond(layer, x, ordinary):
                yield f"{title}: the gradient for {name} reaches {size:.3g}, allowed is {allowed:.3g}"


def _beyond(layer: nn.Module, x: Tensor, ordinary: Mapping[str, float]) -> Iterator[tuple[str, float, float]]:
    """The gradients that are too large or NaN: for what, how large, and what is allowed."""
    scale = max(1.0, float(x.abs().max()))
    for name, size in largest(layer, x).items():
        allowed = LARGEST_GAIN * scale * max(ordinary.get(name, 0.0), ordinary.get(MAP, 0.0), SMALLEST)
        if not size <= allowed:
            yield name, size, allowed


def option_values(build: Any, given: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The options with one of them changed: each choice, and half and twice of each number.

    Args:
        build: A pooling's.
        given: Options that are set already, which stay.
    """
    for parameter in inspect.signature(build, eval_str=False).parameters.values():
        if parameter.kind is not parameter.KEYWORD_ONLY or parameter.name in (*given, "map_size"):
            continue
        for value in _others(parameter.default, _choices(build, parameter.name)):
            yield {**given, parameter.name: value}


def _choices(build: Any, name: str) -> tuple[Any, ...]:
    try:
        from typing import get_type_hints

        hint = get_type_hints(build.__init__ if inspect.isclass(build) else build).get(name)
    except Exception:  # annotations may name what is not there at run time
        return ()
    return get_args(hint) if get_origin(hint) is Literal else ()


def _others(default: Any, choices: tuple[Any, ...]) -> tuple[Any, ...]:
    if choices:
        return tuple(choice for choice in choices if choice != default)
    if isinstance(default, bool):
        return (not default,)
    return (type(default)(default / 2), default * 2) if isinstance(default, int | float) else ()
