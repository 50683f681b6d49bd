"""The run directory as a format: names, `config.json`, `env.json`, weights; and the network loaded from it."""

from __future__ import annotations

import os
import platform
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save as save_tensors

from poolzoo._version import __version__
from poolzoo.artifacts import manifest, reading, samples
from poolzoo.artifacts.schema import Config, InputConfig, PluginSource
from poolzoo.common import files, output
from poolzoo.common.errors import CheckFailed, UsageError
from poolzoo.data.held_out import HeldOut
from poolzoo.data.resize import PLAIN, Fit, recorded
from poolzoo.data.sizes import Size
from poolzoo.metrics import decisions
from poolzoo.metrics.decisions import ONE_LABEL, Decision
from poolzoo.model.accounting import fill_exactly
from poolzoo.model.assemble import Assembly, assemble, attach_head
from poolzoo.model.config import ModelConfig
from poolzoo.model.network import Network, Preprocess
from poolzoo.model.state_dict import load_tensors
from poolzoo.plugin.loader import Resolved

VERSIONED = ("torch", "torchvision", "timm", "numpy", "scikit-learn", "safetensors", "pillow")


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        path: Its directory.
        network: The network in eval mode, on the CPU.
        preprocess: Turns `uint8[N, h, w, 3]` into the network's input, `float32[N, 3, H, W]`.
        config: `config.json`.
        assembly: The network with what it was built of.
    """

    path: Path
    network: Network
    preprocess: Preprocess
    config: Config
    assembly: Assembly

    @property
    def classes(self) -> list[str]:
        """The names of the classes, in the order of the logits."""
        return list(self.config["label_names"])

    @property
    def decision(self) -> Decision:
        """How its logits become labels."""
        return decision_of(self.config)

    @property
    def data_size(self) -> tuple[int, int]:
        """Height and width of stored images."""
        height, width = self.config["poolzoo"]["data_size"]
        return height, width

    @property
    def fit(self) -> Fit:
        """How image files became the pixels that it was trained on."""
        return recorded(self.config["pretrained_cfg"])

    def uncalibrated(self) -> Run:
        """The same run, whose probabilities are those of its plain logits; thresholds decide as they did.

        A threshold is moved to the plain probability that belongs to it.
        """
        calibration, config = self.decision.calibration, self.config.copy()
        if calibration is None:
            return self
        del config["calibration"]
        if self.decision.thresholds is not None:
            config["thresholds"] = list(calibration.plain_probabilities(self.decision.thresholds))
        return replace(self, config=config)

    def samples(self) -> dict[str, np.ndarray]:
        """Images and labels of the data: `train_images`, `train_labels`, `test_images`, `test_labels`.

        Raises:
            CheckFailed: The file is missing or damaged.
        """
        return samples.load_samples(self.path / "samples.npz")


def new_path(root: Path, backbone: str, pool: str) -> Path:
    """A unique directory name in `root`, made of the time, the backbone and the pooling."""
    time = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    return root / f"{time}-{files.slug(backbone)}-{files.slug(pool)}-{secrets.token_hex(3)}"


def configuration(
    assembly: Assembly,
    preprocess: Preprocess,
    classes: tuple[str, ...],
    data: str,
    how: Fit = PLAIN,
    decision: Decision = ONE_LABEL,
    test_part: HeldOut | None = None,
) -> Config:
    """`config.json` of a run: timm's keys, and under `poolzoo` what is needed to build the same network again.

    Args:
        assembly: The network and its parts.
        preprocess: Turns stored images into its input.
        classes: The names of the classes.
        data: The name of the data set.
        how: How image files become stored images.
        decision: How logits become labels.
        test_part: Which of its training images are test images; None where the data has test images.
    """
    layout, model, backbone = assembly.layout, assembly.config, assembly.backbone.resolved
    parts = {"backbone": backbone, "pool": assembly.pool, "local_pool": assembly.local_pool}
    config: Config = {
        "schema": manifest.SCHEMA,
        "architecture": backbone.spec.name.split("/", 1)[-1],
        "num_classes": model.num_classes,
        "num_features": assembly.out_features,
        "global_pool": model.pool,
        "label_names": list(classes),
        "pretrained_cfg": input_config(preprocess, assembly.image_size, model.num_classes, backbone, how),
        "poolzoo": {
            "backbone": model.backbone,
            "pool": model.pool,
            "options": assembly.pool.options,
            "local_pool": model.local_pool,
            "stem": model.stem,
            "head": model.head,
            "final_norm": model.final_norm,
            "published_head": assembly.backbone.published.to_json(assembly.norm_place, assembly.out_features),
            "weights": assembly.weights.to_json(),
            "data": data,
            "data_size": list(model.data_size),
            "image_size": list(assembly.image_size),
            "map": [layout.channels, *layout.map_size],
            "plugin": provenance(assembly.pool),
            "plugins": {part: provenance(resolved) for part, resolved in parts.items() if resolved is not None},
        },
    }
    if decision.thresholds is not None:
        config["task"] = decision.task.name
        config["thresholds"] = list(decision.thresholds)
    if decision.calibration is not None:
        config["calibration"] = decision.calibration.to_json()
    if test_part is not None:
        config["poolzoo"]["test_part"] = {"fraction": test_part.fraction, "seed": test_part.seed}
    return config


def decision_of(config: Config) -> Decision:
    """How the logits of a run or bundle become labels, from its `config.json`.

    Without `task`, as in earlier versions, an image has one label.

    Raises:
        ValueError: The task is unknown, or thresholds or calibration do not fit it.
    """
    count = len(config["label_names"])
    return decisions.recorded(config.get("task"), config.get("thresholds"), count, config.get("calibration"))


def input_config(
    preprocess: Preprocess, image_size: Size, num_classes: int, backbone: Resolved, how: Fit = PLAIN
) -> InputConfig:
    """`pretrained_cfg` in `config.json`, with timm's keys: what the network expects, and how images are resized."""
    mean, std = preprocess.statistics
    return {
        "input_size": [3, *image_size],
        "mean": list(mean),
        "std": list(std),
        "interpolation": how.interpolation,
        "crop_pct": how.crop_pct,
        "reader": how.reader,
        "num_classes": num_classes,
        "license": backbone.item.license,
    }


