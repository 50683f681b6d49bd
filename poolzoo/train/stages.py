"""The stages of a backbone, from the images to the map: what freezing and layer-wise learning rates go by."""

from __future__ import annotations

from torch import nn


def stages(backbone: nn.Module) -> list[tuple[str, list[nn.Parameter]]]:
    """The backbone's parameters in the order in which images pass them, grouped and named.

    timm's models say which parameters form a stage (`group_matcher`); of any other network the children that have
    parameters are the stages, after unpacking what merely wraps one child. Every parameter is in one stage.
    """
    if (found := _timm_stages(backbone)) is not None:
        return found
    module, prefix = backbone, ""
    while len(children := _with_parameters(module)) == 1 and not list(module.parameters(recurse=False)):
        name, module = children[0]
        prefix += f"{name}."
    if not children:
        return [("all", list(backbone.parameters()))] if list(backbone.parameters()) else []
    found = [(prefix + name, list(child.parameters())) for name, child in children]
    loose = list(module.parameters(recurse=False))  # such as a class token, which meets the images first
    return [(found[0][0], loose + found[0][1]), *found[1:]]


def _with_parameters(module: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, child) for name, child in module.named_children() if any(True for _ in child.parameters())]


def _timm_stages(backbone: nn.Module) -> list[tuple[str, list[nn.Parameter]]] | None:
    matcher = getattr(backbone, "group_matcher", None)
    if matcher is None:
        return None
    from timm.models import group_parameters

    named = dict(backbone.named_parameters())
    try:
        grouped: dict[int, list[str]] = group_parameters(backbone, matcher(coarse=True))
    except Exception:  # a model whose matcher does not fit it: its children will do
        return None
    groups = [names for _, names in sorted(grouped.items()) if names]
    if sorted(name for names in groups for name in names) != sorted(named) or len(groups) < 2:
        return None
    return [(_common(names), [named[name] for name in names]) for names in groups]


def _common(names: list[str]) -> str:
    """The part of their dotted names that parameters share, or the first one's first part."""
    first, *rest = [name.split(".") for name in names]
    shared: list[str] = []
    for index, part in enumerate(first[:2]):
        if any(other[: index + 1] != first[: index + 1] for other in rest):
            break
        shared.append(part)
    return ".".join(shared) or first[0]


def freeze(backbone: nn.Module, count: int) -> list[str]:
    """Freezes the first `count` stages, lets the others learn, and gives the names of the frozen ones."""
    found = stages(backbone)
    for index, (_, parameters) in enumerate(found):
        for parameter in parameters:
            parameter.requires_grad_(index >= count)
    return [name for name, _ in found[:count]]


def set_training_mode(module: nn.Module) -> None:
    """Training mode; modules all of whose parameters are frozen stay in eval mode, and so does what lies in them.

    A frozen batch norm thus keeps its statistics too.
    """
    module.train()
    for child in module.modules():
        parameters = list(child.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            child.eval()
