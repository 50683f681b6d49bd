"""Every classification model of torchvision as a backbone, cut where its features end.

torchvision's pooling is a function, not a module, in several models, so the cut is made in the traced graph: the last
node that is neither pooling nor part of the classifier. Under `body.` the parameters keep torchvision's own names.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from poolzoo.backbones import connectivity
from poolzoo.backbones.torchvision_origin import CLASSIFIER, TorchvisionOrigin, current, final_norm
from poolzoo.common import output
from poolzoo.common.errors import UsageError
from poolzoo.model import accounting
from poolzoo.model.accounting import Accounting
from poolzoo.model.state_dict import read_state_dict
from poolzoo.plugin.spec import IMAGENET_MEAN, IMAGENET_STD, Backbone

# First parts of the names that nodes after the features have in torchvision's models.
_AFTER = (
    "classifier",
    "fc",
    "head",
    "heads",
    "avgpool",
    "adaptive_avg_pool2d",
    "mean",
    "flatten",
    "dropout",
    "getitem",
)
# Their published weights expect mean and std 0.5; torchvision hides that in a `transform_input` that weights switch on.
_INCEPTION = ("googlenet", "inception_v3")


def names() -> Sequence[str]:
    """Every classification model."""
    found: list[str] = torchvision.models.list_models(module=torchvision.models)
    return found


def get(name: str) -> Backbone:
    """The backbone of one model.

    Raises:
        KeyError: torchvision has no such model.
    """
    if name not in names():
        raise KeyError(name)
    weights = torchvision.models.get_model_weights(name).DEFAULT
    transform = weights.transforms()
    inception = name in _INCEPTION
    return Backbone(
        name=f"torchvision/{name}",
        summary=f"torchvision's {name}",
        build=partial(_build, name),
        mean=(0.5, 0.5, 0.5) if inception else tuple(getattr(transform, "mean", IMAGENET_MEAN)),
        std=(0.5, 0.5, 0.5) if inception else tuple(getattr(transform, "std", IMAGENET_STD)),
        input_size=transform.crop_size[0],
        prefix_tokens=1 if name.startswith("vit_") else 0,
        license=weights.meta.get("license", "BSD-3-Clause"),  # stated where it is not torchvision's own
        classifier=CLASSIFIER,
        network=partial(_network, name),
        labels=partial(_labels, name),
        crop_pct=min(transform.crop_size[0] / transform.resize_size[0], 1.0),
        interpolation="bicubic" if transform.interpolation.value == "bicubic" else "bilinear",
    )


def _build(
    name: str, *, pretrained: bool = False, image_size: tuple[int, int] | None = None, **options: Any
) -> nn.Module:
    arguments: dict[str, Any] = dict(options)
    native = torchvision.models.get_model_weights(name).DEFAULT.transforms().crop_size[0]
    if image_size is not None and name.startswith("vit_") and image_size != (native, native):
        if image_size[0] != image_size[1]:
            raise UsageError(f"torchvision/{name} takes square images only", "choose another backbone")
        arguments["image_size"] = image_size[0]
        if pretrained:
            raise UsageError(
                f"the weights of torchvision/{name} are for {native} pixels, not {image_size[0]}",
                f"add --image-size {native}, or use timm's ViT, whose positions are interpolated",
            )
    if image_size is not None and name.startswith("maxvit"):
        arguments["input_size"] = image_size
    state = _published(name) if pretrained else None
    model = _network(name, **arguments)
    features = Features(model)
    if state is not None:
        source = f"the weights of torchvision/{name}"
        state, left_out = features.origin.convert_state_dict(features.state_dict(), state, source)
        features.accounting = accounting.fill(features, state, source, left_out=left_out)
    return features


def _network(name: str, *, pretrained: bool = False, **options: Any) -> nn.Module:
    """The model as torchvision makes it, with its own pooling and classifier, less auxiliary classifiers."""
    if name in _INCEPTION:
        options |= {"aux_logits": False, "init_weights": False, "transform_input": False}
    weights = torchvision.models.get_model_weights(name).DEFAULT
    if name.startswith("vit_"):
        options.setdefault("image_size", weights.transforms().crop_size[0])
    try:
        model: nn.Module = torchvision.models.get_model(name, weights=None, **options)
    except TypeError as error:
        raise UsageError(
            f"torchvision/{name} refuses its options: {error}", "see torchvision's documentation"
        ) from error
    if pretrained:
        state = {key: value for key, value in _published(name).items() if not key.startswith(("aux", "AuxLogits"))}
        model.load_state_dict(state)
    return model


def _labels(name: str) -> Sequence[str]:
    """The class names of the published weights."""
    return list(torchvision.models.get_model_weights(name).DEFAULT.meta["categories"])


class Features(nn.Module):
    """A torchvision model cut after its features: `float[N, 3, H, W]` to its own layout.

    A norm between the model's pooling and its classifier applies at every spatial location, as in timm's networks.

    Attributes:
        origin: The model that it was cut from.
        accounting: Where its tensors came from.
    """

    accounting: Accounting

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.origin = TorchvisionOrigin.of(model)
        _, nodes = get_graph_node_names(model, suppress_diff_warning=True)
        cut = next(
            node for node in reversed(nodes) if node.split(".")[0].split("_")[0] not in _AFTER and node not in _AFTER
        )
        self.body = create_feature_extractor(model, {cut: "features"}, suppress_diff_warning=True)
        name = final_norm(model)
        self.norm = model.get_submodule(name) if name else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.norm(self.body(x)["features"])
        return features

    def __deepcopy__(self, memo: dict[int, Any]) -> Features:
        """A copy in the same mode; torch's own copy of a traced module comes back in training mode."""
        copied = Features.__new__(Features)
        nn.Module.__init__(copied)
        copied.origin = self.origin
        copied.body = copy.deepcopy(self.body, memo)
        copied.norm = copy.deepcopy(self.norm, memo)
        return copied.train(self.training)


def _published(name: str) -> dict[str, Tensor]:
    """torchvision's published weights, from its cache or downloaded; never runs code in them."""
    weights = torchvision.models.get_model_weights(name).DEFAULT
    file = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[-1]
    if not file.is_file():
        connectivity.require(
            weights.url,
            f"the weights of torchvision/{name} are not at {file}, and",
            "put the file there; finetune also takes --weights FILE, or trains from scratch",
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        digest = file.stem.rsplit("-", 1)[-1]  # torchvision ends its file names with the start of their sha256
        torch.hub.download_url_to_file(weights.url, str(file), hash_prefix=digest, progress=output.shows_progress())
    return current(read_state_dict(file))
