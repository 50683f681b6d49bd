"""What is exported: a network with all that its bundle says of it, wherever the network comes from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from poolzoo.artifacts.run import Run
from poolzoo.data.classes import require_names
from poolzoo.data.resize import Fit, recorded
from poolzoo.data.sizes import Size
from poolzoo.model.inference import InferenceModel


@dataclass(frozen=True, kw_only=True)
class ExportSource:
    """A network on its way into a bundle.

    Attributes:
        title: What it is, in words, for the bundle's card and for errors.
        origin: What it was made from, for `export` in `config.json`, such as `{"run": …}`.
        model: The network with its preprocessing, in eval mode: `uint8[N, h, w, 3]` to logits and probabilities.
        size: Height and width (h, w) of the images that it takes.
        config: `config.json`, with the keys of a run's.
        weights_sha256: The hash of its weights.
        images: Images to compare and to measure with, `uint8[N, h, w, 3]`, in an order drawn from a fixed seed.
        image_labels: Their labels; None where the images are synthetic and nothing is in them.
        calibration: Other images, from which int8 learns the range of every layer, `uint8[M, h, w, 3]`.
        remedy: What to try where it cannot be exported.
    """

    title: str
    origin: dict[str, str]
    model: InferenceModel
    size: Size
    config: dict[str, Any]
    weights_sha256: str
    images: np.ndarray
    image_labels: np.ndarray | None
    calibration: np.ndarray
    remedy: str

    @property
    def classes(self) -> list[str]:
        return list(self.config["label_names"])

    @property
    def fit(self) -> Fit:
        """How photographs are brought to its size."""
        return recorded(self.config["pretrained_cfg"])

    @property
    def license(self) -> str:
        return str(self.config["pretrained_cfg"]["license"] or "unknown")

    @property
    def provenance(self) -> dict[str, Any]:
        """What the network is made of and with which software, for `metadata_props`."""
        return {
            "poolzoo": {key: self.config["poolzoo"][key] for key in ("backbone", "pool", "local_pool", "plugins")},
            "versions": {name: version(name) for name in ("poolzoo", "torch", "onnx", "onnxscript")},
            "weights_sha256": self.weights_sha256,
        }


def of_run(run: Run) -> ExportSource:
    """A trained network, with the test images that its run has kept.

    Raises:
        CheckFailed: A file of the run is missing or damaged.
        UsageError: The network knows one class only.
    """
    require_names(f"run {run.path}", run.classes)
    ours, samples = run.config["poolzoo"], run.samples()
    (images, labels), (calibration, _) = (_shuffled(samples, part) for part in ("test", "train"))
    return ExportSource(
        title=f"{ours['backbone']} with {ours['pool']} pooling on {_public(ours['data'])}",
        origin={"run": run.path.name},
        model=InferenceModel(run.preprocess, run.network).eval(),
        size=run.data_size,
        config=run.config,
        weights_sha256=hashlib.sha256((run.path / "model.safetensors").read_bytes()).hexdigest(),
        images=images,
        image_labels=labels,
        calibration=calibration,
        remedy="try another --pool",
    )


def _public(data: str) -> str:
    """A data set's name for others to read: of a folder its own name, not where it lies on somebody's disk."""
    kind, _, path = data.partition(":")
    return Path(path).name or kind if kind == "folder" else data


def _shuffled(samples: dict[str, np.ndarray], part: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels in a fixed random order; they are kept in the data's own, where one class follows another."""
    images, labels = samples[f"{part}_images"], samples[f"{part}_labels"]
    order = np.random.default_rng(0).permutation(len(labels))
    return images[order], labels[order]
