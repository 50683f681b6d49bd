"""What a comparison left out because its time was over, in sentences. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from poolzoo.compare.config import ComparisonConfig
from poolzoo.compare.grid import Trial
from poolzoo.compare.records import TrialRecords
from poolzoo.train.step_plan import show_duration

NAMED: Final = 6  # names that a sentence lists


def left_out(config: ComparisonConfig, records: TrialRecords, exports: Sequence[Trial]) -> list[str]:
    """What the time budget had no room for; nothing without a budget.

    Args:
        config: What is compared.
        records: Of the trials. Those that failed, and those that a race stopped, were not left out.
        exports: The trials that should be exported.
    """
    if config.time_budget is None:
        return []
    parts = [f"training of {part}" for part in _untrained(config, records)]
    done = [one for one in config.trials if records.done(one) and not records.is_stopped(one)]
    plain = sum(records[one].robustness is None for one in done)
    if config.robustness_samples and plain:
        parts.append(f"robustness of {plain} of {len(done)} trials")
    if missing := [one.variant.name for one in exports if records[one].parity is None]:
        parts.append(f"export of {_names(missing)}")
    return [f"The time budget of {show_duration(config.time_budget)} left out: {part}." for part in parts]


def _untrained(config: ComparisonConfig, records: TrialRecords) -> list[str]:
    """A phrase for each seed that some variants lack."""
    phrases = []
    several = len({one.backbone for one in config.variants}) > 1
    for seed in config.seed_numbers:
        trials = [one for one in config.trials if one.seed == seed and not records.is_stopped(one)]
        missing = [one.variant for one in trials if one.key not in records.trials]
        if missing and len(missing) == len(trials):
            phrases.append(f"all from seed {seed}")
        elif missing:
            names = [f"{one.backbone} {one.name}" if several else one.name for one in missing]
            phrases.append(f"{_names(names)} from seed {seed}")
    return phrases


def _names(found: Sequence[str]) -> str:
    """Names for a sentence; of many, the first ones and the number of the others."""
    if len(found) <= NAMED:
        return ", ".join(found)
    return f"{', '.join(found[: NAMED - 1])} and {len(found) - NAMED + 1} others"
