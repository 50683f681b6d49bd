"""A comparison before it runs: its trials and their size, what it costs, and what it can show. Nothing is trained."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Final

from poolzoo.common import output
from poolzoo.common.errors import PoolzooError
from poolzoo.compare import evidence, trial
from poolzoo.compare.config import ComparisonConfig
from poolzoo.compare.cost import FINISH, costs
from poolzoo.compare.earlier import Conditions
from poolzoo.compare.evidence import ResolutionPreview
from poolzoo.compare.grid import Trial
from poolzoo.compare.resolution import Design
from poolzoo.compare.training import group_by_backbone
from poolzoo.model.cost import parameters_and_macs
from poolzoo.train.prepare import PreparedRun, prepare

MOST_SEEDS: Final = 20  # that a wanted resolution may ask for, unless --seeds-max says otherwise


@dataclass(frozen=True)
class VariantPreview:
    """One variant: its size and the seconds of one trial; or why it cannot be trained."""

    backbone: str
    pool: str
    local_pool: str | None
    parameters: int | None = None
    macs: int | None = None
    seconds: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class Preview:
    """A comparison before it runs.

    Attributes:
        trials: Number of trials.
        seeds: Of every variant.
        rows: The variants.
        once: Seconds on this machine for what all seeds share.
        each_seed: Seconds that every seed adds.
        resolutions: What the variants of each backbone can show.
    """

    trials: int
    seeds: int
    rows: Sequence[VariantPreview]
    once: float
    each_seed: float
    resolutions: Sequence[ResolutionPreview] = ()

    def seconds_for(self, seeds: int) -> int:
        """The estimate for training and testing all variants from so many seeds."""
        return round(self.once + seeds * self.each_seed)

    @property
    def seconds(self) -> int:
        """The same for the seeds of the plan."""
        return self.seconds_for(self.seeds)

    def to_json(self) -> dict[str, object]:
        rows = [{key: value for key, value in asdict(row).items() if key != "error" or value} for row in self.rows]
        return {
            "trials": self.trials,
            "seeds": self.seeds,
            "rows": rows,
            "seconds": self.seconds,
            "seconds_once": round(self.once, 1),
            "seconds_each_seed": round(self.each_seed, 1),
            "resolutions": [
                {**one.to_json(), "seconds": self._seconds_wanted(one)} if one.wanted else one.to_json()
                for one in self.resolutions
            ],
        }

    def _seconds_wanted(self, one: ResolutionPreview) -> int | None:
        return self.seconds_for(one.wanted.seeds) if one.wanted and one.wanted.seeds else None


def preview(config: ComparisonConfig, wanted: float | None = None, most_seeds: int = MOST_SEEDS) -> Preview:
    """Assembles every variant and times a few steps of it; nothing is trained or written.

    Args:
        config: The comparison.
        wanted: A difference that it is to show, a fraction, 0–1.
        most_seeds: The largest number of seeds that is sensible for that.

    Raises:
        UsageError: There is no such baseline.
        PoolzooError: No variant can be assembled: that of the first.
    """
    _ = config.baseline_variant  # raises where there is none
    rows: list[VariantPreview] = []
    errors: list[PoolzooError] = []
    resolutions = []
    once = each_seed = 0.0
    firsts = [one for one in config.trials if one.seed == config.settings.seed]
    groups = group_by_backbone(firsts) if config.settings.freeze == "backbone" else [[one] for one in firsts]
    first_of: dict[str, PreparedRun] = {}
    for group in groups:
        shared = 0.0
        for one in group:
            try:
                started = time.perf_counter()
                # Messages about the data and the weights are printed once a backbone.
                with output.quiet() if one.variant.backbone in first_of else nullcontext():
                    prepared = prepare(trial.settings_of(config.settings, one))
                preparing = time.perf_counter() - started
            except PoolzooError as error:
                errors.append(error)
                rows.append(_row(one, error=error.message))
                continue
            is_first = not first_of  # it decoded the data, which later ones find
            first_of.setdefault(one.variant.backbone, prepared)
            parameters, macs = parameters_and_macs(prepared.assembly)
            backbone, own = costs(prepared, len(group))
            own_trial = own.trial + FINISH + (0.0 if is_first else preparing / len(group))
            shared = max(shared, backbone.once)
            once += own.once
            each_seed += own_trial
            rows.append(_row(one, parameters=parameters, macs=macs, seconds=round(own_trial, 1)))
        once += shared
    if not first_of:  # the data cannot be read, or there is no such backbone
        raise errors[0]
    for name, prepared in first_of.items():
        resolutions.append(_resolution(config, name, prepared, wanted, most_seeds))
    return Preview(
        trials=len(config.trials),
        seeds=config.seeds,
        rows=rows,
        once=once,
        each_seed=each_seed,
        resolutions=[one for one in resolutions if one is not None],
    )


def resolutions(config: ComparisonConfig, wanted: float | None, most_seeds: int) -> list[ResolutionPreview]:
    """What each backbone's variants can show, without an estimate of the time; arguments as for `preview`.

    Raises:
        PoolzooError: The first variant of a backbone cannot be assembled.
    """
    found = []
    for backbone, variant in {one.backbone: one for one in reversed(config.variants)}.items():
        with output.quiet():
            prepared = prepare(trial.settings_of(config.settings, Trial(variant, config.settings.seed)))
        found.append(_resolution(config, backbone, prepared, wanted, most_seeds))
    return [one for one in found if one is not None]


def _resolution(
    config: ComparisonConfig, backbone: str, prepared: PreparedRun, wanted: float | None, most_seeds: int
) -> ResolutionPreview | None:
    variants = [one for one in config.variants if one.backbone == backbone]
    conditions = Conditions.of(config.settings, backbone, variants, prepared.data.identity)
    design = Design.of(config, len(prepared.data.test.labels), len(variants))
    return evidence.resolve(conditions, design, config.seeds, wanted, most_seeds)


def _row(
    one: Trial,
    *,
    parameters: int | None = None,
    macs: int | None = None,
    seconds: float | None = None,
    error: str | None = None,
) -> VariantPreview:
    variant = one.variant
    return VariantPreview(variant.backbone, variant.pool, variant.local_pool, parameters, macs, seconds, error)
