"""Whether gradients stay bounded on degenerate feature maps: zero, constant, tied, tiny, thousands, one spike.

A finite gradient can end a training too: one of 1e12 at a feature map of zeros gives infinite weights one step later.
Each gradient is compared with the layer's own gradients on ordinary feature maps, so that the bound does not depend on
the layer's gain, its out_features or its options.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, get_args, get_origin

import torch
from torch import Tensor, nn

# How many times an ordinary gradient a degenerate one may be. LayerNorm with its usual eps of 1e-6 divides by 1e-3
# where its input is constant, a gain of 1000. The bound is ten times that.
LARGEST_GAIN: Final = 1e4
SIZE: Final = (4, 5)  # of the feature maps: rows and columns
ORDINARY: Final = 4  # random feature maps for the ordinary gradient: several, as a gate may be closed on one of them
SMALLEST: Final = 1e-2  # floor of the ordinary gradient: that of a layer with a constant output is rounding noise
MAP: Final = "the feature map"
LARGE: Final = 1e3  # scale of the feature maps in the thousands …
TINY: Final = 1e-6  # … and of those that are nearly zero


def maps(channels: int) -> dict[str, Tensor]:
    """Degenerate feature maps by name, `float[1, channels, 4, 5]` each."""
    x = torch.randn(1, channels, *SIZE, generator=torch.Generator().manual_seed(0))
    spike, hole, dead = torch.zeros_like(x), x.clone(), x.clone()
    spike[:, channels // 2, 1, 2] = 1.0
    hole[:, 0], dead[:, :, 1, 2] = 0.0, 0.0
    return {
        "zeros": torch.zeros_like(x),
        "one zero channel": hole,
        "one zero location": dead,
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
    """The largest entry of each gradient, for the feature map and every parameter, at an upstream gradient of order 1.

    Seeds the random generator first, so that a layer that draws in training draws the same every time.
    """
    torch.manual_seed(0)
    x = x.clone().requires_grad_()
    layer.zero_grad()
    y = layer(x)
    if y.requires_grad:
        loss: Any = (y * torch.randn(y.shape[1:], generator=torch.Generator().manual_seed(1))).sum()
        loss.backward()
    named = [(MAP, x.grad), *((name, parameter.grad) for name, parameter in layer.named_parameters())]
    return {name: float(grad.abs().max()) for name, grad in named if grad is not None}


def unbounded(layer: nn.Module, channels: int) -> Iterator[str]:
    """The gradients of a layer that are too large, in words: which feature map, which gradient, its size, the limit.

    The limit grows with feature maps in the thousands, as the gradient of a product does. All feature maps go through
    the layer in one batch first, and one by one only where that finds something.
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
    """The gradients that are too large or NaN: for what, how large, and the limit."""
    scale = max(1.0, float(x.abs().max()))
    for name, size in largest(layer, x).items():
        allowed = LARGEST_GAIN * scale * max(ordinary.get(name, 0.0), ordinary.get(MAP, 0.0), SMALLEST)
        if not size <= allowed:
            yield name, size, allowed


def option_values(build: Any, given: Mapping[str, object]) -> Iterator[dict[str, object]]:
    """The options with one of them changed: each other choice, and half and twice of each number.

    Args:
        build: The pooling's build.
        given: Options that are set already and stay.
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
