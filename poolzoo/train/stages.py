"""The stages of a backbone, from the images to the feature map, for freezing and for layer-wise learning rates."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Stage:
    """Parameters that are frozen together and share a learning rate."""

    name: str
    parameters: list[nn.Parameter]


def backbone_stages(backbone: nn.Module) -> list[Stage]:
    """The backbone's parameters in the order of the forward pass, in named groups; each is in one group.

    timm's models define their stages (`group_matcher`). In any other network, the children with parameters are the
    stages; modules that only wrap one child are unpacked.
    """
    if (found := _timm_stages(backbone)) is not None:
        return found
    module, prefix = backbone, ""
    while len(children := _children_with_parameters(module)) == 1 and not list(module.parameters(recurse=False)):
        name, module = children[0]
        prefix += f"{name}."
    if not children:
        parameters = list(backbone.parameters())
        return [Stage("all", parameters)] if parameters else []
    found = [Stage(prefix + name, list(child.parameters())) for name, child in children]
    own = list(module.parameters(recurse=False))  # such as a class token, which joins the input
    return [Stage(found[0].name, own + found[0].parameters), *found[1:]]


def _children_with_parameters(module: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, child) for name, child in module.named_children() if any(True for _ in child.parameters())]


def _timm_stages(backbone: nn.Module) -> list[Stage] | None:
    matcher = getattr(backbone, "group_matcher", None)
    if matcher is None:
        return None
    from timm.models import group_parameters

    parameters = dict(backbone.named_parameters())
    try:
        grouped: dict[int, list[str]] = group_parameters(backbone, matcher(coarse=True))
    except Exception:  # the matcher does not fit the model; its children are used instead
        return None
    groups = [names for _, names in sorted(grouped.items()) if names]
    if sorted(name for names in groups for name in names) != sorted(parameters) or len(groups) < 2:
        return None
    return [Stage(_common_prefix(names), [parameters[name] for name in names]) for names in groups]


def _common_prefix(names: list[str]) -> str:
    """The common start of dotted names, at most two parts; the first part of the first name if there is none."""
    first, *rest = [name.split(".") for name in names]
    common: list[str] = []
    for index, part in enumerate(first[:2]):
        if any(other[: index + 1] != first[: index + 1] for other in rest):
            break
        common.append(part)
    return ".".join(common) or first[0]


def freeze_stages(backbone: nn.Module, count: int) -> list[str]:
    """Freezes the first `count` stages and unfreezes the others; gives the names of the frozen ones."""
    found = backbone_stages(backbone)
    for index, stage in enumerate(found):
        for parameter in stage.parameters:
            parameter.requires_grad_(index >= count)
    return [stage.name for stage in found[:count]]


def set_training_mode(module: nn.Module) -> None:
    """Sets training mode, except in submodules whose parameters are all frozen, which stay in eval mode.

    A frozen batch norm thus keeps its statistics too.
    """
    module.train()
    for child in module.modules():
        parameters = list(child.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            child.eval()
