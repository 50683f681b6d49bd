"""Whole bundles, exported as `poolzoo export` does, of networks with random weights in which every part matters.

Beside each lie images that it does not store, with the network's own answers. Those of a graph in lower precision come
from the evaluator of the onnx package.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import torch
from onnx import version_converter
from onnx.reference import ReferenceEvaluator

from benchmarks.export import cases
from benchmarks.runtimes.layers import BATCHES
from poolzoo.artifacts import run
from poolzoo.export.export import ExportOptions, export
from poolzoo.export.source import ExportSource
from poolzoo.metrics.calibration import Calibration
from poolzoo.metrics.decisions import Decision
from poolzoo.model.assemble import assemble
from poolzoo.model.config import ModelConfig
from poolzoo.model.inference import InferenceModel
from poolzoo.model.network import Preprocess
from poolzoo.parity.report import Limits

LABELS: Final = tuple("abcdefghij")
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
EVALUATED: Final = 19  # the opset from which the evaluator has all operators of int8
TEMPERATURE: Final = 1.3
STRENGTH: Final = 0.3  # of the noise on biases and small scales: with more, a deep random network is chaotic


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle to make.

    Attributes:
        kind: What it stands for.
        backbone, pool, local_pool: As for `ModelConfig`.
        size: Height and width of its images.
        image_size: Of the backbone's input; None for the same.
        precision: A choice of `poolzoo export --precision`.
        input_kind: "uint8" or "float".
        smoothing: What the calibration of its probabilities takes back; None for no calibration.
    """

    kind: str
    backbone: str
    pool: str
    local_pool: str | None = None
    size: int = 32
    image_size: int | None = None
    precision: str = "fp32"
    input_kind: str = "uint8"
    smoothing: float | None = None

    @property
    def name(self) -> str:
        """Such as "nano/resnet + gem, int8"."""
        local = f" + local {self.local_pool}" if self.local_pool else ""
        resized = f", {self.size} → {self.image_size} px" if self.image_size else ""
        precision = "" if self.precision == "fp32" else f", {self.precision}"
        floating = ", float input" if self.input_kind == "float" else ""
        unsmoothed = f", label smoothing of {self.smoothing:g} taken back" if self.smoothing else ""
        return f"{self.backbone} + {self.pool}{local}{resized}{precision}{floating}{unsmoothed}"


BUNDLES: Final = (
    Bundle(kind="CNN", backbone="nano/resnet", pool="gem"),
    Bundle(kind="CNN, unsmoothed", backbone="nano/resnet", pool="gem", smoothing=0.1),
    Bundle(kind="CNN, float input", backbone="nano/resnet", pool="avgmax", input_kind="float"),
    Bundle(kind="CNN, resized inside", backbone="nano/plain", pool="netvlad", size=16, image_size=32),
    Bundle(kind="CNN, local layers", backbone="nano/plain", pool="cov", local_pool="maxblur"),
    Bundle(kind="CNN, local layers", backbone="torchvision/vgg11_bn", pool="lse", local_pool="soft", size=64),
    Bundle(kind="CNN", backbone="timm/resnet18", pool="rmac", size=64),
    Bundle(kind="CNN, grouped", backbone="torchvision/shufflenet_v2_x0_5", pool="spp", size=64),
    Bundle(kind="depthwise, hard sigmoid", backbone="timm/mobilenetv3_small_050", pool="avgmax", size=64),
    Bundle(kind="depthwise, SiLU", backbone="timm/test_efficientnet", pool="simpool", size=64),
    Bundle(kind="CNN, scaled weights", backbone="timm/test_nfnet", pool="attention", size=64),
    Bundle(kind="depthwise, LayerNorm", backbone="timm/test_convnext", pool="gated", size=64),
    Bundle(kind="NHWC", backbone="timm/test_mambaout", pool="bilinear", size=64),
    Bundle(kind="ViT", backbone="timm/test_vit", pool="map", size=64, image_size=160),
    Bundle(kind="ViT, registers", backbone="timm/test_vit3", pool="simpool", size=160),
    Bundle(kind="int8", backbone="nano/resnet", pool="gem", precision="int8"),
    Bundle(kind="int8", backbone="timm/resnet18", pool="avg", size=64, precision="int8"),
    Bundle(kind="fp16", backbone="nano/resnet", pool="gem", precision="fp16"),
)


def by_name(name: str) -> Bundle:
    """The bundle of a name."""
    return next(one for one in BUNDLES if one.name == name)


def write(name: str, folder: Path) -> None:
    """Exports a bundle, and writes a file of cases: images and the network's logits.

    Args:
        name: Of one of `BUNDLES`.
        folder: Its directory, which is made. The file of its cases lies beside it.
    """
    asked = by_name(name)
    torch.manual_seed(0)
    size = (asked.size, asked.size)
    side = asked.image_size or asked.size
    config = ModelConfig(
        backbone=asked.backbone,
        pool=asked.pool,
        num_classes=len(LABELS),
        data_size=size,
        image_size=(side, side),
        local_pool=asked.local_pool,
    )
    assembly = assemble(config)
    preprocess = Preprocess(MEAN, STD, size, assembly.image_size)
    photos = np.stack([np.asarray(photo) for photo in cases.photographs(None, size)])
    cases.perturb(assembly.network, preprocess(torch.from_numpy(photos)), len(LABELS), STRENGTH)
    decision = Decision(calibration=Calibration(TEMPERATURE, smoothing=asked.smoothing) if asked.smoothing else None)
    model = InferenceModel(preprocess, assembly.network, calibration=decision.calibration).eval()
    source = ExportSource(
        title=name,
        origin={"run": "benchmark of runtimes"},
        model=model,
        size=size,
        config=run.configuration(assembly, preprocess, LABELS, "photographs", decision=decision),
        weights_sha256=hashlib.sha256(run.weights_bytes(assembly.network.state_dict())).hexdigest(),
        images=photos,
        image_labels=None,
        calibration=photos,
        hint="try another network",
    )
    loose = Limits(agreement=0.5) if asked.precision != "fp32" else Limits()
    options = ExportOptions(precision=asked.precision, input_kind=asked.input_kind, limits=loose)
    export(source, folder, options=options, provider="cpu", threads=1, measure_speed=False)
    images = np.ascontiguousarray(photos[: sum(BATCHES), :, ::-1])  # mirrored: the bundle holds none of these
    np.savez(folder.with_suffix(".npz"), images=images, **_expected(asked, model, folder, images))


def _expected(asked: Bundle, model: InferenceModel, folder: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    """The network's `logits`; in lower precision, the graph's by the standard's own evaluator.

    `noise` then says how far that precision alone takes them from the network's, relative to the largest: about as
    much moves where a runtime rounds otherwise.
    """
    with torch.inference_mode():
        logits = model(torch.from_numpy(images))[0].numpy()
    if asked.precision == "fp32":
        return {"logits": logits}
    with np.errstate(all="ignore"):
        graph = version_converter.convert_version(onnx.load(folder / "model.onnx"), EVALUATED)
        found = ReferenceEvaluator(graph).run(["logits"], {"images": images})
    exact = np.asarray(next(iter(found)), np.float32)
    return {"logits": exact, "noise": np.abs(exact - logits).max() / np.abs(logits).max()}
