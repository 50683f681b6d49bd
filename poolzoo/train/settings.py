"""Everything that decides a run, as plain values: what the command line fills in and `run.toml` keeps."""

from __future__ import annotations

import json
import tomllib
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from poolzoo.errors import CheckFailed, UsageError
from poolzoo.options import suggest

LARGEST_BATCH = 256
LEAST_STEPS = 40  # an epoch; fewer and a schedule per step has nothing to schedule
IMAGES_SEEN = 500_000  # in all, from which the default number of epochs follows
MOST_THREADS = 1024
FEWEST_EPOCHS, MOST_EPOCHS = 10, 60


@dataclass(frozen=True)
class Settings:
    """The arguments of `poolzoo finetune`; None stands for a default that depends on the data or the optimiser."""

    data: str = "cifar10"
    backbone: str = "nano/resnet"
    pool: str = "avg"
    local_pool: str | None = None
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    weight_decay: float | None = None
    optimizer: str = "adamw"
    schedule: str = "linear"
    warmup: float = 0.15
    label_smoothing: float = 0.1
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    image_size: int | None = None
    stem: str = "stock"
    freeze: str = "none"
    head: str = "linear"
    pretrained: bool = False
    weights: str | None = None
    limit: int | None = None
    plugins: tuple[str, ...] = ()  # plugin files, so that a resumed run finds what it was started with

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "threads", "image_size", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name.replace('_', '-')} {value} must be at least 1", "give a positive number")
        if self.threads is not None and self.threads > MOST_THREADS:
            raise UsageError(
                f"--threads {self.threads} is more than {MOST_THREADS}", "leave it out for one a processor"
            )
        if self.lr is not None and not 0 < self.lr < 1e4:
            raise UsageError(f"--lr {self.lr} must be above 0", "such as --lr 0.1")
        if self.weight_decay is not None and not 0 <= self.weight_decay < 1e4:
            raise UsageError(f"--weight-decay {self.weight_decay} must not be negative", "such as --weight-decay 0.05")
        if not 0 <= self.seed < 2**31:
            raise UsageError(f"--seed {self.seed} must be between 0 and 2147483647", "such as --seed 1")
        if not 0 <= self.label_smoothing < 1 or not 0 <= self.warmup < 1:
            raise UsageError("--label-smoothing and --warmup lie between 0 and 1", "such as --label-smoothing 0.1")
        if self.pretrained and self.weights:
            raise UsageError("--pretrained and --weights exclude each other", "give one of them")

    def to_toml(self) -> str:
        """The settings as a file that `--config` reads again."""
        lines = ["# The arguments of this run: poolzoo finetune --config run.toml does it again."]
        for name, value in asdict(self).items():
            if value is not None and value != ():
                lines.append(f"{name} = {_toml(value)}")
        return "\n".join(lines) + "\n"


def absolute(settings: Settings) -> Settings:
    """The same settings with full paths, so that they mean the same from any directory."""
    kind, _, path = settings.data.partition(":")
    data = f"folder:{Path(path).expanduser().absolute()}" if kind == "folder" else settings.data
    weights = str(Path(settings.weights).expanduser().absolute()) if settings.weights else None
    return replace(settings, data=data, weights=weights)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return repr(value)


def read_toml(path: Path) -> dict[str, Any]:
    """The settings in a TOML file, checked for names and types.

    Raises:
        UsageError: There is no such file, or it holds something else.
        CheckFailed: It is no TOML.
    """
    if not path.is_file():
        raise UsageError(f"config file {str(path)!r} does not exist", "give a TOML file such as a run's run.toml")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CheckFailed(f"{path} is no TOML: {error}", "mend the file") from error
    kinds = {field.name: str(field.type) for field in fields(Settings)}
    if isinstance(files := values.get("plugins"), list) and all(isinstance(file, str) for file in files):
        values["plugins"] = tuple(files)
    for key, value in values.items():
        if key not in kinds:
            raise UsageError(
                f"{path.name} has an unknown setting {key!r}", suggest(key, kinds) or f"settings: {', '.join(kinds)}"
            )
        wanted = [kind.partition("[")[0] for kind in kinds[key].split(" | ")]
        given = type(value).__name__
        if given not in wanted and not (given == "int" and "float" in wanted):
            raise UsageError(f"{key} = {value!r} in {path.name} is not {wanted[0]}", "mend the file")
        if given == "int" and "float" in wanted:
            values[key] = float(value)
    return values


def default_epochs(images: int) -> int:
    """As many epochs as show half a million images, from 10 to 60."""
    return min(MOST_EPOCHS, max(FEWEST_EPOCHS, round(IMAGES_SEEN / images)))


def default_batch_size(images: int) -> int:
    """The largest power of two, at most 512, that leaves an epoch 40 steps."""
    size = LARGEST_BATCH
    while size > 2 and images // size < LEAST_STEPS:
        size //= 2
    return size
