"""The optimizer and its learning rate: which parameters decay, and how the rate rises and falls."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi
from typing import Any

import torch
from torch import nn

from poolzoo.common.errors import UsageError
from poolzoo.plugin.grammar import suggest
from poolzoo.train.stages import stages

# For training from scratch. Picked by hand from a few single-seed runs of the nano networks (AdamW 3e-3, 5e-3, 1e-2;
# SGD with Nesterov momentum 0.2, 0.3) that differed in other things too: workable values, not the result of a search.
LEARNING_RATES = {"adamw": 5e-3, "sgd": 0.3, "muon": 0.02}
WEIGHT_DECAYS = {"adamw": 0.05, "sgd": 5e-4, "muon": 0.0}
MUON_FALLBACK = 0.25  # share of Muon's rate with which AdamW trains what is no filter: 5e-3, as above


FINE = 0.1  # share of these rates with which weights that were learnt before are changed


def default_lr(name: str, fine: bool) -> float:
    """The learning rate where none is given: a tenth of the usual one for a backbone that has weights already.

    Raises:
        UsageError: There is no such optimizer, or no usual rate of it.
    """
    require(name)
    if name not in LEARNING_RATES:
        raise UsageError(f"--optimizer {name} has no default learning rate here", "give --lr")
    return LEARNING_RATES[name] * (FINE if fine else 1.0)


def require(name: str) -> None:
    """Raises where neither torch nor timm has an optimizer of that name.

    Raises:
        UsageError: The name is unknown.
    """
    if name in WEIGHT_DECAYS:
        return
    from timm.optim import list_optimizers  # 3 s, for those who ask for more than AdamW and SGD

    if name not in (known := list_optimizers()):
        near = suggest(name, [*LEARNING_RATES, *known]) or "adamw, sgd, or one of timm.optim.list_optimizers()"
        raise UsageError(f"no optimizer is called {name!r}", near)


@dataclass(frozen=True)
class Rates:
    """How the learning rate and the weight decay differ within a network.

    Attributes:
        lr: The peak learning rate of the backbone's last stage.
        weight_decay: Of matrices and filters; biases, norms and scalars have none.
        head: Multiple of the rate for pooling and classifier.
        layer_decay: Multiple of the rate from each stage of the backbone to the one before it.
    """

    lr: float
    weight_decay: float
    head: float = 1.0
    layer_decay: float = 1.0


def parameter_groups(module: nn.Module, rates: Rates) -> list[dict[str, Any]]:
    """All parameters of a network or of a head, in groups of equal rate and decay; `lr_scale` is the rate's multiple.

    Frozen parameters are among them, so that they can be freed later; without a gradient they stay as they are.
    """
    backbone = getattr(module, "backbone", None)
    staged = stages(backbone) if backbone is not None else []
    scales = {
        id(parameter): rates.layer_decay ** (len(staged) - 1 - depth)
        for depth, (_, parameters) in enumerate(staged)
        for parameter in parameters
    }
    norm = getattr(module, "norm", None)  # of the published network, so that it learns as fast as the last stage
    scales |= {id(parameter): 1.0 for parameter in norm.parameters()} if isinstance(norm, nn.Module) else {}
    groups: dict[tuple[float, int], list[nn.Parameter]] = {}
    for parameter in module.parameters():
        groups.setdefault((scales.get(id(parameter), rates.head), min(2, parameter.ndim - 1)), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": rates.weight_decay if axes > 0 else 0.0, "lr_scale": scale}
        for (scale, axes), parameters in groups.items()
    ]


def build(name: str, module: nn.Module, rates: Rates) -> torch.optim.Optimizer:
    """AdamW, SGD with Nesterov momentum 0.9 (both fused, where a parameter's device has that), or one of timm's.

    Raises:
        UsageError: The name is unknown, or nothing can be trained.
    """
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise UsageError("nothing is left to train", "leave --freeze out")
    groups = parameter_groups(module, rates)
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=rates.lr, fused=True)
    if name == "sgd":
        return torch.optim.SGD(groups, lr=rates.lr, momentum=0.9, nesterov=True, fused=True)
    require(name)
    from timm.optim import create_optimizer_v2

    more: dict[str, Any] = {}
    if name == "muon":  # made for filters; timm's trains the rest with AdamW
        more = {"momentum": 0.9, "nesterov": True, "fallback_lr_scale": MUON_FALLBACK}
        groups = [{**group, "use_fallback": group["params"][0].ndim < 3} for group in groups]
    made = create_optimizer_v2(groups, opt=name, lr=rates.lr, weight_decay=rates.weight_decay, **more)
    for group, ours in zip(made.param_groups, groups, strict=True):  # timm's own keys of that name mean the same
        group["lr_scale"] = ours["lr_scale"]
    return made


@dataclass(frozen=True)
class Schedule:
    """How the learning rate goes over the whole run."""

    lr: float
    total_steps: int
    warmup_steps: int
    decay: str

    def at(self, step: int) -> float:
        """The rate of a step that is about to be taken, counted from 0."""
        return self.lr * scale(step, self.total_steps, self.warmup_steps, self.decay)

    def set(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Gives every group its rate for a step."""
        rate = self.at(step)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]


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
