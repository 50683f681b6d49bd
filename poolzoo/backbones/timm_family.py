"""Every model of timm as a backbone: its features before the global pooling, in timm's own layout."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import timm
import torch
from timm.data import ImageNetInfo, infer_imagenet_subset
from torch import nn

from poolzoo.backbones import network
from poolzoo.errors import UsageError
from poolzoo.spec import Backbone

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
    if pretrained:
        arguments.update(_source(name, config))
    try:
        model = timm.create_model(name, num_classes=0, global_pool="", **arguments)
    except (TypeError, AssertionError):
        try:
            model = timm.create_model(name, num_classes=0, **arguments)  # takes no global_pool
        except TypeError as error:
            raise _refused(name, error) from error
        model.forward = model.forward_features
        return model
    if not _keeps_the_map(model, image_size or (224, 224)):
        model.forward = model.forward_features
    return model


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


def _keeps_the_map(model: nn.Module, size: tuple[int, int]) -> bool:
    """Whether the unpooled head (a last convolution, as in MobileNetV3) leaves the features' height and width alone."""
    was_training = model.training
    model.eval()
    with torch.no_grad():
        x = torch.zeros(1, 3, *size)
        features, head = model.forward_features(x), model(x)
    model.train(was_training)
    if not isinstance(features, torch.Tensor) or features.ndim != 4 or not isinstance(head, torch.Tensor):
        return isinstance(head, torch.Tensor) and head.ndim in (3, 4)
    return (head.ndim == 4 and head.shape[-2:] == features.shape[-2:]) or head.shape[1:3] == features.shape[1:3]


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
    for file in ("model.safetensors", "pytorch_model.bin"):
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
