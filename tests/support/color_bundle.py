"""Bundles whose network passes colors through to its map, so that what moves a logit is worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from poolzoo.artifacts.run import configuration
from poolzoo.export import export as exporting
from poolzoo.export.source import ExportSource
from poolzoo.model.assemble import assemble
from poolzoo.model.config import ModelConfig
from poolzoo.model.inference import InferenceModel
from poolzoo.model.network import Network, Preprocess
from poolzoo.parity.report import Limits
from poolzoo.plugin import loader

SIZE = (24, 32)  # of the images, height and width
CELL = 8  # pixels a side that become a position of the map
CLASSES = ("red", "green", "blue", "gray")

PLUGIN = """
from poolzoo import Backbone, Pooling, hookimpl


def build(*, pretrained: bool = False):
    import torch
    from torch import nn

    convolution = nn.Conv2d(3, 3, {cell}, {cell})
    with torch.no_grad():
        convolution.weight.copy_(torch.eye(3)[:, :, None, None].expand(3, 3, {cell}, {cell}) / {cell}**2)
        convolution.bias.zero_()
    return nn.Sequential(convolution, nn.ReLU())


def averaged(*, pretrained: bool = False):
    import torch
    from torch import nn

    torch.manual_seed(5)
    return nn.Sequential(*build(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4))


def flattened(*, pretrained: bool = False):
    from torch import nn

    return nn.Sequential(*build(), nn.Flatten(), nn.Linear(3 * 4 * 4, 4))


def sharpest(channels: int):
    import torch
    from torch import nn

    class Sharpest(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.linspace(1, 2, channels))

        def forward(self, x):
            return (x * self.scale[:, None, None]).logsumexp((2, 3))

    return Sharpest()


@hookimpl
def poolzoo_backbones():
    facts = dict(summary="mean colors of cells", build=build, input_size=4 * {cell})
    plain = dict(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    yield Backbone(name="cells", **facts, **plain, network=averaged)
    yield Backbone(name="flat-cells", **facts, **plain, network=flattened)


@hookimpl
def poolzoo_poolings():
    yield Pooling(name="sharpest", summary="", kind="global", build=sharpest)
""".replace("{cell}", str(CELL))


def plugin(folder: Path) -> Path:
    """The plugin with the backbone `cells`, whose map is the mean color of every cell, and a pooling."""
    path = folder / "cells.py"
    path.write_text(PLUGIN)
    return path


def color_bundle(path: Path, pool: str, classifier: object = None, **options: object) -> tuple[Path, Network]:
    """Exports a network with the backbone `cells`.

    Args:
        path: Where the bundle goes; the plugin is written beside it.
        pool: The pooling.
        classifier: The weights of the classifier, `[4, 3]`; drawn where they are not given.
        options: What the graph shall be like, as `export.ExportOptions`.

    Returns:
        The bundle and the network.
    """
    loader.forget()
    loader.settings.files = [plugin(path.parent)]
    torch.manual_seed(3)
    config = ModelConfig(backbone="cells", pool=pool, num_classes=len(CLASSES), data_size=SIZE, image_size=SIZE)
    assembly = assemble(config)
    if classifier is not None:
        with torch.no_grad():
            assembly.network.classifier.weight.copy_(torch.tensor(classifier))
            assembly.network.classifier.bias.zero_()
    preprocess = Preprocess((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), SIZE, SIZE)
    pixels = np.random.default_rng(3).integers(0, 256, (40, *SIZE, 3), dtype=np.uint8)
    source = ExportSource(
        title="cells",
        origin={"run": "by hand"},
        model=InferenceModel(preprocess, assembly.network).eval(),
        size=SIZE,
        config=configuration(assembly, preprocess, CLASSES, "colors"),
        weights_sha256="0" * 64,
        images=pixels[:20],
        image_labels=None,
        calibration=pixels[20:],
        hint="fix the test",
    )
    loose = Limits(agreement=0.0)
    exporting.export(
        source, path, measure_speed=False, threads=1, options=exporting.ExportOptions(limits=loose, **options)
    )
    return path, assembly.network


def cells(pixels: np.ndarray) -> np.ndarray:
    """The map of an image, `float64[3, H', W']`, by numpy: the mean of each cell in 0–1."""
    height, width = (side // CELL for side in pixels.shape[:2])
    return pixels.reshape(height, CELL, width, CELL, 3).mean((1, 3)).transpose(2, 0, 1) / 255
