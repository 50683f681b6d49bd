"""The settings of a run as plain values: the options of `poolzoo finetune`, their ranges and choices."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from poolzoo.common import json_writer, numerals
from poolzoo.common.errors import UsageError
from poolzoo.data import sizes, unreadable
from poolzoo.data.augment.options import MAGNITUDES, MAX_OPERATORS, parse_crop_scale, parse_policy
from poolzoo.data.held_out import HeldOut
from poolzoo.data.resize import READER, TRANSFORMS, Fit
from poolzoo.data.sizes import Size
from poolzoo.metrics.tasks import CLASSIFICATION, TASKS
from poolzoo.plugin.grammar import suggest
from poolzoo.train.step_plan import StepPlan, parse_duration

MAX_THREADS: Final = 1024
BALANCED: Final = "balanced"
LOSSES: Final = ("cross-entropy", "focal")
FOCAL_GAMMA: Final = 2.0  # the best of Lin et al., 2017
MAX_GAMMA: Final = 10
UNLIMITED: Final = 1e9  # an upper limit that messages show only where it is exceeded
RANGES: Final[Mapping[str, tuple[float, float]]] = {
    "epochs": (1, UNLIMITED),
    "batch_size": (1, UNLIMITED),
    "threads": (1, MAX_THREADS),
    "limit": (1, UNLIMITED),
    "test_fraction": (0.001, 0.9),
    "lr": (1e-12, 1e4),
    "weight_decay": (0, 1e4),
    "seed": (0, 2**31 - 1),
    "split_seed": (0, 2**31 - 1),
    "label_smoothing": (0, 0.99),
    "warmup": (0, 0.99),
    "head_lr_mult": (1e-6, 1e6),
    "layer_decay": (0.01, 1),
    "unfreeze_every": (1, UNLIMITED),
    "views": (0, 100),
    "shift": (0, UNLIMITED),
    "cutout": (0, UNLIMITED),
    "mixup": (0, 100),
    "cutmix": (0, 100),
    "color_jitter": (0, 1),
    "erasing": (0, 1),
    "ema": (0, 0.999999),
    "clip_grad": (1e-9, UNLIMITED),
    "grad_accum": (1, UNLIMITED),
    "patience": (1, UNLIMITED),
    "distill_temperature": (0.01, 1000),
    "distill_weight": (0, 1),
    "crop_pct": (0.1, 1),
    "data_workers": (1, MAX_THREADS),
}
CHOICES: Final[Mapping[str, tuple[str | None, ...]]] = {
    "task": tuple(TASKS),
    "lr_schedule": ("linear", "cosine"),
    "stem": ("stock", "small"),
    "flip": ("auto", "off", "random", "alternating"),
    "augment": ("none", "light", "standard", "strong", None),
    "precision": ("auto", "float32", "bfloat16"),
    "compile": ("auto", "on", "off"),
    "validation": ("auto", "val", None),
    "sampler": ("all", "balanced"),
    "data_cache": ("auto", "decoded", "reduced", "none", None),
}
# What may change when a run resumes, since no result depends on it.
FREE: Final = frozenset({"data_workers"})


def flag(name: str) -> str:
    """The command-line option of a setting, such as `--batch-size`."""
    return f"--{name.replace('_', '-')}"


@dataclass(frozen=True)
class Settings:
    """The settings of a run. None stands for a default that depends on the data, the device or the optimizer.

    Raises:
        UsageError: A value is out of its range, or settings contradict each other.
    """

    data: str = "cifar10"
    task: str = CLASSIFICATION
    backbone: str = "nano/resnet"
    pool: str = "avg"
    local_pool: str | None = None
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    weight_decay: float | None = None
    optimizer: str = "adamw"
    lr_schedule: str = "linear"
    warmup: float = 0.15
    label_smoothing: float | None = None
    seed: int = 0
    split_seed: int | None = None  # of the validation split and of `limit`; None for `seed`
    test_fraction: float | None = None  # the share of the training images that are test images, where there are none
    device: str = "auto"
    threads: int | None = None
    image_size: int | str | None = None  # a side, or HEIGHTxWIDTH
    stem: str = "stock"
    freeze: str = "none"
    head: str = "linear"
    pretrained: bool = False
    weights: str | None = None
    limit: int | None = None
    head_lr_mult: float = 1.0
    layer_decay: float = 1.0
    unfreeze_every: int | None = None
    views: int = 0
    feature_cache: bool = True
    augment: str | None = None  # a level, which gives the four below and shift their values; see `poolzoo.train.levels`
    crop_scale: str | None = None  # least and largest share of an image's area in a random crop, LOW,HIGH, or "none"
    policy: str | None = None  # none, trivial or rand:N,M
    color_jitter: float | None = None
    erasing: float | None = None
    shift: int | None = None
    flip: str = "auto"
    cutout: int = 0
    mixup: float = 0.0
    cutmix: float = 0.0
    ema: float = 0.0
    clip_grad: float | None = None
    grad_accum: int = 1
    precision: str = "auto"
    compile: str = "auto"
    deterministic: bool = False
    # Where the norm goes that a published network has after its pooling, see `ModelConfig`; None in earlier versions.
    final_norm: str | None = "head"
    skip_broken: int | str | None = None  # how many unreadable images to leave out at most, or "all"
    crop_pct: float | None = None  # part of the shorter side that evaluation keeps of the center; None for all of it
    data_workers: int | None = None  # threads that read images
    data_cache: str | None = "auto"  # see `poolzoo.data.streaming.keeping`; None: decoded, as in earlier versions
    validation: str | None = "auto"  # "val": validate on val/; None: on a part of the training images
    reader: int | None = READER  # version of the rules that turn files into pixels; None for the first
    sampler: str = "all"
    class_weights: str | None = None  # "balanced", or a JSON file with the weight of each class
    loss: str = "cross-entropy"  # or focal, focal:GAMMA
    patience: int | None = None
    time_budget: str | None = None
    steps: str | None = None  # the `StepPlan` of a run whose time budget was fitted; its repetition needs no clock
    distill_from: str | None = None  # a run directory, or a backbone
    distill_temperature: float = 2.0
    distill_weight: float = 0.5
    calibration: bool = True  # of probabilities, on the validation images
    plugins: tuple[str, ...] = ()  # plugin files, which a resumed run loads again
    protocol: str | None = None  # that pinned the other settings, NAME@VERSION:SHA256; see `poolzoo.compare.board`

    def __post_init__(self) -> None:
        if self.image_size is not None:
            try:
                object.__setattr__(self, "image_size", sizes.plain(sizes.parse(self.image_size)))
            except ValueError:
                text = f"--image-size {self.image_size!r} is neither a side in pixels nor HEIGHTxWIDTH"
                raise UsageError(text, "such as --image-size 64 or 64x208") from None
        object.__setattr__(self, "skip_broken", unreadable.plain(self.skip_broken))
        if self.reader not in (None, *TRANSFORMS):
            raise UsageError(f"reader {self.reader} is unknown to this version of poolzoo", "leave it out")
        self._require_ranges()
        self._require_choices()
        self._require_consistency()

    def _require_ranges(self) -> None:
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                limits = f"at least {low:g}" if value < low else f"at most {int(high):,}"
                limits = f"between {low:g} and {high:g}" if high < UNLIMITED else limits
                raise UsageError(f"{flag(name)} {value:g} must be {limits}", "see poolzoo finetune --help")

    def _require_choices(self) -> None:
        for name, allowed in CHOICES.items():
            value = getattr(self, name)
            if value not in allowed:
                names = [choice for choice in allowed if choice is not None]
                text = f"{flag(name)} {value!r} is neither {', '.join(names[:-1])} nor {names[-1]}"
                raise UsageError(text, suggest(str(value), names) or "choose one of them")

    def _require_consistency(self) -> None:
        try:
            parse_crop_scale(self.crop_scale or "none")
        except ValueError:
            text = f"--crop-scale {self.crop_scale!r} is neither none nor LOW,HIGH with 0 < LOW ≤ HIGH ≤ 1"
            raise UsageError(text, "such as 0.08,1") from None
        try:
            parse_policy(self.policy or "none")
        except ValueError:
            text = f"--policy {self.policy!r} is neither none, trivial, rand nor rand:N,M"
            hint = f"N from 1 to {MAX_OPERATORS} and M from 0 to {MAGNITUDES - 1}, such as rand:2,9"
            raise UsageError(text, hint) from None
        if self.pretrained and self.weights:
            raise UsageError("--pretrained and --weights exclude each other", "give one of them")
        kind, _, count = self.freeze.partition(":")
        if self.freeze not in ("none", "backbone") and (kind != "stages" or not count.isdecimal() or int(count) < 1):
            raise UsageError(f"--freeze {self.freeze!r} is neither none, backbone nor stages:N", "such as stages:2")
        if self.unfreeze_every is not None and self.freeze_stages is None:
            raise UsageError("--unfreeze-every needs frozen stages", "such as --freeze stages:3")
        if self.views and not self.caches_features:
            raise UsageError("--views needs cached features", "add --freeze backbone, without --no-feature-cache")
        if self.caches_features and (self.mixup or self.cutmix):
            hint = "add --no-feature-cache, or leave --mixup and --cutmix out"
            raise UsageError("cached features cannot be mixed", hint)
        self._require_steering()

    def _require_steering(self) -> None:
        """Checks what decides the loss and the end of a run."""
        if self.time_budget is not None:
            if self.epochs is not None:
                raise UsageError("--epochs and --time-budget exclude each other", "give one of them")
            if self.budget_seconds is None:
                text = f"--time-budget {self.time_budget!r} is no duration above zero"
                raise UsageError(text, "such as 90s, 25m or 1h30m")
        if self.steps is not None:
            try:
                StepPlan.parse(self.steps)
            except ValueError:
                raise UsageError(f"steps {self.steps!r} is no plan of steps", "leave it out") from None
        if self.focal_gamma is None:
            text = f"--loss {self.loss!r} is neither cross-entropy, focal nor focal:GAMMA, GAMMA from 0 to {MAX_GAMMA}"
            raise UsageError(text, suggest(self.loss, LOSSES) or "such as focal:2")
        if self.sampler == "balanced" and TASKS[self.task].is_multilabel:
            hint = "--class-weights balanced weighs the labels instead"
            raise UsageError("--sampler balanced needs images with one label each", hint)
        if self.distill_from is None:
            for name in ("distill_temperature", "distill_weight"):
                if getattr(self, name) != FIELD_DEFAULTS[name]:
                    raise UsageError(f"{flag(name)} needs a teacher", "add --distill-from RUN or BACKBONE")

    @property
    def budget_seconds(self) -> float | None:
        """The time budget in seconds; None without one."""
        try:
            return None if self.time_budget is None else parse_duration(self.time_budget)
        except ValueError:
            return None

    @property
    def focal_gamma(self) -> float | None:
        """The exponent γ of the focal loss, 0 for cross entropy; None for an unknown loss."""
        name, separator, text = self.loss.partition(":")
        if name == "cross-entropy":
            return None if separator else 0.0
        try:
            gamma = numerals.real(text) if separator else FOCAL_GAMMA
        except ValueError:
            return None
        return gamma if name == "focal" and 0 <= gamma <= MAX_GAMMA else None

    @property
    def input_size(self) -> Size | None:
        """Height and width at which the network sees the images; None to choose them."""
        return None if self.image_size is None else sizes.parse(self.image_size)

    @property
    def test_part(self) -> HeldOut | None:
        """The test images that are held out: the same for every `seed`, so that runs can be compared."""
        return None if self.test_fraction is None else HeldOut(self.test_fraction, self.split_seed or 0)

    @property
    def fit(self) -> Fit:
        """How files become images of that size."""
        return Fit(crop_pct=self.crop_pct or 1.0, reader=self.reader or 1)

    @property
    def has_random_crops(self) -> bool:
        """Whether training sees random crops of the images; known of settings with a level."""
        return parse_crop_scale(self.crop_scale or "none") is not None

    @property
    def caches_features(self) -> bool:
        """Whether the frozen backbone runs once for each image instead of in every epoch."""
        return self.freeze == "backbone" and self.feature_cache

    @property
    def freeze_stages(self) -> int | None:
        """Number of stages that `--freeze stages:N` freezes at first; None for other values of `--freeze`."""
        kind, _, count = self.freeze.partition(":")
        return int(count) if kind == "stages" else None

    def to_toml(self) -> str:
        """The settings as a TOML file for `--config`; its first line counts them, so that none can get lost unseen."""
        given = {name: value for name, value in asdict(self).items() if value is not None and value != ()}
        first = f"# The {len(given)} settings of this run; poolzoo finetune --config run.toml repeats it."
        return "\n".join([first, *(f"{name} = {_toml_value(value)}" for name, value in given.items())]) + "\n"


FIELD_DEFAULTS: Final[Mapping[str, object]] = {field.name: field.default for field in fields(Settings)}


def with_one_end(given: Mapping[str, Any], typed: Set[str]) -> dict[str, Any]:
    """Settings from several sources, of which one decides when a run ends: epochs, a time budget, or fitted steps.

    What was typed wins. A config file with fitted steps repeats them, without the clock.

    Args:
        given: All settings that were given.
        typed: Names of those on the command line.
    """
    ends = ("epochs", "time_budget", "steps")
    winners = [name for name in ends if name in typed] or [name for name in reversed(ends) if given.get(name)][:1]
    return {name: None if name in ends and winners and name not in winners else value for name, value in given.items()}


def _toml_value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json_writer.dumps(value)
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml_value, value))}]"
    return repr(value)
