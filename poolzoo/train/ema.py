"""An exponential moving average of a network's weights, which is often better than the weights themselves."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from poolzoo.model.accounting import fill_exactly


class Average:
    """The average of a module's parameters and buffers over its steps.

    After step t it moves by 1 − min(decay, (1 + t) / (10 + t)) towards the module, so that it soon forgets the first
    steps. torch's `AveragedModel` reads its own counter from the device at every step; this one counts on the host.

    Args:
        module: What is averaged.
        decay: Rank of the old average that stays at every step.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(module).requires_grad_(False)
        self.module.eval()
        self.decay, self.steps = decay, 0
        theirs, ours = module.state_dict(keep_vars=True), self.module.state_dict(keep_vars=True)
        moving = [name for name, tensor in theirs.items() if tensor.is_floating_point()]
        self._pairs = [ours[name] for name in moving], [theirs[name] for name in moving]
        self._copied = [(ours[name], theirs[name]) for name in theirs if name not in moving]

    @torch.no_grad()
    def update(self) -> None:
        """To be called after every step of the optimizer."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self._pairs[0], [tensor.detach() for tensor in self._pairs[1]], 1 - decay)
        for ours, theirs in self._copied:  # counters
            ours.copy_(theirs)

    def state(self) -> dict[str, Any]:
        return {"steps": self.steps, "module": self.module.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        dropped = getattr(self.module, "dropped", frozenset())
        fill_exactly(self.module, state["module"], "its average", "", dropped=dropped)
