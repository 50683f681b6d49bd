"""How much memory images take inside a network, measured with one of them; and how many to evaluate at a time."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from poolzoo.train.device import DevicePolicy

MOST_IMAGES: Final = 256  # evaluated at a time: more gain nothing
# Bytes that evaluation may take beside the network. More than a processor's cache holds gains nothing there; a GPU
# needs enough images at a time to be busy.
EVALUATION_BYTES: Final = {"cpu": 96 << 20, "cuda": 4 << 30}


@dataclass(frozen=True)
class Footprint:
    """Bytes that one image takes.

    Attributes:
        peak: Of all tensors that live at the same time, without gradients.
        total: Of all tensors together, as where each is kept for its gradient.
    """

    peak: int
    total: int


class _Watch(TorchDispatchMode):
    """Counts the memory of every tensor that an operation makes, from its birth to its death."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = self.total = 0
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = {id(leaf.untyped_storage()) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if not isinstance(leaf, Tensor):
                continue
            storage = leaf.untyped_storage()
            if id(storage) in given or storage in self._seen:  # a view, or changed in place
                continue
            self._seen.add(storage)
            count = storage.nbytes()
            self.live += count
            self.total += count
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._died, count)
        return result

    def _died(self, count: int) -> None:
        self.live -= count


@torch.no_grad()
def measure(
    network: nn.Module,
    preprocess: nn.Module,
    size: tuple[int, int],
    policy: DevicePolicy,
    forward: Callable[[Tensor], Tensor] | None = None,
) -> Footprint:
    """The footprint of an image on its way through a network in eval mode; modes and random numbers are put back.

    Args:
        network: On its device.
        preprocess: Normalizes and resizes.
        size: Height and width of the image.
        policy: The device's.
        forward: What of the network to run; None for all of it.
    """
    was_training = network.training
    network.eval()
    image = torch.zeros(1, *size, 3, dtype=torch.uint8, device=policy.device)
    devices = [policy.device] if policy.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices), policy.context(), _Watch() as watch:
            (forward or network)(preprocess(image).contiguous(memory_format=policy.memory_format))
    finally:
        network.train(was_training)
    return Footprint(watch.peak + image.nbytes, watch.total + image.nbytes)


def evaluated_at_once(footprint: Footprint, policy: DevicePolicy) -> int:
    """How many images to evaluate at a time: one bound on memory for every size and network."""
    most = EVALUATION_BYTES.get(policy.device.type, EVALUATION_BYTES["cpu"])
    return max(1, min(MOST_IMAGES, most // footprint.peak))
