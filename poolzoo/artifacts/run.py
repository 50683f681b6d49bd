"""The run directory: what a finished fine-tuning leaves behind, and how a network comes back from it."""

from __future__ import annotations

import dataclasses
import io
import os
import platform
import secrets
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from poolzoo.artifacts import manifest
from poolzoo.artifacts.run_report import RunReport
from poolzoo.common import files, markdown, output
from poolzoo.common.errors import CheckFailed, UsageError
from poolzoo.data import blocks, sizes
from poolzoo.data.resize import PLAIN, Fit, recorded
from poolzoo.metrics.results import format_score, untested_classes, untested_note
from poolzoo.model.accounting import fill_exactly
from poolzoo.model.assemble import Assembly, ModelConfig, Network, Preprocess, assemble
from poolzoo.model.layout import Size
from poolzoo.plugin.loader import Resolved

SAMPLES_TRAIN, SAMPLES_TEST = 512, 1024  # images kept in samples.npz …
SAMPLES_BYTES = 64 << 20  # … or fewer, so that they stay within 64 MB


@dataclass(frozen=True)
class Run:
    """A finished run: its network in eval mode, how images become its input, and its configuration."""

    path: Path
    network: Network
    preprocess: Preprocess
    config: dict[str, Any]

    @property
    def classes(self) -> list[str]:
        return list(self.config["label_names"])

    @property
    def data_size(self) -> tuple[int, int]:
        height, width = self.config["poolzoo"]["data_size"]
        return height, width

    @property
    def fit(self) -> Fit:
        """How files became the pixels that it was trained on."""
        return recorded(self.config["pretrained_cfg"])

    def samples(self) -> dict[str, np.ndarray]:
        """Images and labels kept from the data: `train_images`, `train_labels`, `test_images`, `test_labels`."""
        names = [f"{part}_{what}" for part in ("train", "test") for what in ("images", "labels")]
        return dict(zip(names, files.read_arrays(self.path / "samples.npz", names), strict=True))


def new_path(root: Path, backbone: str, pool: str) -> Path:
    """A directory name that says when and what, and that nobody else has."""
    time = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    return root / f"{time}-{files.slug(backbone)}-{files.slug(pool)}-{secrets.token_hex(3)}"


def configuration(
    assembly: Assembly, preprocess: Preprocess, classes: tuple[str, ...], data: str, how: Fit = PLAIN
) -> dict[str, Any]:
    """`config.json`: timm's keys, and under `poolzoo` what is needed to build the same network again."""
    layout, plan = assembly.layout, assembly.plan
    parts = {"backbone": assembly.backbone, "pool": assembly.pool, "local_pool": assembly.local_pool}
    return {
        "schema": manifest.SCHEMA,
        "architecture": assembly.backbone.spec.name.split("/", 1)[-1],
        "num_classes": plan.num_classes,
        "num_features": assembly.width,
        "global_pool": plan.pool,
        "label_names": list(classes),
        "pretrained_cfg": input_config(preprocess, assembly.image_size, plan.num_classes, assembly.backbone, how),
        "poolzoo": {
            "backbone": plan.backbone,
            "pool": plan.pool,
            "options": assembly.pool.options,
            "local_pool": plan.local_pool,
            "stem": plan.stem,
            "head": plan.head,
            "final_norm": plan.final_norm,
            "published_head": assembly.body.published.to_json(assembly.norm_place, assembly.width),
            "weights": assembly.weights.to_json(),
            "data": data,
            "data_size": list(plan.data_size),
            "image_size": list(assembly.image_size),
            "map": [layout.channels, *layout.map_size],
            "plugin": provenance(assembly.pool),
            "plugins": {part: provenance(resolved) for part, resolved in parts.items() if resolved is not None},
        },
    }


def input_config(
    preprocess: Preprocess, image_size: Size, num_classes: int, backbone: Resolved, how: Fit = PLAIN
) -> dict[str, Any]:
    """`pretrained_cfg` in `config.json`, with timm's keys: what the network expects, and how we bring images to it."""
    mean, std = preprocess.statistics
    return {
        "input_size": [3, *image_size],
        "mean": list(mean),
        "std": list(std),
        **dataclasses.asdict(how),
        "num_classes": num_classes,
        "license": backbone.item.license,
    }


