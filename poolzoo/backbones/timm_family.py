"""Every model of timm as a backbone: its features before the global pooling, in timm's own layout."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MethodType
from typing import Any, Final, cast

import timm
import torch
from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset
from torch import Tensor, nn
from torch.nn import functional as F

from poolzoo.backbones import connectivity
from poolzoo.backbones.timm_origin import TimmOrigin
from poolzoo.common.errors import UsageError
from poolzoo.model import accounting
from poolzoo.model.state_dict import read_state_dict
from poolzoo.plugin.spec import Backbone

_Statistics = tuple[float, float, float]  # of the red, green and blue channel

OFFLINE_HINT: Final = "fetch them once with a network; finetune also takes --weights FILE, or trains from scratch"


def names() -> Sequence[str]:
    """Every architecture; a tag (`resnet18.a1_in1k`) chooses among its weights."""
    found: list[str] = timm.list_models()
    return found


def get(name: str) -> Backbone:
    """The backbone of one architecture, with or without a tag.

    Raises:
        KeyError: timm has no such model.
    """
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture) or (tag and name not in timm.list_models(f"{architecture}.*", pretrained=True)):
        raise KeyError(name)
    backbone = Backbone(name=f"timm/{name}", summary=f"timm's {name}", build=partial(_build, name))
    config = timm.models.get_pretrained_cfg(name)
    if config is None:
        return backbone
    classifier = config.classifier
    backbone = replace(
        backbone,
        input_size=config.input_size[-1],
        license=config.license or "",
        crop_pct=min(config.crop_pct, 1.0),
        interpolation="bicubic" if config.interpolation == "bicubic" else "bilinear",
        classifier=(classifier,) if isinstance(classifier, str) else tuple(classifier or ()),
    )
    if len(config.mean) != 3:  # a few models take images with another number of channels
        return backbone
    mean, std = cast(_Statistics, tuple(config.mean)), cast(_Statistics, tuple(config.std))
    backbone = replace(backbone, mean=mean, std=std)
    subset = infer_imagenet_subset({"num_classes": config.num_classes})
    if not subset:  # the network ends in an embedding, or has no classes that we know
        return backbone
    return replace(backbone, network=partial(_network, name), labels=partial(_labels, subset))


def _build(
    name: str, *, pretrained: bool = False, image_size: tuple[int, int] | None = None, **options: Any
) -> nn.Module:
    config = timm.models.get_pretrained_cfg(name)
    arguments = dict(options)
    if image_size is not None and config is not None and config.fixed_input_size:
        arguments.setdefault("img_size", image_size)
    state = published_state(name, arguments) if pretrained else None
    model: Any  # it gets attributes that nn.Module does not declare
    try:
        model = timm.create_model(name, num_classes=0, global_pool="", **arguments)
    except (TypeError, AssertionError):
        try:
            model = timm.create_model(name, num_classes=0, **arguments)  # takes no global_pool
        except TypeError as error:
            raise _refused(name, error) from error
        _set_forward(model, _features)
    size = image_size or (224, 224)
    _end_in_feature_map(model, _without_head(model, size))
    if "forward" in vars(model):
        _drop_unused(model, size)
    origin = TimmOrigin(name, tuple(sorted(arguments.items())))
    model.origin = origin
    if state is not None:
        source = f"the weights of timm/{name}"
        state, left_out = origin.convert_state_dict(model.state_dict(), state, source)
        model.accounting = accounting.fill(model, state, source, left_out=left_out)
    built: nn.Module = model
    return built


def _end_in_feature_map(model: Any, features: Any) -> None:
    """Makes a model whose features are no single feature map give one, and counts the class tokens before it."""
    if not hasattr(model, "num_prefix_tokens"):  # CoaT-Lite and VOLO do not declare their class token
        own = dict(model.named_parameters(recurse=False))
        model.num_prefix_tokens = max((own[name].shape[1] for name in own if name.startswith("cls_token")), default=0)
    if isinstance(features, list | tuple):
        _set_forward(model, _concatenated_maps if model.num_prefix_tokens else _unflattened_map)
    elif features.ndim == 3 and features.shape[1] == model.num_prefix_tokens:  # PiT ends in its class tokens
        _set_forward(model, _last_map)


def _set_forward(model: nn.Module, forward: Callable[[Any, Tensor], Any]) -> None:
    """Replaces a model's forward pass by a method; unlike a closure, a method of a deep copy is bound to the copy."""
    model.forward = MethodType(forward, model)


