"""Reads the settings of a run from `run.toml` and other TOML files, also those that earlier versions wrote."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Final

from poolzoo.common import conform, files
from poolzoo.common.errors import CheckFailed, UsageError
from poolzoo.plugin.grammar import suggest
from poolzoo.train.settings import BALANCED, FIELD_DEFAULTS, Settings, flag

# Names that settings had in earlier versions, in `run.toml`, checkpoints and `plan.json`.
RENAMED: Final = {
    "accumulate": "grad_accum",
    "clip": "clip_grad",
    "head_lr": "head_lr_mult",
    "schedule": "lr_schedule",
}
# The values of settings that `run.toml` of earlier versions does not have.
LEGACY_DEFAULTS: Final[Mapping[str, Any]] = {
    "validation": None,
    "reader": None,
    "final_norm": None,
    "augment": "light",
    "crop_scale": "none",
    "policy": "none",
    "color_jitter": 0.0,
    "erasing": 0.0,
    "data_cache": None,
}
COUNTED: Final = re.compile(r"# The (\d{1,4}) settings of this run;")


def legacy_value(name: str) -> object:
    """What a run had for a setting that its version did not know; None for an unknown name."""
    return LEGACY_DEFAULTS.get(name, FIELD_DEFAULTS.get(name))


def renamed(values: Mapping[str, Any], names: Mapping[str, str] = RENAMED) -> dict[str, Any]:
    """Values that any version wrote, under today's names.

    Args:
        values: By the names of their version.
        names: Today's name of each former one.
    """
    return {names.get(key, key): value for key, value in values.items()}


def read_run_settings(path: Path) -> Settings:
    """The settings of a run, also of one that an earlier version started.

    Args:
        path: The run directory.

    Raises:
        UsageError: There is no `run.toml`, or it has unknown settings.
        CheckFailed: It is not TOML, or its end is missing.
    """
    file = path / "run.toml"
    values = read_toml(file)
    text = file.read_text(encoding="utf-8")
    counted = COUNTED.match(text)  # earlier versions count nothing
    if not values or (counted and (len(values) < int(counted[1]) or not text.endswith("\n"))):
        raise CheckFailed(f"{file} is damaged: it has lost settings", "restore it, or start the run again")
    return Settings(**{**LEGACY_DEFAULTS, **values})


def read_toml(path: Path) -> dict[str, Any]:
    """Reads settings from a TOML file and checks their names and types.

    Raises:
        UsageError: There is no such file, or a setting is unknown or has another type.
        CheckFailed: The file is not TOML.
    """
    if not path.is_file():
        raise UsageError(
            f"config file {str(path)!r} {files.absence(path)}", "give a TOML file such as a run's run.toml"
        )
    try:
        values = renamed(tomllib.loads(path.read_text(encoding="utf-8")))
    except (ValueError, RecursionError) as error:  # no TOML, no UTF-8, or a number of thousands of digits
        raise CheckFailed(f"{path} is not TOML: {error}", "correct the file") from error
    return checked(values, path.name)


def checked(found: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Settings that a file holds, after a check of their names and types; whole numbers become floats where needed.

    Args:
        found: By today's names.
        place: The file's name, for messages.

    Raises:
        UsageError: A setting is unknown or has another type.
    """
    values = dict(found)
    kinds = {field.name: str(field.type) for field in fields(Settings)}
    if isinstance(plugins := values.get("plugins"), list) and all(isinstance(file, str) for file in plugins):
        values["plugins"] = tuple(plugins)
    for key, value in values.items():
        if key not in kinds:
            raise UsageError(
                f"{place} has an unknown setting {key!r}", suggest(key, kinds) or f"settings: {', '.join(kinds)}"
            )
        wanted = kinds[key].partition(" | ")[0].partition("[")[0]
        if conform.field_problem(value, Settings, key):
            raise UsageError(f"{key} = {conform.shown(value)} in {place} is not {wanted}", "correct the file")
        if wanted == "float" and isinstance(value, int):
            values[key] = float(value)
    return values


def with_absolute_paths(settings: Settings) -> Settings:
    """The same settings with absolute paths, so that they do not depend on the current directory.

    Raises:
        UsageError: A path is not UTF-8, which `run.toml` and `config.json` need.
    """
    from poolzoo.data import source  # brings numpy and Pillow, which --help does without

    data = source.with_absolute_path(settings.data)
    weights = str(Path(settings.weights).expanduser().absolute()) if settings.weights else None
    class_weights, teacher = settings.class_weights, settings.distill_from
    if class_weights is not None and class_weights != BALANCED:
        class_weights = str(Path(class_weights).expanduser().absolute())
    if teacher is not None and (Path(teacher).expanduser() / "run.toml").is_file():
        teacher = str(Path(teacher).expanduser().absolute())
    paths = {"data": data, "weights": weights, "class_weights": class_weights, "distill_from": teacher}
    for name, text in ((name, path or "") for name, path in paths.items()):
        if not text.isascii() and text.encode("utf-8", "replace").decode() != text:
            raise UsageError(
                f"{flag(name)} {text!r} is not UTF-8, so that run.toml cannot hold it",
                "rename it, or give a link to it",
            )
    return replace(settings, data=data, weights=weights, class_weights=class_weights, distill_from=teacher)
