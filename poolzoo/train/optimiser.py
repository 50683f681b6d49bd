"""The optimiser and its learning rate: which parameters decay, and how the rate rises and falls."""

from __future__ import annotations

from math import cos, pi
from typing import Any

import torch
from torch import nn

from poolzoo.errors import UsageError

# For training from scratch. Picked by hand from a few single-seed runs of the nano networks (AdamW 3e-3, 5e-3, 1e-2;
# SGD with Nesterov momentum 0.2, 0.3) that differed in other things too: workable values, not the result of a search.
LEARNING_RATES = {"adamw": 5e-3, "sgd": 0.3}
WEIGHT_DECAYS = {"adamw": 0.05, "sgd": 5e-4}


FINE = 0.1  # share of these rates with which weights that were learnt before are changed


def default_lr(name: str, fine: bool) -> float:
    """The learning rate where none is given: a tenth of the usual one for a backbone that has weights already."""
    if name not in LEARNING_RATES:
        raise UsageError(f"--optimizer {name!r} is neither adamw nor sgd", "choose one of them")
    return LEARNING_RATES[name] * (FINE if fine else 1.0)


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Trainable parameters in two groups: matrices and filters decay; biases, norms and scalars do not."""
    trainable = [p for p in network.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]


def build(name: str, network: nn.Module, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW, or SGD with Nesterov momentum 0.9; the fused form where the device has one.

    Raises:
        UsageError: The name is neither, or nothing can be trained.
    """
    groups = [group for group in parameter_groups(network, weight_decay) if group["params"]]
    if not groups:
        raise UsageError("nothing is left to train", "leave --freeze out")
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=lr, fused=True)
    return torch.optim.SGD(groups, lr=lr, momentum=0.9, nesterov=True, fused=True)


def scale(step: int, total: int, warmup: int, decay: str) -> float:
    """The share of the learning rate at a step: linear warm-up from 1/warmup, then a linear or cosine fall to 0.

    Args:
        step: The step that is about to be taken, from 0.
        total: Steps in all.
        warmup: Steps of the warm-up.
        decay: "linear" or "cosine".
    """
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, total - warmup)
    return (1 + cos(pi * done)) / 2 if decay == "cosine" else 1 - done