def _drop_unused(model: Any, size: tuple[int, int]) -> None:
    """Removes what has no part in the forward pass, such as a head, from the model and its state dict.

    Removes layers that are never called. A parameter that runs but gets no gradient becomes a buffer that is not saved.
    Sets `dropped` to the names that all of them had.
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
    trained = {path for path, gradient in zip(named, gradients, strict=True) if gradient is not None}
    for path in trained:
        use(path.rpartition(".")[0])
    for path, module in modules.items():
        if path not in used and path.rpartition(".")[0] in used and module.state_dict():
            model.set_submodule(path, nn.Identity())
    for path in [path for path, _ in model.named_parameters() if path in named and path not in trained]:
        owner, _, name = path.rpartition(".")
        value = model.get_submodule(owner)._parameters.pop(name)
        assert value is not None
        model.get_submodule(owner).register_buffer(name, value.detach(), persistent=False)
    model.dropped = frozenset(before) - model.state_dict().keys()


def _features(model: Any, x: Tensor) -> Any:
    """The features of a model before its head, in any form."""
    return model.forward_features(x)


def _concatenated_maps(model: Any, x: Tensor) -> Tensor:
    """The feature maps of a model that ends in several, each as tokens after a class token (CoaT, CrossViT), as one.

    Concatenates the channels at the size of the first, which is the largest.
    """
    maps: list[Tensor] = []
    for tokens in model.forward_features(x):
        grid = (_rows(tokens.shape[1] - 1, x), -1)
        maps.append(torch.unflatten(tokens[:, 1:].transpose(1, 2), 2, grid))
    size = maps[0].shape[2:]
    return torch.cat([maps[0], *(F.interpolate(one, size=size, mode="bilinear") for one in maps[1:])], 1)


def _unflattened_map(model: Any, x: Tensor) -> Tensor:
    """The feature map of a model that gives it last and flat, after states that are none (EfficientViM)."""
    flat: Tensor = model.forward_features(x)[-1]
    return torch.unflatten(flat, 2, (_rows(flat.shape[2], x), -1))


def _rows(locations: int, x: Tensor) -> int:
    """The rows of a feature map with so many locations and the aspect ratio of the input, `float[N, 3, H, W]`."""
    rows: int = round(locations**0.5 * (x.shape[2] / x.shape[3]) ** 0.5)
    return rows


def _last_map(model: Any, x: Tensor) -> Tensor:
    """The last intermediate feature map of a model whose features hold none."""
    last: Tensor = model.forward_intermediates(x, indices=1, output_fmt="NCHW", intermediates_only=True)[-1]
    return last


def published_state(name: str, options: Mapping[str, Any]) -> dict[str, Tensor]:
    """The published weights, under the names of the file.

    Raises:
        UsageError: There are none for this model.
        EnvironmentProblem: They are not in the cache and there is no network.
        CheckFailed: The file is damaged.
    """
    config = _require_weights(name)
    file = _cached_file(name, config)
    if file is not None:
        return read_state_dict(file)
    if config.custom_load and (config.hf_hub_filename or not config.hf_hub_id):  # a format of its own
        return dict(timm.create_model(name, pretrained=True, **options).state_dict())
    state: dict[str, Tensor]
    if config.hf_hub_id:
        names = (config.hf_hub_filename,) if config.hf_hub_filename else ()
        state = timm.models.load_state_dict_from_hf(config.hf_hub_id, *names)
    else:
        state = torch.hub.load_state_dict_from_url(config.url, map_location="cpu", weights_only=True, progress=False)
    return state


def _network(name: str, *, pretrained: bool = False, **options: Any) -> nn.Module:
    """The model as timm makes it, with its own pooling and classifier."""
    weights: dict[str, Any] = {}
    if pretrained:
        file = _cached_file(name, _require_weights(name))
        weights = {"pretrained": True}
        if file is not None:
            weights["pretrained_cfg_overlay"] = {"file": str(file)}
    try:
        return timm.create_model(name, **weights, **options)
    except TypeError as error:
        raise _refused(name, error) from error


def _labels(subset: str) -> Sequence[str]:
    """The class names of ImageNet, or of one of the larger sets that contain it."""
    return [str(name) for name in ImageNetInfo(subset).label_descriptions()]


def _refused(name: str, error: TypeError) -> UsageError:
    return UsageError(f"timm/{name} refuses its options: {error}", "see timm's documentation of the model")


def _without_head(model: Any, size: tuple[int, int]) -> Any:
    """The features of a model; removes its head unless that keeps the height and width of the features.

    A head that keeps them can be a last convolution, as in MobileNetV3, which belongs to the features.
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
    _set_forward(model, _features)
    return features


def _require_weights(name: str) -> Any:
    """timm's configuration of a model's published weights.

    Raises:
        UsageError: There are none for this model.
    """
    config = timm.models.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise UsageError(
            f"timm/{name} has no pretrained weights", f"poolzoo list backbones --filter 'timm/{name[:4]}*'"
        )
    return config


def _cached_file(name: str, config: Any) -> Path | None:
    """The published weights in the hub's cache, found without asking the hub; None where timm has to fetch them.

    Raises:
        EnvironmentProblem: They are not in the cache and there is no network.
    """
    from huggingface_hub import constants, try_to_load_from_cache

    if not config.hf_hub_id:
        connectivity.require(config.url, f"the weights of timm/{name}", OFFLINE_HINT)
        return None
    for file in filter(None, (config.hf_hub_filename, "model.safetensors", "pytorch_model.bin")):
        cached = try_to_load_from_cache(config.hf_hub_id, file)
        if isinstance(cached, str):
            return Path(cached)
    connectivity.require(
        constants.ENDPOINT,
        f"the weights of timm/{name} ({config.hf_hub_id}) are not in {constants.HF_HUB_CACHE}, and",
        OFFLINE_HINT,
    )
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    return None
