"""The optimizer, its parameter groups, and the learning rate schedule."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import cos, pi
from typing import Final, Protocol, TypedDict

import torch
from torch import nn

from poolzoo.common.errors import UsageError
from poolzoo.plugin.grammar import suggest
from poolzoo.train.stages import backbone_stages
from poolzoo.train.step_plan import StepPlan

# For training from scratch. Chosen from a few single-seed runs of the nano networks (AdamW 3e-3, 5e-3, 1e-2; SGD with
# Nesterov momentum 0.2, 0.3) that differed in other settings too: workable values, not the result of a search.
LEARNING_RATES: Final = {"adamw": 5e-3, "sgd": 0.3, "muon": 0.02}
WEIGHT_DECAYS: Final = {"adamw": 0.05, "sgd": 5e-4, "muon": 0.0}
MUON_FALLBACK: Final = 0.25  # of Muon's rate, for AdamW on parameters that are not filters: 5e-3, as above
FINE_TUNING: Final = 0.1  # of these rates, for backbones with pretrained weights


class ParameterGroup(TypedDict, total=False):
    """One group of an optimizer's parameters, with the keys of `torch.optim` and timm."""

    params: list[nn.Parameter]
    weight_decay: float
    lr_scale: float
    use_fallback: bool


def default_lr(name: str, *, pretrained: bool) -> float:
    """The learning rate without `--lr`.

    Args:
        name: The optimizer.
        pretrained: Whether a backbone with weights is trained further, for which the rate is a tenth.

    Raises:
        UsageError: The optimizer is unknown or has no default.
    """
    require_optimizer(name)
    if name not in LEARNING_RATES:
        raise UsageError(f"--optimizer {name} has no default learning rate", "give --lr")
    return LEARNING_RATES[name] * (FINE_TUNING if pretrained else 1.0)


def require_optimizer(name: str) -> None:
    """Makes sure that torch or timm has an optimizer.

    Raises:
        UsageError: The name is unknown.
    """
    if name in WEIGHT_DECAYS:
        return
    from timm.optim import list_optimizers  # type: ignore[attr-defined]  # takes 3 s

    known = [str(each) for each in list_optimizers()]
    if name not in known:
        near = suggest(name, [*LEARNING_RATES, *known]) or "adamw, sgd, or one of timm.optim.list_optimizers()"
        raise UsageError(f"there is no optimizer {name!r}", near)


@dataclass(frozen=True)
class LearningRates:
    """How learning rate and weight decay differ within a network.

    Attributes:
        lr: Peak learning rate of the backbone's last stage.
        weight_decay: Of matrices and filters; biases, norms and scalars have none.
        head_mult: Multiple of the rate for pooling and classifier.
        layer_decay: Multiple of the rate from each stage of the backbone to the one before it.
    """

    lr: float
    weight_decay: float
    head_mult: float = 1.0
    layer_decay: float = 1.0


def parameter_groups(module: nn.Module, rates: LearningRates) -> list[ParameterGroup]:
    """All parameters of a network or of a head, grouped by learning rate and weight decay.

    Frozen parameters are included, so that they can be unfrozen later. Without a gradient they do not change.
    """
    backbone = getattr(module, "backbone", None)
    stages = backbone_stages(backbone) if backbone is not None else []
    scales = {
        id(parameter): rates.layer_decay ** (len(stages) - 1 - depth)
        for depth, stage in enumerate(stages)
        for parameter in stage.parameters
    }
    norm = getattr(module, "norm", None)  # published with the backbone, so it has the rate of the last stage
    scales |= {id(parameter): 1.0 for parameter in norm.parameters()} if isinstance(norm, nn.Module) else {}
    groups: dict[tuple[float, int], list[nn.Parameter]] = {}
    for parameter in module.parameters():
        key = (scales.get(id(parameter), rates.head_mult), min(2, parameter.ndim - 1))
        groups.setdefault(key, []).append(parameter)
    return [
        ParameterGroup(params=parameters, weight_decay=rates.weight_decay if axes > 0 else 0.0, lr_scale=scale)
        for (scale, axes), parameters in groups.items()
    ]


def create_optimizer(name: str, module: nn.Module, rates: LearningRates) -> torch.optim.Optimizer:
    """AdamW, SGD with Nesterov momentum 0.9 (both fused), or an optimizer of timm.

    Raises:
        UsageError: The name is unknown, or all parameters are frozen.
    """
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise UsageError("all parameters are frozen: there is nothing to train", "leave --freeze out")
    groups = parameter_groups(module, rates)
    if name == "muon":
        for group in groups:  # Muon is made for filters; timm trains the other parameters with AdamW
            group["use_fallback"] = group["params"][0].ndim < 3
    param_groups = [dict(group) for group in groups]
    if name == "adamw":
        return torch.optim.AdamW(param_groups, lr=rates.lr, fused=True)
    if name == "sgd":
        return torch.optim.SGD(param_groups, lr=rates.lr, momentum=0.9, nesterov=True, fused=True)
    require_optimizer(name)
    from timm.optim import create_optimizer_v2  # type: ignore[attr-defined]

    create = partial(create_optimizer_v2, param_groups, opt=name, lr=rates.lr, weight_decay=rates.weight_decay)
    if name == "muon":
        create = partial(create, momentum=0.9, nesterov=True, fallback_lr_scale=MUON_FALLBACK)
    optimizer: torch.optim.Optimizer = create()
    for built, group in zip(optimizer.param_groups, groups, strict=True):  # timm may set its own lr_scale
        built["lr_scale"] = group["lr_scale"]
    return optimizer


class Schedule(Protocol):
    """Sets the learning rate of every step."""

    def lr_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        ...

    def apply(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Sets the learning rate of every parameter group for a step."""
        ...


@dataclass(frozen=True)
class LrSchedule:
    """The learning rate over the whole run: linear warm-up, then linear or cosine decay to 0.

    Attributes:
        lr: Peak learning rate.
        plan: The steps of the run.
        warmup: Fraction of the steps in which the rate rises.
        decay: "linear" or "cosine".
    """

    lr: float
    plan: StepPlan
    warmup: float
    decay: str

    def lr_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        total = self.plan.fits[0].total
        warmup_steps = max(1, round(self.warmup * total))
        return self.lr * lr_multiplier(self.plan.position(step), total, warmup_steps, self.decay)

    def apply(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Sets the learning rate of every parameter group for a step."""
        set_lr(optimizer, self.lr_at(step))


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Sets the learning rate of every parameter group to its multiple of a rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


def lr_multiplier(step: float, total_steps: int, warmup_steps: int, decay: str) -> float:
    """The learning rate of a step as a fraction of the peak: linear warm-up from 1/warmup_steps, then decay to 0.

    Args:
        step: Counted from 0; a fraction where the plan of the steps was fitted again.
        total_steps: Steps of the run.
        warmup_steps: Steps of the warm-up.
        decay: "linear" or "cosine".
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return (1 + cos(pi * progress)) / 2 if decay == "cosine" else 1 - progress
