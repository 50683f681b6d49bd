"""A short pilot: real training of a few variants from two seeds, which tells how much accuracies vary.

A pilot is a comparison of its own. Its seeds are none of the planned comparison's, so that the choice of a number of
seeds does not depend on the trials that are tested later. Only its variance components are kept (`earlier`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from poolzoo.common import output
from poolzoo.common.errors import CheckFailed, UsageError
from poolzoo.common.temporary import temporary_folder
from poolzoo.compare import comparison
from poolzoo.compare.config import ComparisonConfig
from poolzoo.compare.evidence import ResolutionPreview
from poolzoo.compare.grid import NONE
from poolzoo.compare.preview import Preview, preview, resolutions

SEEDS: Final = 2
OTHERS: Final = 2  # variants beside the baseline
SEED_OFFSET: Final = 1_000_000
MAX_SEED: Final = 2**31 - 1
ADVICE: Final = "--pilot tells which"
ENOUGH: Final = 1.1  # more seeds than show this times the least difference are not worth their time


def pilot_config(config: ComparisonConfig) -> ComparisonConfig:
    """The pilot of a comparison: its baseline and up to two more variants, on the baseline's backbone.

    Raises:
        UsageError: There is nothing to compare.
    """
    baseline = config.baseline_variant
    others = [one for one in config.variants if one.backbone == baseline.backbone and one != baseline]
    same_local = [one for one in others if one.local_pool == baseline.local_pool]
    same_pool = [one for one in others if one.pool == baseline.pool]
    if not others:
        raise UsageError("a pilot needs a variant beside the baseline", "name two poolings or more with --pool")
    pools, locals_ = [baseline.pool], [baseline.local_pool or NONE]
    if same_local:
        pools += [one.pool for one in same_local[:OTHERS]]
    else:
        locals_ += [one.local_pool or NONE for one in same_pool[:OTHERS]]
    seed = (config.settings.seed + SEED_OFFSET) % (MAX_SEED - SEEDS)
    return replace(
        config,
        pools=",".join(pools),
        local_pools=None if locals_ == [NONE] else ",".join(locals_),
        backbones=baseline.backbone,
        baseline=baseline.name,
        seeds=SEEDS,
        robustness_samples=0,
        export_top=0,
        race=False,
        time_budget=None,
        settings=replace(config.settings, seed=seed, split_seed=config.split_seed),
    )


def run_pilot(config: ComparisonConfig) -> None:
    """Says what a pilot costs, runs it, and keeps its variance components.

    Raises:
        UsageError: There is nothing to compare.
        CheckFailed: Every trial of it failed.
    """
    small = pilot_config(config)
    with output.quiet():
        cost = preview(small)
    names = ", ".join(variant.name for variant in small.variants)
    output.say(f"the pilot trains {names} from {SEEDS} seeds, which takes about {duration(cost.seconds)} here")
    with temporary_folder() as folder:
        try:
            comparison.run(small, folder / "pilot", "", path="")
        except KeyboardInterrupt as stop:
            stop.args = ("nothing was kept of the pilot",)
            raise


def choose_seeds(config: ComparisonConfig, wanted: float, most_seeds: int) -> ComparisonConfig:
    """The comparison with as many seeds as a difference needs, after a pilot where no earlier comparison is like it.

    Where no number of seeds up to `most_seeds` shows the difference, the number is that whose detectable difference is
    within a tenth of the least; or `most_seeds` where more than these would show it.

    Args:
        config: The comparison; its own number of seeds does not count.
        wanted: The difference, a fraction, 0–1.
        most_seeds: The largest number of seeds.

    Raises:
        UsageError: There is nothing to compare.
    """
    found = resolutions(config, wanted, most_seeds)
    if not found:
        raise UsageError("--resolution needs a variant beside the baseline", "name two poolings or more with --pool")
    if any(one.evidence.likely is None for one in found):
        output.say("no earlier comparison tells how much accuracies vary")
        run_pilot(config)
        found = resolutions(config, wanted, most_seeds)
    if any(one.evidence.likely is None for one in found):
        raise CheckFailed("the pilot tells no variance", "give --seeds, or another data set with more test images")
    seeds = max(_sensible(one, wanted, most_seeds) for one in found)
    for one in found:
        for line in sentences(one, None):
            output.say(line)
    output.say(f"--resolution {100 * wanted:g}: {seeds} seeds")
    return replace(config, seeds=seeds)


def _sensible(one: ResolutionPreview, wanted: float, most_seeds: int) -> int:
    assert one.wanted is not None
    assert one.evidence.likely is not None
    if one.wanted.seeds is not None:
        return one.wanted.seeds
    if one.wanted.bound <= wanted:
        return most_seeds
    least = one.design.detectable(one.evidence.likely, most_seeds)
    return one.design.seeds(one.evidence.likely, ENOUGH * least, most_seeds) or most_seeds


def sentences(one: ResolutionPreview, cost: Preview | None) -> Sequence[str]:
    """What a comparison can show, and what a wanted difference needs; with its cost where it is known."""
    lines = one.lines()
    if (wanted := one.wanted) is None:
        return lines
    asked = f"--resolution {100 * wanted.difference:g}"

    def needs(seeds: int) -> str:
        time = f", about {duration(cost.seconds_for(seeds))} here" if cost is not None else ""
        return f"{seeds} seeds, {seeds * one.variants} trials{time}"

    if one.evidence.likely is None:
        if wanted.fewest is None:
            return [*lines, f"{asked}: even in the best case it needs {_unreachable(one)}"]
        worst = "none is enough" if wanted.most is None else needs(wanted.most)
        return [
            *lines,
            f"{asked} needs, in the best case, {needs(wanted.fewest)}; in the worst case, {worst}. {ADVICE}",
        ]
    if wanted.seeds is None:
        return [*lines, f"{asked} needs {_unreachable(one)}"]
    spread = f"{wanted.fewest} or more" if wanted.most is None else f"{wanted.fewest} to {wanted.most}"
    return [
        *lines,
        f"{asked} needs {needs(wanted.seeds)}{f' (range: {spread} seeds)' if wanted.fewest != wanted.most else ''}",
    ]


def _unreachable(one: ResolutionPreview) -> str:
    """What a difference needs that no sensible number of seeds shows."""
    assert one.wanted is not None
    images = one.wanted.images
    with_images = "" if images is None else f": about {images:,} with {max(2, one.seeds)} seeds"
    if one.wanted.bound > one.wanted.difference:
        bound = f"{100 * one.wanted.bound:.2f}"
        return f"more test images{with_images}. {one.images:,} bound it at {bound} points, whatever the number of seeds"
    return f"more seeds than --seeds-max, or more test images{with_images}"


def duration(seconds: float) -> str:
    """A time for people: seconds, minutes or hours."""
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} hours"
    return f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} s"
