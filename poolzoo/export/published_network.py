"""The published network of a backbone, with its weights and its own classifier, as the source of an export."""

from __future__ import annotations

import hashlib
from typing import Final

from torch import nn

from poolzoo.artifacts import manifest, run
from poolzoo.artifacts.schema import Config
from poolzoo.data.resize import Fit
from poolzoo.data.synthetic import synthetic_images
from poolzoo.export.source import ExportSource
from poolzoo.model.inference import InferenceModel
from poolzoo.model.network import Preprocess
from poolzoo.model.published_classifier import published_classifier
from poolzoo.plugin.spec import Backbone

CALIBRATION_IMAGES: Final = 128  # synthetic images for int8; natural ones would be better
IMAGES: Final = 32  # synthetic images for parity, beside the edge cases; a batch to measure speed with


def from_backbone(text: str) -> ExportSource:
    """The published network of a backbone. It comes without images, so that its images are synthetic.

    Args:
        text: A backbone's spec, such as `timm/resnet18`.

    Raises:
        UsageError: The name or an option is unknown, or the backbone has no published network.
        EnvironmentProblem: The weights cannot be downloaded.
        PluginFailed: The network or its labels violate the plugin contract.
    """
    published = published_classifier(text)
    resolved, network, classes, size = published.resolved, published.network, published.classes, published.size
    backbone: Backbone = resolved.item
    preprocess = Preprocess(backbone.mean, backbone.std, size, size)
    how = Fit(backbone.interpolation, backbone.crop_pct)
    config: Config = {
        "schema": manifest.SCHEMA,
        "architecture": backbone.name.split("/", 1)[-1],
        "num_classes": len(classes),
        "label_names": classes,
        "pretrained_cfg": run.input_config(preprocess, size, len(classes), resolved, how),
        "poolzoo": {
            "backbone": text,
            "pool": None,
            "local_pool": None,
            "options": dict(published.options),
            "data_size": list(size),
            "image_size": list(size),
            "plugins": {"backbone": run.provenance(resolved)},
        },
    }
    return ExportSource(
        title=f"{backbone.name} as published, with its own classifier",
        origin={"pretrained": text},
        model=InferenceModel(preprocess, network).eval(),
        size=size,
        config=config,
        weights_sha256=_sha256(network),
        images=synthetic_images(size, IMAGES),
        image_labels=None,
        calibration=synthetic_images(size, CALIBRATION_IMAGES, seed=1),
        hint="try another backbone",
    )


def _sha256(network: nn.Module) -> str:
    """The sha256 of the weights as safetensors."""
    return hashlib.sha256(run.weights_bytes(network.state_dict())).hexdigest()
