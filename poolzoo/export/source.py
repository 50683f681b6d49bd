"""The source of an export: a network, and everything that its bundle says of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from poolzoo._version import __version__
from poolzoo.artifacts.run import Run, decision_of
from poolzoo.artifacts.samples import ValidationLogits, load_test, load_validation
from poolzoo.artifacts.schema import Config, Origin
from poolzoo.data.classes import require_names
from poolzoo.data.resize import Fit, recorded
from poolzoo.data.sizes import Size
from poolzoo.metrics.decisions import Decision
from poolzoo.model.inference import InferenceModel


@dataclass(frozen=True, kw_only=True)
class ExportSource:
    """A network to export.

    Attributes:
        title: What the network is, in words, for the model card and for errors.
        origin: What it was made from, for `export` in `config.json`.
        model: The network with its preprocessing, in eval mode: `uint8[N, h, w, 3]` to logits and probabilities.
        size: Height and width (h, w) of its images.
        config: `config.json` without `export`.
        weights_sha256: The sha256 of its weights.
        images: Images for parity and speed, `uint8[N, h, w, 3]`, shuffled with a fixed seed.
        image_labels: Their labels, `int[N]`, or `uint8[N, K]` for several labels; None where the images are synthetic.
        calibration: Other images, on which value ranges for lower precision are measured, `uint8[M, h, w, 3]`.
        hint: What to try where it cannot be exported.
        run: The directory of its run; None of another network.
    """

    title: str
    origin: Origin
    model: InferenceModel
    size: Size
    config: Config
    weights_sha256: str
    images: np.ndarray
    image_labels: np.ndarray | None
    calibration: np.ndarray
    hint: str
    run: Path | None = None

    @property
    def classes(self) -> list[str]:
        """The names of the classes, in the order of the logits."""
        return list(self.config["label_names"])

    @property
    def decision(self) -> Decision:
        """How its logits become labels."""
        return decision_of(self.config)

    def validation(self) -> ValidationLogits | None:
        """Logits of its validation images; None where none are kept.

        Raises:
            CheckFailed: The file is damaged.
        """
        return None if self.run is None else load_validation(self.run)

    def test(self) -> ValidationLogits | None:
        """Logits of all of its test images, of which `images` are some; None where none are kept.

        Raises:
            CheckFailed: The file is damaged.
        """
        return None if self.run is None else load_test(self.run)

    @property
    def fit(self) -> Fit:
        """How image files are brought to its size."""
        return recorded(self.config["pretrained_cfg"])

    @property
    def license(self) -> str:
        """The license of the weights, or "unknown"."""
        return str(self.config["pretrained_cfg"]["license"] or "unknown")

    @property
    def provenance(self) -> dict[str, object]:
        """The network's parts, the software versions and the hash of the weights, for `metadata_props`."""
        ours = self.config["poolzoo"]
        return {
            "poolzoo": {
                "backbone": ours["backbone"],
                "pool": ours["pool"],
                "local_pool": ours["local_pool"],
                "plugins": ours["plugins"],
            },
            "versions": {"poolzoo": __version__, **{name: version(name) for name in ("torch", "onnx", "onnxscript")}},
            "weights_sha256": self.weights_sha256,
        }


def from_run(run: Run, *, calibrated: bool = True) -> ExportSource:
    """The network of a finished run, with the images that the run keeps.

    Args:
        run: The run.
        calibrated: Whether probabilities are calibrated, where the run has a calibration.

    Raises:
        CheckFailed: A file of the run is missing or damaged.
        UsageError: The network has one class only.
    """
    if run.decision.thresholds is None:
        require_names(f"run {run.path}", run.classes)
    if not calibrated:
        run = run.uncalibrated()
    ours, samples = run.config["poolzoo"], run.samples()
    images, labels = _shuffled(samples, "test")
    calibration, _ = _shuffled(samples, "train")
    return ExportSource(
        title=f"{ours['backbone']} with {ours['pool']} pooling on {_public_name(ours['data'])}",
        origin={"run": run.path.name},
        model=InferenceModel(
            run.preprocess,
            run.network,
            multilabel=run.decision.task.is_multilabel,
            calibration=run.decision.calibration,
        ).eval(),
        size=run.data_size,
        config=run.config,
        weights_sha256=hashlib.sha256((run.path / "model.safetensors").read_bytes()).hexdigest(),
        images=images,
        image_labels=labels,
        calibration=calibration,
        hint="try another --pool",
        run=run.path,
    )


def _public_name(data: str) -> str:
    """A data set's name without the path of a folder, which is private to this machine."""
    kind, _, path = data.partition(":")
    return Path(path).name or kind if kind == "folder" else data


def _shuffled(samples: dict[str, np.ndarray], split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels in a fixed random order; a run keeps them in the data's order, often sorted by class."""
    images, labels = samples[f"{split}_images"], samples[f"{split}_labels"]
    order = np.random.default_rng(0).permutation(len(labels))
    return images[order], labels[order]
