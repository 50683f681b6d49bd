"""The JSON files of runs and bundles, read against their schemas. Anybody may have written them. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from poolzoo.artifacts.schema import Config, Manifest, Parity
from poolzoo.common import conform, files
from poolzoo.common.errors import CheckFailed
from poolzoo.data.resize import recorded
from poolzoo.data.sizes import MAX_SIDE

CONFIG: Final = "config.json"
PARITY: Final = "parity.json"
OTHER_VERSION: Final = "it was made by another version of poolzoo"


def read_config(run: Path) -> Config:
    """`config.json` of a run, from which its network is built again.

    Raises:
        CheckFailed: It is missing, lacks a key, or holds a value of another type or out of its range.
    """
    file = run / CONFIG
    config = conform.require(files.read_json(file), Config, file, OTHER_VERSION)
    if found := next(_unsound(config), ""):
        raise CheckFailed(f"{file} is damaged: {found}", OTHER_VERSION)
    return config


def read_bundle_config(bundle: Path) -> Config:
    """`config.json` of a bundle: what is there has its type; bundles of earlier versions lack keys.

    Raises:
        CheckFailed: It is missing, or holds a value of another type or out of its range.
    """
    file = bundle / CONFIG
    config = conform.require(files.read_json(file), Config, file, "export the run again", partial=True)
    if "pretrained_cfg" in config and (found := next(_unsound(config), "")):
        raise CheckFailed(f"{file} is damaged: {found}", "export the run again")
    return config


def read_parity(bundle: Path) -> Parity:
    """`parity.json` of a bundle; those of earlier versions lack keys.

    Raises:
        CheckFailed: It is missing, or holds a value of another type.
    """
    file = bundle / PARITY
    return conform.require(files.read_json(file), Parity, file, "export the run again", partial=True)


def read_manifest(file: Path) -> Manifest:
    """A `manifest.json`.

    Raises:
        CheckFailed: It is missing or damaged.
    """
    return conform.require(files.read_json(file), Manifest, file)


def _unsound(config: Config) -> Iterator[str]:
    """What is out of its range in a `config.json`, in words. A network is built and images are resized by it."""
    names, own, given = config.get("label_names", []), config.get("poolzoo", {}), config["pretrained_cfg"]
    if "num_classes" in config and not 1 <= config["num_classes"] == len(names):
        yield f"num_classes is {config['num_classes']}, and label_names has {len(names)}"
    channels, *size = given.get("input_size") or [3, 1, 1]
    sides = {"poolzoo.data_size": own.get("data_size"), "poolzoo.image_size": own.get("image_size")}
    for place, found in {**sides, "pretrained_cfg.input_size": size}.items():
        if found is not None and (len(found) != 2 or not all(1 <= side <= MAX_SIDE for side in found)):
            yield f"{place} is {found}, no height and width of up to {MAX_SIDE:,} pixels"
    if channels != 3:
        yield f"pretrained_cfg.input_size has {channels} channels, not 3"
    mean, std = given.get("mean", [0.0] * 3), given.get("std", [1.0] * 3)
    if len(mean) != 3 or len(std) != 3:
        yield "pretrained_cfg has no mean and std of three channels"
    if min(std, default=0) <= 0:
        yield "pretrained_cfg.std has a number that is not above 0"
    try:
        recorded(given)
    except ValueError as error:
        yield f"pretrained_cfg has no {error}"