def provenance(resolved: Resolved) -> dict[str, Any]:
    """Who provides a part: distribution, version, and the sha256 of the plugin's file where it is one."""
    source = resolved.entry.source
    return {"dist": source.dist, "version": source.version, "tier": source.tier, "sha256": source.sha256()}


def environment(device: torch.device) -> dict[str, Any]:
    """`env.json`: what the run was made with."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for package in ("poolzoo", "torch", "torchvision", "timm", "numpy", "scikit-learn", "safetensors", "pillow"):
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
    """A state dict as safetensors, without times or paths: equal weights are equal bytes.

    The format refuses memory that is shared, as where layers have one weight; each name has a copy of its own.
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


def save_samples(
    path: Path,
    train: tuple[np.ndarray, np.ndarray],
    learnt: np.ndarray,
    test: tuple[np.ndarray, np.ndarray],
) -> None:
    """Keeps some images with their labels, so that the network can be exported where the data is gone.

    Args:
        path: The file.
        train: Images and labels of the training split.
        learnt: Indices of those that were learnt from.
        test: Images and labels of the test split.
    """
    share = min(1.0, SAMPLES_BYTES / ((SAMPLES_TRAIN + SAMPLES_TEST) * train[0][0].nbytes))
    picks, everything = {}, np.arange(len(test[0]))
    for name, (images, labels), pool, count in (
        ("train", train, learnt, SAMPLES_TRAIN),
        ("test", test, everything, SAMPLES_TEST),
    ):
        chosen = np.sort(pool[np.random.default_rng(0).permutation(len(pool))[: max(1, int(share * count))]])
        picks[f"{name}_images"], picks[f"{name}_labels"] = blocks.gather(images, chosen), labels[chosen]
    buffer = io.BytesIO()
    # Photographs hardly shrink: the fastest level takes a quarter of the time of numpy's.
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in picks.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
    files.write_atomically(path, buffer.getvalue())


def save_predictions(path: Path, predicted: np.ndarray, labels: np.ndarray) -> None:
    """Keeps which class the network chose for every test image, in the data's order: what comparisons are made of."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, predicted=predicted.astype(np.int32), labels=labels.astype(np.int32))
    files.write_atomically(path, buffer.getvalue())


def plan_of(config: Mapping[str, Any]) -> ModelConfig:
    """What the network of a run or of a bundle is made of, from its `config.json`.

    Raises:
        KeyError, TypeError, ValueError: The configuration lacks something.
    """
    ours = config["poolzoo"]
    return ModelConfig(
        backbone=ours["backbone"],
        pool=ours["pool"],
        num_classes=config["num_classes"],
        data_size=tuple(ours["data_size"]),
        image_size=tuple(ours["image_size"]),
        local_pool=ours["local_pool"],
        stem=ours["stem"],
        head=ours["head"],
        final_norm=ours.get("final_norm", "backbone"),  # which runs of earlier versions do not say
    )


def load_run(path: str | os.PathLike[str]) -> Run:
    """Builds the network of a finished run again and fills in its weights.

    Raises:
        UsageError: There is no such run, or a plugin that it needs is missing.
        CheckFailed: The run is incomplete or was altered.
    """
    directory = Path(path)
    manifest.check(directory, "run")
    config = files.read_json(directory / "config.json")
    try:
        plan = plan_of(config)
        mean, std = config["pretrained_cfg"]["mean"], config["pretrained_cfg"]["std"]
        recorded, _ = dict(config["poolzoo"]["plugins"]), list(config["label_names"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckFailed(
            f"{directory / 'config.json'} lacks {error}", "it was made by another version of poolzoo"
        ) from error
    try:
        assembly = assemble(plan)
    except UsageError as error:
        foreign = [f"{part} came from {was['dist']}" for part, was in recorded.items() if was["tier"] != "built-in"]
        if not foreign:
            raise
        hint = f"the run's {'; '.join(foreign)}: install it, or name its file with --plugin"
        raise UsageError(error.message, hint) from error
    _warn_of_other_plugins(assembly, recorded)
    network, file, hint = assembly.network, directory / "model.safetensors", "was a plugin or timm changed?"
    try:
        state = load_tensors(file.read_bytes())
    except SafetensorError as error:
        raise CheckFailed(f"{file} holds no weights: {error}", hint) from error
    fill_exactly(network, state, str(file), hint, dropped=network.dropped)
    preprocess = Preprocess(tuple(mean), tuple(std), plan.data_size, assembly.image_size)
    return Run(directory, network.eval(), preprocess.eval(), config)


def _warn_of_other_plugins(assembly: Assembly, recorded: dict[str, Any]) -> None:
    for part, resolved in (
        ("backbone", assembly.backbone),
        ("pool", assembly.pool),
        ("local_pool", assembly.local_pool),
    ):
        was = recorded.get(part)
        if resolved is None or was is None or was["tier"] == "built-in":
            continue
        source = resolved.entry.source
        if (was["version"], was["sha256"]) != (source.version, source.sha256()):
            output.warn(f"the {part} {resolved.spec.text} comes from another {source.dist} than the run was made with")


def result_card(config: dict[str, Any], settings: dict[str, Any], report: RunReport) -> str:
    """`README.md`: a model card with front matter, from the figures that were measured."""
    ours = config["poolzoo"]
    rows = [
        (row.name, row.n, format_score(row.precision), format_score(row.recall), format_score(row.f1))
        for row in report.test.per_class
    ]
    arguments = [(key, value) for key, value in settings.items() if value is not None]
    return f"""---
