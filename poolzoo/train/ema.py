"""An exponential moving average of a network's weights, which often generalizes better than the weights themselves."""

from __future__ import annotations

import copy
from typing import TypedDict

import torch
from torch import Tensor, nn

from poolzoo.model.accounting import fill_exactly


class EmaState(TypedDict):
    """What a checkpoint keeps of a `ModelEma`."""

    steps: int
    module: dict[str, Tensor]


class ModelEma:
    """Averages the parameters and buffers of a module over the steps of its optimizer.

    After step t the average moves by 1 − min(decay, (1 + t) / (10 + t)) towards the module, so that the first steps
    soon lose their weight. torch's `AveragedModel` reads a counter from the device in every step; this one counts on
    the host.

    Args:
        module: The module to average.
        decay: Fraction of the average that remains in every step.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(module).requires_grad_(False)
        self.module.eval()
        self.decay = decay
        self.steps = 0
        source, average = module.state_dict(keep_vars=True), self.module.state_dict(keep_vars=True)
        floats = [name for name, tensor in source.items() if tensor.is_floating_point()]
        self._averages = [average[name] for name in floats]
        self._sources = [source[name] for name in floats]
        self._counters = [(average[name], source[name]) for name in source if name not in floats]

    @torch.no_grad()
    def update(self) -> None:
        """Moves the average; to be called after every step of the optimizer."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self._averages, [tensor.detach() for tensor in self._sources], 1 - decay)
        for average, source in self._counters:
            average.copy_(source)

    def state_dict(self) -> EmaState:
        """The state for a checkpoint."""
        return {"steps": self.steps, "module": self.module.state_dict()}

    def load_state_dict(self, state: EmaState) -> None:
        """Restores the state of a checkpoint.

        Raises:
            CheckFailed: Its tensors do not fit the module.
        """
        self.steps = state["steps"]
        dropped: frozenset[str] = getattr(self.module, "dropped", frozenset())
        fill_exactly(self.module, state["module"], "its average", "", dropped=dropped)
