"""Every model of timm as a backbone: its features before the global pooling, in timm's own layout."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import MethodType
from typing import Any, Final

import timm
import torch
from timm.data import ImageNetInfo, infer_imagenet_subset
from torch import Tensor, nn
from torch.nn import functional as F

from poolzoo.backbones import network
from poolzoo.backbones.timm_published import TimmOrigin
from poolzoo.common.errors import UsageError
from poolzoo.model import accounting
from poolzoo.model.state_dict import read_state_dict
from poolzoo.plugin.spec import Backbone

OFFLINE_HINT: Final = "fetch them once with a network; finetune also takes --weights FILE, or trains from scratch"


def names() -> Sequence[str]:
    """Every architecture; a tag (`resnet18.a1_in1k`) chooses among its weights."""
    return timm.list_models()


def get(name: str) -> Backbone:
    """The backbone of one architecture, with or without a tag.

    Raises:
        KeyError: timm has no such model.
    """
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture) or (tag and name not in timm.list_models(f"{architecture}.*", pretrained=True)):
        raise KeyError(name)
    config = timm.models.get_pretrained_cfg(name)
    known: dict[str, Any] = {}
    if config is not None:
        classifier = config.classifier
        known = {
            "mean": tuple(config.mean),
            "std": tuple(config.std),
            "input_size": config.input_size[-1],
            "license": config.license or "",
            "crop_pct": min(config.crop_pct, 1.0),
            "interpolation": "bicubic" if config.interpolation == "bicubic" else "bilinear",
            "classifier": (classifier,) if isinstance(classifier, str) else tuple(classifier or ()),
        }
        if len(config.mean) != 3:  # a few models take other than three channels
            known.pop("mean"), known.pop("std")
        elif subset := infer_imagenet_subset(config.to_dict()):  # others end in an embedding, or in nothing
            known |= {"network": partial(_network, name), "labels": partial(_labels, subset)}
    return Backbone(name=f"timm/{name}", summary=f"timm's {name}", build=partial(_build, name), **known)


def _build(
    name: str, *, pretrained: bool = False, image_size: tuple[int, int] | None = None, **options: Any
) -> nn.Module:
    config = timm.models.get_pretrained_cfg(name)
    arguments: dict[str, Any] = dict(options)
    if image_size is not None and config is not None and config.fixed_input_size:
        arguments.setdefault("img_size", image_size)
    state = published_state(name, arguments) if pretrained else None
    try:
        model = timm.create_model(name, num_classes=0, global_pool="", **arguments)
    except (TypeError, AssertionError):
        try:
            model = timm.create_model(name, num_classes=0, **arguments)  # takes no global_pool
        except TypeError as error:
            raise _refused(name, error) from error
        _take(model, _features)
    size = image_size or (224, 224)
    _find_the_map(model, _without_head(model, size))
    if "forward" in vars(model):
        _drop_unused(model, size)
    model.origin = TimmOrigin(name, tuple(sorted(arguments.items())))
    if state is not None:
        source = f"the weights of timm/{name}"
        state, left_out = model.origin.adapted(model.state_dict(), state, source)
        model.accounting = accounting.fill(model, state, source, left_out=left_out)
    return model


def _find_the_map(model: nn.Module, features: Any) -> None:
    """Makes a map of features that are none yet, and says how many class tokens go before those of the map."""
    if not hasattr(model, "num_prefix_tokens"):  # CoaT-Lite and VOLO have a class token and do not say so
        own = dict(model.named_parameters(recurse=False))
        model.num_prefix_tokens = max((own[name].shape[1] for name in own if name.startswith("cls_token")), default=0)
    if isinstance(features, list | tuple):
        _take(model, _stacked_maps if model.num_prefix_tokens else _unflattened_map)
    elif features.ndim == 3 and features.shape[1] == model.num_prefix_tokens:  # PiT ends in its class tokens
        _take(model, _last_map)


def _take(model: nn.Module, forward: Callable[[Any, Tensor], Any]) -> None:
    """Gives a model another forward pass: a method, which its copies take along; a closure would stay with this one."""
    model.forward = MethodType(forward, model)


def _drop_unused(model: nn.Module, size: tuple[int, int]) -> None:
    """Takes what has no part in the forward pass, such as a head, out of the network and its state dict.

    Layers that are never called go; a parameter that is computed with, but for nothing, stays as a buffer that is not
    saved. `dropped` has the names that all of them had.
    """
    named = {path: parameter for path, parameter in model.named_parameters() if parameter.requires_grad}
    modules, used = dict(model.named_modules()), {""}

    def use(path: str) -> None:
        used.update(path.rsplit(".", depth)[0] for depth in range(path.count(".") + 1))

    handles = [
        module.register_forward_pre_hook(lambda _module, _given, path=path: use(path))
        for path, module in modules.items()
    ]
    with torch.enable_grad():
        output = model.eval()(torch.zeros(1, 3, *size)).sum()
        gradients = torch.autograd.grad(output, list(named.values()), allow_unused=True)
    model.train()
    for handle in handles:
        handle.remove()
    before = list(model.state_dict())
    learns = {path for path, gradient in zip(named, gradients, strict=True) if gradient is not None}
    for path in learns:
        use(path.rpartition(".")[0])
    for path, module in modules.items():
        if path not in used and path.rpartition(".")[0] in used and module.state_dict():
            model.set_submodule(path, nn.Identity())
    for path in [path for path, _ in model.named_parameters() if path in named and path not in learns]:
        owner, _, name = path.rpartition(".")
        value = model.get_submodule(owner)._parameters.pop(name)
        assert value is not None
        model.get_submodule(owner).register_buffer(name, value.detach(), persistent=False)
    model.dropped = frozenset(before) - model.state_dict().keys()


def _features(model: Any, x: Tensor) -> Any:
    """What the network has before its head."""
    return model.forward_features(x)


def _stacked_maps(model: Any, x: Tensor) -> Tensor:
    """The maps of a network that ends in several, tokens behind a class token each (CoaT, CrossViT), as one.

    Channel after channel, at the size of the first, which is the largest.
    """
    maps = []
    for tokens in model.forward_features(x):
        maps.append(tokens[:, 1:].transpose(1, 2).unflatten(2, (_rows(tokens.shape[1] - 1, x), -1)))
    size = maps[0].shape[2:]
    return torch.cat([maps[0], *(F.interpolate(one, size=size, mode="bilinear") for one in maps[1:])], 1)


def _unflattened_map(model: Any, x: Tensor) -> Tensor:
    """The map of a network that gives it last, without its rows, behind states that are none (EfficientViM)."""
    flat = model.forward_features(x)[-1]
    return flat.unflatten(2, (_rows(flat.shape[2], x), -1))


def _rows(positions: int, x: Tensor) -> int:
    """How many rows so many positions are in, for an input, `float[N, 3, H, W]`, of the same shape."""
    return round(positions**0.5 * (x.shape[2] / x.shape[3]) ** 0.5)


def _last_map(model: Any, x: Tensor) -> Tensor:
    """The last map of a network whose features hold none."""
    return model.forward_intermediates(x, indices=1, output_fmt="NCHW", intermediates_only=True)[-1]


def published_state(name: str, options: dict[str, Any]) -> dict[str, Tensor]:
    """The published weights, under the names of the file.

    Raises:
        UsageError: There are none for this model.
        EnvironmentProblem: They are not in the cache and there is no network.
        CheckFailed: The file is damaged.
    """
    config = timm.models.get_pretrained_cfg(name)
    source = _source(name, config)
    if file := source.get("pretrained_cfg_overlay", {}).get("file"):
        return read_state_dict(Path(file))
    if config.custom_load and (config.hf_hub_filename or not config.hf_hub_id):  # a format of its own
        return timm.create_model(name, pretrained=True, **options).state_dict()
    if config.hf_hub_id:
        names = (config.hf_hub_filename,) if config.hf_hub_filename else ()
        return timm.models.load_state_dict_from_hf(config.hf_hub_id, *names)
    return torch.hub.load_state_dict_from_url(config.url, map_location="cpu", weights_only=True, progress=False)


def _network(name: str, *, pretrained: bool = False, **options: Any) -> nn.Module:
    """The model as timm makes it, with its own pooling and classifier."""
    weights = _source(name, timm.models.get_pretrained_cfg(name)) if pretrained else {}
    try:
        return timm.create_model(name, **weights, **options)
    except TypeError as error:
        raise _refused(name, error) from error


def _labels(subset: str) -> Sequence[str]:
    """The names of the classes of ImageNet, or of one of the larger sets that it is a part of."""
    return ImageNetInfo(subset).label_descriptions()


def _refused(name: str, error: TypeError) -> UsageError:
    return UsageError(f"timm/{name} refuses its options: {error}", "see timm's documentation of the model")


def _without_head(model: nn.Module, size: tuple[int, int]) -> Any:
    """What the model gives, less its head unless that leaves the features' height and width alone.

    An unpooled head can be a last convolution, as in MobileNetV3, and then belongs to the features.
    """
    model.eval()
    with torch.no_grad():
        x = torch.zeros(1, 3, *size)
        features, head = model.forward_features(x), model(x)
    model.train()
    if isinstance(features, Tensor) and features.ndim == 4:
        kept = head.shape[1:3] == features.shape[1:3] or (head.ndim == 4 and head.shape[2:] == features.shape[2:])
    else:
        kept = isinstance(head, Tensor) and head.ndim in (3, 4)
    if kept:
        return head
    _take(model, _features)
    return features


def _source(name: str, config: Any) -> dict[str, Any]:
    """What tells timm to take the published weights: from the hub's cache without asking the hub, else the network.

    Raises:
        UsageError: There are no weights for this model.
        EnvironmentProblem: They are not in the cache and there is no network.
    """
    from huggingface_hub import constants, try_to_load_from_cache

    if config is None or not config.has_weights:
        raise UsageError(
            f"timm/{name} has no pretrained weights", f"poolzoo list backbones --filter 'timm/{name[:4]}*'"
        )
    if not config.hf_hub_id:
        network.require(config.url, f"the weights of timm/{name}", OFFLINE_HINT)
        return {"pretrained": True}
    for file in filter(None, (config.hf_hub_filename, "model.safetensors", "pytorch_model.bin")):
        cached = try_to_load_from_cache(config.hf_hub_id, file)
        if isinstance(cached, str):
            return {"pretrained": True, "pretrained_cfg_overlay": {"file": cached}}
    network.require(
        constants.ENDPOINT,
        f"the weights of timm/{name} ({config.hf_hub_id}) are not in {constants.HF_HUB_CACHE}, and",
        OFFLINE_HINT,
    )
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    return {"pretrained": True}