library_name: poolzoo
tags: [image-classification, pooling, {markdown.scalar(files.slug(ours["pool"]))}]
license: {markdown.scalar(config["pretrained_cfg"]["license"] or "unknown")}
metrics: [accuracy, precision, recall, f1]
---

# {markdown.text(f"{ours['backbone']} with {ours['pool']} pooling on {ours['data']}")}

Images of {sizes.show(ours["data_size"])} pixels (height × width) enter the network at
{sizes.show(ours["image_size"])}; its {sizes.show(ours["map"])} map is pooled to
{config["num_features"]} numbers.

{_origin(ours)}

{_figures(report)}

![learning curves](curves.png)

{markdown.table(("class", "n", "precision", "recall", "F1"), rows)}

{markdown.table(("argument", "value"), arguments)}

Do it again with `poolzoo finetune --config run.toml`; ship it with `poolzoo export` and this directory.
"""


def _origin(ours: dict[str, Any]) -> str:
    """Where the weights came from, and what became of the published network's last layers, in sentences."""
    weights, head = ours["weights"], ours["published_head"]
    said = [f"Weights at the start: {markdown.text(weights['text'])}."]
    if head["changes"]:
        said.append(f"Published head: {markdown.text(head['text'])}.")
    return "\n".join(said)


def _figures(report: RunReport) -> str:
    """The headline of the card in sentences."""
    test, memory = report.test, report.peak_memory
    low, high = test.interval
    said = [
        f"Accuracy {test.accuracy:.4f} (95 % interval {low:.4f} to {high:.4f}), macro F1 {test.f1:.4f} on "
        f"{test.n} test images."
    ]
    if note := untested_note(untested_classes(test.per_class)):
        said.append(markdown.text(note))
    if test.top5 is not None:
        said.append(f"Top-5 accuracy {test.top5:.4f}.")
    if test.ece is not None:
        said.append(f"Expected calibration error {test.ece:.4f}.")
    if report.test_flip_tta is not None:
        said.append(
            f"Averaged over each image and its mirror image, which the exported model does not do: "
            f"{report.test_flip_tta:.4f}."
        )
    if report.skipped:
        said.append(f"{len(report.skipped)} images could not be read and were left out; metrics.json names them.")
    peak = memory.device_bytes or memory.host_bytes
    kept = f", peak memory {peak / 1e9:.1f} GB" if peak else ""
    said.append(f"Training took {report.seconds:.0f} s at {report.images_per_s:.0f} images/s{kept}.")
    return "\n".join(said)


def as_dict(settings: Any) -> dict[str, Any]:
    return dataclasses.asdict(settings)


def load(path: str | os.PathLike[str]) -> nn.Module:
    """The trained network of a run, in eval mode, with its `config` (a dict) and its `preprocess`.

    `network(network.preprocess(images))` turns `uint8[N, h, w, 3]` into logits.
    """
    from poolzoo.artifacts.run import load_run

    run = load_run(path)
    network: Any = run.network
    network.config, network.preprocess = run.config, run.preprocess
    return network
