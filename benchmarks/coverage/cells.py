"""The cells of the matrix: which backbones, and which poolings in each."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from poolzoo.model.config import ModelConfig
from poolzoo.plugin import loader
from poolzoo.plugin.spec import Pooling

LITE0: Final = Path(__file__).parents[2] / "plugins" / "poolzoo-lite0" / "src"
BACKBONES: Final = {
    "nano/plain": "plain convolutions",
    "nano/resnet": "residual",
    "lite0": "depthwise, from a plugin",
    "timm/resnet18": "residual",
    "timm/test_resnet": "residual, bottlenecks, deep stem",
    "timm/test_nfnet": "residual, without norms",
    "timm/test_byobnet": "residual, from blocks of several kinds",
    "timm/test_efficientnet": "depthwise, squeeze and excitation",
    "timm/mobilenetv3_small_050": "depthwise, with a convolution behind the pooling",
    "timm/test_convnext": "depthwise, layer norms",
    "timm/test_mambaout": "gated convolutions, NHWC",
    "timm/repvgg_a0": "branches that are fused for inference",
    "timm/dla34": "aggregation over a tree",
    "timm/test_vit": "tokens, a class token",
    "timm/test_vit2": "tokens, a register",
    "timm/test_vit_relpos": "tokens, relative positions",
    "timm/test_coatnet": "hybrid",
    "timm/test_maxvit": "hybrid, windows and grids",
    "timm/mobilevit_xxs": "hybrid, depthwise",
    "timm/pit_ti_224": "tokens that are pooled, a class token",
    "timm/mixer_s32_224": "token mixer, fixed size",
    "timm/poolformer_s12": "token mixer, by pooling",
    "timm/swin_tiny_patch4_window7_224": "shifted windows, NHWC",
    "torchvision/swin_t": "shifted windows",
    "torchvision/densenet121": "dense",
    "torchvision/googlenet": "inception",
    "torchvision/mobilenet_v2": "depthwise",
    "torchvision/shufflenet_v2_x0_5": "depthwise, shuffled channels",
    "torchvision/squeezenet1_0": "fire modules, pooling with ceil_mode",
    "torchvision/vgg11_bn": "plain convolutions",
}
# Those with pooling layers that downsample; the one local cell of each other has to be refused.
POOLED: Final = {
    *("nano/plain", "nano/resnet", "timm/resnet18", "timm/test_resnet", "timm/test_nfnet", "timm/dla34"),
    *("timm/test_byobnet", "timm/test_coatnet", "timm/test_maxvit", "torchvision/densenet121", "torchvision/googlenet"),
    *("torchvision/shufflenet_v2_x0_5", "torchvision/squeezenet1_0", "torchvision/vgg11_bn"),
}
DATA_SIZE: Final = (32, 32)  # of the images, as in CIFAR-10
CLASSES: Final = tuple("abcdefghij")
STRENGTHS: Final = (1.0, 0.2)  # of what wakes a network; the second where the first leaves nothing to compare
GEOMETRY: Final = {"wavelet": "wavelet:window=2,stride=2,padding=0"}  # the only one that it has


@dataclass(frozen=True)
class Cell:
    """A pooling in a backbone; `str` of it is its name."""

    backbone: str
    kind: str
    pool: str

    @classmethod
    def of(cls, text: str) -> Cell:
        return cls(*text.split(" "))

    def __str__(self) -> str:
        return f"{self.backbone} {self.kind} {self.pool}"

    def model_config(self, image_size: int) -> ModelConfig:
        pool, local_pool = (self.pool, None) if self.kind == "global" else ("avg", GEOMETRY.get(self.pool, self.pool))
        return ModelConfig(self.backbone, pool, len(CLASSES), DATA_SIZE, (image_size, image_size), local_pool)


def use_catalog() -> None:
    """Makes the catalog of the built-in plugins and `lite0` the process's own."""
    loader.use(builtin_catalog())


@cache
def builtin_catalog() -> loader.Catalog:
    sys.path.append(str(LITE0))  # where it is not installed
    return loader.load_plugins(LITE0 / "poolzoo_lite0" / "__init__.py", installed=False)


def cells(more: Sequence[str] = ()) -> list[str]:
    """The names of all cells, or of those of other backbones: without pooling layers, one local cell alone."""
    use_catalog()
    items = sorted((entry.item for entry in loader.catalog().select(Pooling)), key=lambda item: item.kind)
    return [
        str(Cell(backbone, item.kind, item.name))
        for backbone in more or BACKBONES
        for item in items
        if item.kind == "global" or backbone in POOLED or backbone in more or item.name == "max"
    ]