def provenance(resolved: Resolved) -> PluginSource:
    """Who provides a part: distribution, version, and the sha256 of a plugin file."""
    source = resolved.entry.source
    return {"dist": source.dist, "version": source.version, "tier": source.tier, "sha256": source.sha256()}


def environment(device: torch.device) -> dict[str, object]:
    """`env.json`: software versions and hardware."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {"poolzoo": __version__}
    for package in VERSIONED:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "none"
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "versions": versions,
    }


def weights_bytes(state: dict[str, torch.Tensor]) -> bytes:
    """A state dict as safetensors, without times or paths: equal weights give equal bytes.

    The format refuses shared memory, so that each name of a tied weight gets its own copy.
    """
    kept: dict[str, torch.Tensor] = {}
    taken: set[int] = set()
    for name, value in state.items():
        kept[name] = value.detach().cpu().contiguous()
        memory = kept[name].untyped_storage().data_ptr()
        if memory in taken:
            kept[name] = kept[name].clone()
        taken.add(memory)
    return save_tensors(kept, metadata={"format": "pt"})


def model_config(config: Config) -> ModelConfig:
    """What the network of a run or bundle is made of.

    Args:
        config: Its `config.json`.

    Raises:
        KeyError, TypeError, ValueError: The configuration lacks something.
    """
    ours = config["poolzoo"]
    pool = ours["pool"]
    if pool is None:
        raise ValueError("pool")
    height, width = ours["data_size"]
    image_height, image_width = ours["image_size"]
    return ModelConfig(
        backbone=ours["backbone"],
        pool=pool,
        num_classes=config["num_classes"],
        data_size=(height, width),
        image_size=(image_height, image_width),
        local_pool=ours["local_pool"],
        stem=ours["stem"],
        head=ours["head"],
        final_norm=ours.get("final_norm", "backbone"),  # runs of earlier versions lack it
    )


def load_runs(paths: Iterable[Path]) -> list[Run]:
    """Loads several runs. Those whose backbones are bitwise the same share its module, which is built once.

    Raises:
        UsageError, CheckFailed: As `load_run`.
    """
    found: list[Run] = []
    for path in paths:
        found.append(load_run(path, beside=found))
    return found


def load_run(path: str | os.PathLike[str], beside: Sequence[Run] = ()) -> Run:
    """Builds the network of a finished run and loads its weights.

    Args:
        path: The run directory.
        beside: Runs that are loaded; where the backbone of one of them is bitwise the same, both share its module.

    Raises:
        UsageError: There is no such run, or a plugin that it needs is missing.
        CheckFailed: The run is incomplete, damaged or altered.
    """
    directory = Path(path)
    manifest.check(directory, "run")
    config = reading.read_config(directory)
    try:
        model = model_config(config)
        mean, std = config["pretrained_cfg"]["mean"], config["pretrained_cfg"]["std"]
        recorded, _ = dict(config["poolzoo"]["plugins"]), decision_of(config)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckFailed(
            f"{directory / 'config.json'} lacks {error}", "it was made by another version of poolzoo"
        ) from error
    file, hint = directory / "model.safetensors", "was a plugin or timm changed?"
    state = load_tensors(file.read_bytes(), str(file), hint)
    twin = next((one.assembly for one in beside if _has_backbone(one.assembly, model, state)), None)
    try:
        assembly = assemble(model) if twin is None else attach_head(twin.backbone, model)
    except UsageError as error:
        foreign = [f"{part} came from {was['dist']}" for part, was in recorded.items() if was["tier"] != "built-in"]
        if not foreign:
            raise
        hint = f"the run's {'; '.join(foreign)}: install it, or name its file with --plugin"
        raise UsageError(error.message, hint) from error
    _warn_of_other_plugins(assembly, recorded)
    network = assembly.network
    fill_exactly(network, state, str(file), hint, dropped=network.dropped)
    preprocess = Preprocess(tuple(mean), tuple(std), model.data_size, assembly.image_size)
    return Run(directory, network.eval(), preprocess.eval(), config, assembly)


def _has_backbone(other: Assembly, model: ModelConfig, state: Mapping[str, torch.Tensor]) -> bool:
    """Whether a run differs from another one behind the backbone alone: not in its config, weights or statistics."""
    if replace(other.config, pool=model.pool, head=model.head, num_classes=model.num_classes) != model:
        return False
    own = {name: value for name, value in other.network.state_dict().items() if name.startswith("backbone.")}
    names = {name for name in state if name.startswith("backbone.")} - other.network.dropped
    return own.keys() == names and all(torch.equal(value, state[name]) for name, value in own.items())


def _warn_of_other_plugins(assembly: Assembly, recorded: Mapping[str, PluginSource]) -> None:
    """Warns where a part comes from another version of its plugin than the run's."""
    for part, resolved in (
        ("backbone", assembly.backbone.resolved),
        ("pool", assembly.pool),
        ("local_pool", assembly.local_pool),
    ):
        was = recorded.get(part)
        if resolved is None or was is None or was["tier"] == "built-in":
            continue
        source = resolved.entry.source
        if (was["version"], was["sha256"]) != (source.version, source.sha256()):
            output.warn(
                f"the {part} {resolved.spec.text} comes from another version of {source.dist} than the run used"
            )
