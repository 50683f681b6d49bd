"""Which trials are trained next: all, seeds outermost, or those that a race asks for; as many as the time allows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from poolzoo.common import output
from poolzoo.compare.clock import Clock
from poolzoo.compare.config import ComparisonConfig
from poolzoo.compare.grid import Trial, Variant
from poolzoo.compare.race import Race, pilot_count, races_of
from poolzoo.compare.records import TrialRecord, TrialRecords
from poolzoo.compare.table import correct
from poolzoo.compare.training import Runner, group_by_backbone
from poolzoo.train.step_plan import show_duration


def train(config: ComparisonConfig, records: TrialRecords, folder: Path, runner: Runner, clock: Clock) -> None:
    """Trains what is not done yet, and reports progress on stderr after every trial.

    Args:
        config: What is compared.
        records: Of the trials; those that end are added.
        folder: Where run directories go.
        runner: Trains trials.
        clock: The time budget.
    """
    done, total = sum(map(records.done, config.trials)), len(config.trials)
    if done:
        output.say(f"{done} of {total} trials are done already")
    tried: set[str] = set()
    for rung in _rungs(config, records):
        pending = [one for one in rung if not records.done(one) and one.key not in tried]
        while pending:
            if not (chosen := clock.fitting(_groups(config, pending))):
                output.say(f"the time budget of {show_duration(clock.budget or 0)} has no room for another trial")
                return
            start = clock.session
            _train_all(config, chosen, records, folder, runner, clock)
            clock.trained(chosen, clock.session - start)
            tried |= {one.key for one in chosen}
            pending = [one for one in pending if one.key not in tried]


def _train_all(
    config: ComparisonConfig,
    trials: Sequence[Trial],
    records: TrialRecords,
    folder: Path,
    runner: Runner,
    clock: Clock,
) -> None:
    ended, count, start = runner(config, trials, folder), 0, clock.session
    while count < len(trials):
        with output.quiet():
            finished = next(ended)
        for record in finished:
            records.add(record)
        records.set_session(clock.session)
        count += len(finished)
        todo = [one for one in config.trials if one.key not in records.trials and not records.is_stopped(one)]
        eta = _duration((clock.session - start) / count * len(todo))
        total = sum(not records.is_stopped(one) or one.key in records.trials for one in config.trials)
        for number, record in enumerate(finished, total - len(todo) - len(finished) + 1):
            most = "at most " if config.race else ""
            output.say(f"trial {number}/{total}  {_progress(record)}  {most}{eta} left")


def _progress(record: TrialRecord) -> str:
    name = f"{record.pool} + {record.local_pool}" if record.local_pool else record.pool
    outcome = f"accuracy {record.accuracy:.4f}" if record.done else "failed"
    return f"{record.backbone}  {name}  seed {record.seed}  {outcome}"


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def _groups(config: ComparisonConfig, trials: Sequence[Trial]) -> list[list[Trial]]:
    """Trials that are trained together, in the order in which a time budget takes them: baselines first in a seed."""
    name = config.baseline_variant.name
    ordered = sorted(trials, key=lambda one: (one.seed, one.variant.name != name))  # stable
    if config.settings.freeze != "backbone":
        return [[one] for one in ordered]
    return sorted(group_by_backbone(ordered), key=lambda group: group[0].seed)


def _rungs(config: ComparisonConfig, records: TrialRecords) -> Iterator[Sequence[Trial]]:
    """The trials in parts; between two of them the caller trains. The races of all backbones run side by side."""
    if not config.race:
        yield config.trials
        return
    variants = {(one.backbone, one.name): one for one in config.variants}
    rungs = [
        _of_backbone(config, records, backbone, race, variants) for backbone, race in races_of(config, records).items()
    ]
    for parts in zip(*rungs, strict=True):
        yield [one for part in parts for one in part]


def _of_backbone(
    config: ComparisonConfig,
    records: TrialRecords,
    backbone: str,
    race: Race,
    variants: Mapping[tuple[str, str], Variant],
) -> Iterator[list[Trial]]:
    rungs = race.rungs(lambda: right_of(config, records, backbone), lambda: seconds_of(config, records, backbone))
    for rung in rungs:
        for number in race.looks.keys() - records.looks.get(backbone, {}).keys():
            records.add_look(backbone, number, race.looks[number])
            for name, one in race.looks[number].items():
                output.say(f"{backbone}  {name}  {one.stop.reason(config.seeds)}")
        yield [Trial(variants[backbone, name], seed) for name, seed in rung]


def right_of(config: ComparisonConfig, records: TrialRecords, backbone: str) -> dict[str, dict[int, np.ndarray]]:
    """Which images the finished trials of a backbone have right, by name and seed."""
    found: dict[str, dict[int, np.ndarray]] = {}
    for one in config.trials:
        if one.variant.backbone == backbone and records.done(one):
            found.setdefault(one.variant.name, {})[one.seed] = correct(records[one].path)
    return found


def seconds_of(config: ComparisonConfig, records: TrialRecords, backbone: str) -> dict[str, dict[int, float]]:
    """How long the finished trials of a backbone trained, by name and seed; 0 where the journal does not say."""
    found: dict[str, dict[int, float]] = {}
    for one in config.trials:
        if one.variant.backbone == backbone and records.done(one):
            found.setdefault(one.variant.name, {})[one.seed] = records[one].seconds or 0.0
    return found


def fewest_trials(config: ComparisonConfig) -> int:
    """How many trials a comparison trains at least: all, or those of races that stop all but the pilots at once."""
    if not config.race:
        return len(config.trials)
    counts = [sum(one.backbone == backbone for one in config.variants) for backbone in config.backbone_names]
    return sum(count + min(count, pilot_count(count, config.seeds)) * (config.seeds - 1) for count in counts)
