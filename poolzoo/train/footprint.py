"""Memory that one image takes inside a network, measured; the batch size of evaluation follows from it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from poolzoo.data.sizes import Size
from poolzoo.train.device import DevicePolicy

LARGEST_EVAL_BATCH: Final = 256  # larger batches are not faster
# Bytes that evaluation may take beside the network. On a CPU, exceeding its cache is not faster; a GPU needs enough
# images to be busy.
EVALUATION_BYTES: Final = {"cpu": 96 << 20, "cuda": 4 << 30}


@dataclass(frozen=True)
class Footprint:
    """Bytes that one image takes in a network.

    Attributes:
        peak: Of all tensors that exist at the same time, as in inference.
        total: Of all tensors together, as in training, which keeps them for the backward pass.
    """

    peak: int
    total: int


class _MemoryTracker(TorchDispatchMode):
    """Counts the memory of every tensor that an operation creates, until the tensor is freed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        self.peak = 0
        self.total = 0
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        inputs = {id(leaf.untyped_storage()) for leaf in given if not leaf.is_mkldnn}  # packed weights have none
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if not isinstance(leaf, Tensor):
                continue
            storage = leaf.untyped_storage()
            if id(storage) in inputs or storage in self._seen:  # a view, or changed in place
                continue
            self._seen.add(storage)
            count = storage.nbytes()
            self.live += count
            self.total += count
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._freed, count)
        return result

    def _freed(self, count: int) -> None:
        self.live -= count


@torch.no_grad()
def measure(
    network: nn.Module,
    preprocess: nn.Module,
    size: Size,
    policy: DevicePolicy,
    forward: Callable[[Tensor], Tensor] | None = None,
) -> Footprint:
    """Measures the footprint of an image in eval mode; training mode and random state are restored.

    Args:
        network: The network, on its device.
        preprocess: Normalizes and resizes.
        size: Height and width of the image.
        policy: The device.
        forward: The part of the network to run; None for all of it.
    """
    image = torch.zeros(1, *size, 3, dtype=torch.uint8, device=policy.device)

    def run() -> None:
        (forward or network)(preprocess(image).contiguous(memory_format=policy.memory_format))

    return _measured(network, run, image, policy)


@torch.no_grad()
def measure_head(head: nn.Module, map_shape: tuple[int, int, int], policy: DevicePolicy) -> Footprint:
    """Measures the footprint of one feature map in what follows a backbone, in eval mode; leaves no trace.

    Args:
        head: Takes maps `float[n, C, H, W]`, on its device.
        map_shape: C, H and W.
        policy: The device.
    """
    x = torch.zeros(1, *map_shape, device=policy.device)
    return _measured(head, lambda: head(x), x, policy)


def _measured(module: nn.Module, run: Callable[[], object], given: Tensor, policy: DevicePolicy) -> Footprint:
    """The footprint of a computation with a module in eval mode, its input included."""
    was_training = {part: part.training for part in module.modules()}
    module.eval()
    devices = [policy.device] if policy.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices), policy.context(), _MemoryTracker() as tracker:
            run()
    finally:
        for part, training in was_training.items():
            part.training = training
    return Footprint(peak=tracker.peak + given.nbytes, total=tracker.total + given.nbytes)


def eval_batch_size(footprint: Footprint, policy: DevicePolicy, *, beside: int = 1) -> int:
    """The batch size of evaluation, which bounds its memory for every image size and network.

    Args:
        footprint: Of an image.
        policy: The device.
        beside: How many batches share the bound on a CPU. It does not follow from the number of cores, so that neither
            do the last bits of the results.
    """
    limit = EVALUATION_BYTES.get(policy.device.type, EVALUATION_BYTES["cpu"])
    limit //= beside if policy.device.type == "cpu" else 1
    return max(1, min(LARGEST_EVAL_BATCH, limit // footprint.peak))
