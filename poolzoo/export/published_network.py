"""The published network of a backbone, with its weights and its own classifier, as the source of an export."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from poolzoo.artifacts import manifest, run
from poolzoo.artifacts.schema import Config
from poolzoo.common.errors import PluginFailed, PoolzooError, UsageError, reason
from poolzoo.data.resize import Fit
from poolzoo.data.sizes import Size, show
from poolzoo.export.source import ExportSource
from poolzoo.model import surgery
from poolzoo.model.inference import InferenceModel
from poolzoo.model.network import Preprocess
from poolzoo.plugin import loader, values
from poolzoo.plugin.catalog import import_build
from poolzoo.plugin.grammar import read_options
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
    resolved = loader.catalog().backbone(text)
    backbone: Backbone = resolved.item
    if backbone.network is None or backbone.input_size is None:
        hint = f"train one with poolzoo finetune --backbone {text} and export the run"
        raise UsageError(f"backbone {text} has no classifier of its own", hint)
    network, options = _build(resolved)
    size = (backbone.input_size, backbone.input_size)
    with torch.no_grad():
        classes = _classes(resolved, _dry_run(resolved, network, size))
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
            "options": options,
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


def _build(resolved: loader.Resolved) -> tuple[nn.Module, dict[str, object]]:
    """The network with its published weights, and the options of its build function."""
    backbone, source = resolved.item, resolved.entry.source
    build = import_build(backbone.network, backbone.name, source)
    options = read_options(backbone.name, build, resolved.spec.options)
    try:
        network = build(pretrained=True, **options)
    except (PoolzooError, MemoryError, OSError):
        raise
    except loader.Failure as error:
        raise _failed(resolved, f"cannot be built: {reason(error)}") from error
    if not isinstance(network, nn.Module):
        raise _failed(resolved, f"is a {type(network).__name__}, not an nn.Module")
    return network, options


def _dry_run(resolved: loader.Resolved, network: nn.Module, size: Size) -> Tensor:
    """The logits for two black images, `float[2, K]`."""
    try:
        logits = surgery.dry_run(network, torch.zeros(2, 3, *size))
    except (PoolzooError, MemoryError, OSError):
        raise
    except loader.Failure as error:
        text = f"fails on {show(size)} images: {reason(error)}"
        raise _failed(resolved, text) from error
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != 2:
        shape = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise _failed(resolved, f"turns {[2, 3, *size]} into {shape}, not into logits [2, K]")
    return logits


def _classes(resolved: loader.Resolved, logits: Tensor) -> list[str]:
    """The names of the classes, as many as there are logits."""
    count = logits.shape[1]
    if resolved.item.labels is None:
        return [str(index) for index in range(count)]
    try:
        labels: Sequence[str] = [values.text(one) if isinstance(one, str) else one for one in resolved.item.labels()]
    except (PoolzooError, MemoryError, OSError):
        raise
    except loader.Failure as error:
        raise _failed(resolved, f"has no labels: {reason(error)}") from error
    if len(labels) != count or not all(isinstance(label, str) for label in labels):
        raise _failed(resolved, f"gives {count} logits and has {len(labels)} labels, which must be as many names")
    return list(labels)


def _failed(resolved: loader.Resolved, what: str) -> PluginFailed:
    source = resolved.entry.source
    hint = "choose another backbone, or fix its plugin; POOLZOO_DEBUG=1 shows the traceback"
    return PluginFailed(f"the network of {resolved.spec.text} (from {source.dist}) {what}", hint)


def _sha256(network: nn.Module) -> str:
    """The sha256 of the weights as safetensors."""
    return hashlib.sha256(run.weights_bytes(network.state_dict())).hexdigest()


def synthetic_images(size: Size, count: int, seed: int = 0) -> np.ndarray:
    """Colored noise from a fixed seed, `uint8[count, H, W, 3]`, from white noise to very smooth images.

    The amplitude of a spatial frequency f falls as f^-s, with s from 0 to 2; natural images lie near 1.

    Args:
        size: Height and width.
        count: How many images.
        seed: The seed.
    """
    height, width = size
    random = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])[..., None]
    frequency[0, 0] = 1.0  # the mean; it is chosen below
    images = []
    for slope in np.linspace(0, 2, count):
        white = np.fft.fft2(random.standard_normal((height, width, 3)), axes=(0, 1))
        noise = np.fft.ifft2(white * frequency**-slope, axes=(0, 1)).real
        noise = (noise - noise.mean()) / noise.std()
        pixels = random.uniform(64, 192, 3) + random.uniform(16, 64) * noise
        images.append(np.rint(pixels.clip(0, 255)).astype(np.uint8))
    return np.stack(images)
