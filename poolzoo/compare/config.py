"""What is compared, as plain values: `plan.json`, from which an interrupted comparison is resumed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from functools import cached_property
from typing import Final

from poolzoo.artifacts import manifest
from poolzoo.artifacts.reading import OTHER_VERSION
from poolzoo.common import conform
from poolzoo.common.errors import CheckFailed, UsageError
from poolzoo.compare import grid
from poolzoo.compare.grid import Trial, Variant
from poolzoo.metrics.tasks import TASKS
from poolzoo.train.settings import Settings
from poolzoo.train.settings_file import LEGACY_DEFAULTS, checked, renamed

FILE: Final = "plan.json"
ASIDE: Final = ("schema", "provenance", "facts")  # keys beside the config; `facts` in earlier versions
MAX_SEEDS: Final = 10_000
RENAMED: Final = {"robust": "robustness_samples", "finalists": "export_top"}  # keys of earlier versions


def require_one_label(settings: Settings) -> None:
    """Makes sure that a run or trial can be compared: the tests are about images that are right or wrong.

    Raises:
        UsageError: An image may have several labels. mAP is no mean over images, so that the tests do not apply.
    """
    if TASKS[settings.task].is_multilabel:
        raise UsageError(
            "compare, choose and report do not support --task multilabel: their tests are about images that are right "
            "or wrong",
            "train each variant with poolzoo finetune, and compare mAP and its interval in metrics.json",
        )


@dataclass(frozen=True)
class ComparisonConfig:
    """The arguments of `poolzoo compare`.

    Attributes:
        pools, local_pools, backbones: As they were typed.
        seeds: Number of trials of each variant, from the settings' own seed upwards.
        baseline: As it was typed; None for the first variant.
        robustness_samples: Test images to corrupt and to shift; 0 leaves robustness out.
        export_top: How many of the best variants are exported beside the baseline; 0 leaves exports out.
        alpha: The significance level of the tests.
        settings: The settings that all trials share. A time budget in them, which earlier versions had, is that of each
            trial.
        race: Whether variants stop that are worse than the best beyond chance.
        time_budget: Seconds of the whole comparison; None for as long as it takes.
        unofficial: Why the results do not count for the protocol that the settings name; None where they do.
        options_known: Whether the options of all poolings were checked before. No file keeps it.

    Raises:
        UsageError: The task is that of several labels, or a race has a single seed.
    """

    pools: str
    local_pools: str | None
    backbones: str
    seeds: int
    baseline: str | None
    robustness_samples: int
    export_top: int
    alpha: float
    settings: Settings
    race: bool = False
    time_budget: float | None = None
    unofficial: str | None = None
    options_known: bool = field(default=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require_one_label(self.settings)
        if self.race and self.seeds < 2:
            text = "--race needs two seeds or more: one seed tells nothing of seed variance"
            raise UsageError(text, "add --seeds 3, or leave out --race")

    @property
    def seed_numbers(self) -> range:
        """The seeds of every variant."""
        return range(self.settings.seed, self.settings.seed + self.seeds)

    @cached_property
    def variants(self) -> list[Variant]:
        return grid.variants(self.pools, self.local_pools, self.backbones, options_known=self.options_known)

    @property
    def baseline_variant(self) -> Variant:
        return grid.find_baseline(self.baseline, self.variants)

    @property
    def backbone_names(self) -> list[str]:
        """The backbones, each of which has its own family of tests."""
        return list(dict.fromkeys(one.backbone for one in self.variants))

    @cached_property
    def trials(self) -> list[Trial]:
        """Every variant from every seed, seeds outermost, so that an early stop leaves whole comparisons."""
        return [Trial(variant, seed) for seed in self.seed_numbers for variant in self.variants]

    @property
    def split_seed(self) -> int:
        """The seed that splits and limits the data, the same for all trials."""
        return self.settings.seed if self.settings.split_seed is None else self.settings.split_seed

    def to_json(self) -> dict[str, object]:
        kept = {name: value for name, value in asdict(self).items() if name != "options_known"}
        return {**kept, "schema": manifest.SCHEMA}

    @classmethod
    def from_json(cls, found: Mapping[str, object]) -> ComparisonConfig:
        """Reads the content of a `plan.json`, also of earlier versions.

        Raises:
            CheckFailed: A key is missing or unknown.
        """
        values = renamed({key: value for key, value in found.items() if key not in ASIDE}, RENAMED)
        known = {one.name: one for one in fields(cls) if one.name != "options_known"}
        if (unknown := next((key for key in values if key not in known), None)) is not None:
            raise CheckFailed(f"{FILE} has {unknown!r:.60}, which is unknown", OTHER_VERSION)
        if absent := next((key for key, one in known.items() if key not in values and one.default is MISSING), ""):
            raise CheckFailed(f"{FILE} lacks {absent!r}", OTHER_VERSION)
        given = values["settings"]
        if not isinstance(given, Mapping):
            raise CheckFailed(f"{FILE} is damaged: settings is {conform.shown(given)}", "make the comparison again")
        try:
            settings = Settings(**{**LEGACY_DEFAULTS, **checked(renamed(given), FILE)})
            config = conform.require(cls(**{**values, "settings": settings}), cls, FILE, "make the comparison again")
        except UsageError as error:
            raise CheckFailed(f"{FILE} is damaged: {error.message}", error.hint) from error
        if problem := config._out_of_range():
            raise CheckFailed(f"{FILE} is damaged: {problem}", "make the comparison again")
        return config

    def _out_of_range(self) -> str:
        """What no command line gives, in words; "" for nothing."""
        if not 1 <= self.seeds <= MAX_SEEDS:
            return f"seeds is {self.seeds}, not 1 to {MAX_SEEDS:,}"
        if not 0 < self.alpha < 1:
            return f"alpha is {self.alpha:g}, not between 0 and 1"
        if min(self.robustness_samples, self.export_top) < 0:
            return "robustness_samples or export_top is below 0"
        return "time_budget is no time" if self.time_budget is not None and self.time_budget <= 0 else ""
