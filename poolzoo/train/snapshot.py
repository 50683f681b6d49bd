"""Runs steps whose effect on the modules is undone: to measure the time of a step, or a range of learning rates."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch

from poolzoo.train.training_module import TrainingModule


@contextmanager
def restored(modules: Iterable[TrainingModule]) -> Iterator[None]:
    """Restores weights, buffers, optimizers and averages at the end of the block, whatever happens in it."""
    kept = [
        (module, copy.deepcopy(module.state_dict()), {name: b.clone() for name, b in module.module.named_buffers()})
        for module in modules
    ]
    try:
        yield
    finally:
        for module, state, buffers in kept:
            module.load_state_dict(state)
            with torch.no_grad():
                for name, buffer in module.module.named_buffers():  # some are not in the state dict
                    buffer.copy_(buffers[name])
            module.optimizer.zero_grad(set_to_none=True)
            module.reset_metrics()
