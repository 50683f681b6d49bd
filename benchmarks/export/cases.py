"""The networks that are exported, with random weights in which every branch matters, and the JPEGs that they label."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks.train.peers import IMAGENET
from poolzoo.artifacts import manifest, run
from poolzoo.data import images
from poolzoo.export.source import ExportSource
from poolzoo.model.assemble import assemble, assemble_backbone
from poolzoo.model.config import ModelConfig
from poolzoo.model.inference import InferenceModel
from poolzoo.model.network import Preprocess
from poolzoo.plugin import loader

COUNT: Final = 32  # JPEGs: one batch of the larger size
QUALITY: Final = 90  # of JPEGs that are made here
SMALL: Final = 64  # pixels a side up to which a network has CIFAR-10's number of classes, above it ImageNet's


@dataclass(frozen=True)
class Case:
    """A network and what it is to label.

    Attributes:
        text: As it was asked for, such as `timm/resnet18@32`.
        name: The backbone's name.
        data_size, image_size: Height and width of the JPEGs, and of the network's input.
        network: In eval mode.
        preprocess: Ours.
        jpegs: `COUNT` files of that size.
        pixels: The same, decoded: `uint8[N, h, w, 3]`.
    """

    text: str
    name: str
    data_size: tuple[int, int]
    image_size: tuple[int, int]
    classes: int
    network: nn.Module
    preprocess: Preprocess
    jpegs: list[bytes]
    pixels: np.ndarray

    @property
    def timm(self) -> str | None:
        """timm's name of the network, if it is one of timm's."""
        return self.name.removeprefix("timm/") if self.name.startswith("timm/") else None

    @property
    def convolutional(self) -> bool:
        """Whether there is no attention in it."""
        return not any("Attention" in type(module).__name__ for module in self.network.modules())

    def source(self) -> ExportSource:
        """What `poolzoo export` would be given."""
        (mean, std), resolved = self.preprocess.statistics, loader.catalog().backbone(self.name)
        expects = {"input_size": [3, *self.image_size], "mean": mean, "std": std, "license": resolved.item.license}
        names = [f"class {index}" for index in range(self.classes)]
        config: dict[str, Any] = {
            "schema": manifest.SCHEMA,
            "architecture": self.name.split("/", 1)[-1],
            "num_classes": self.classes,
            "label_names": names,
            "pretrained_cfg": {**expects, "interpolation": "bilinear", "crop_pct": 1.0, "num_classes": self.classes},
            "poolzoo": {
                "backbone": self.name,
                "pool": None,
                "local_pool": None,
                "options": {},
                "data_size": list(self.data_size),
                "image_size": list(self.image_size),
                "plugins": {"backbone": run.provenance(resolved)},
            },
        }
        return ExportSource(
            title=f"{self.name} with random weights",
            origin={"run": self.text},
            model=InferenceModel(self.preprocess, self.network).eval(),
            size=self.data_size,
            config=config,
            weights_sha256=hashlib.sha256(run.weights_bytes(self.network.state_dict())).hexdigest(),
            images=self.pixels,
            image_labels=None,
            calibration=self.pixels,
            hint="try another network",
        )


def make(text: str, folder: Path | None) -> Case:
    """A case from `NAME@PIXELS`, or `NAME@PIXELS:INPUT` where the network's input shall not be what poolzoo chooses.

    Args:
        text: Such as `timm/resnet18@32`, for JPEGs of 32 × 32.
        folder: Photographs to make the JPEGs of; None for those that come with scikit-learn.

    Raises:
        ValueError: It says no size.
        PoolzooError: There is no such backbone, or it takes no such size.
    """
    name, _, sizes = text.partition("@")
    data, _, chosen = sizes.partition(":")
    size, classes = (int(data), int(data)), 10 if int(data) <= SMALL else 1000
    image_size = (int(chosen), int(chosen)) if chosen else None
    torch.manual_seed(0)
    model_config = ModelConfig(backbone=name, pool="avg", num_classes=classes, data_size=size, image_size=image_size)
    if name.startswith("timm/"):
        import timm

        image_size = assemble_backbone(model_config).image_size
        network = timm.create_model(name.removeprefix("timm/"), num_classes=classes)
        mean, std = network.pretrained_cfg["mean"], network.pretrained_cfg["std"]
    else:
        assembly = assemble(model_config)
        image_size, network, (mean, std) = assembly.image_size, assembly.network, IMAGENET
    jpegs = [jpeg(photo) for photo in photographs(folder, size)]
    pixels = np.stack([images.read(io.BytesIO(one)) for one in jpegs])  # type: ignore[arg-type]
    preprocess = Preprocess(mean, std, size, image_size)
    perturb(network, preprocess(torch.from_numpy(pixels)), classes)
    return Case(text, name, size, image_size, classes, network.eval(), preprocess, jpegs, pixels)


def photographs(folder: Path | None, size: tuple[int, int], count: int = COUNT) -> list[Image.Image]:
    """`count` photographs of the size: a folder's, or random crops of the two that come with scikit-learn.

    Raises:
        FileNotFoundError: The folder holds no image.
    """
    random = np.random.default_rng(0)
    if folder is not None:
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in images.extensions())
        if not files:
            raise FileNotFoundError(f"{folder} holds no image")
        chosen = random.choice(len(files), count, replace=len(files) < count)
        return [Image.fromarray(images.read(files[index], size)) for index in chosen]
    from sklearn.datasets import load_sample_images

    made = []
    for index in range(count):
        photo = load_sample_images().images[index % 2]
        side = int(random.integers(size[0], min(photo.shape[:2])))
        top, left = (int(random.integers(length - side + 1)) for length in photo.shape[:2])
        crop = Image.fromarray(photo[top : top + side, left : left + side])
        made.append(crop.resize(size[::-1], Image.Resampling.BICUBIC))
    return made


def jpeg(photo: Image.Image) -> bytes:
    """A photograph as a JPEG."""
    file = io.BytesIO()
    photo.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


@torch.no_grad()
def perturb(network: nn.Module, x: Tensor, classes: int, strength: float = 1.0) -> None:
    """Makes a fresh network one whose every part shows in its logits, and whose images have different labels.

    A fresh one hides most of itself: last gammas of residual branches are 0, LayerScale is 1e-5, biases are 0. Constant
    parameters get noise; the statistics of batch normalization become those of the images; the classifier's bias
    takes the mean logits away, without which all images would have the same label.

    Args:
        network: It is changed in place.
        x: Its input, `float[N, 3, H, W]`.
        classes: Of how many its last linear layer chooses.
        strength: Of biases and of what starts below 1. With 1 a deep network of random weights may become chaotic.
    """
    seeded = torch.Generator().manual_seed(0)
    for name, parameter in network.named_parameters():
        first = float(parameter.flatten()[0])
        if bool((parameter == first).all()):
            noise = torch.rand(parameter.shape, generator=seeded)
            bias = name.endswith("bias")
            scale = strength if bias or abs(first) < 1 else 1.0
            parameter.copy_((noise - 0.5 if bias else noise + 0.5) * scale)
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches, of which there is one
    network.train()(x)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    logits = network.eval()(x)
    layers = [module for module in network.modules() if isinstance(module, nn.Linear)]
    classifier = next(layer for layer in reversed(layers) if layer.out_features == classes)
    classifier.bias -= logits.mean(0)
