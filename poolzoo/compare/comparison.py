"""A comparison from its config to its report: every trial is trained and measured once, whatever interrupts it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from poolzoo.common import files, json_reader, locks, output
from poolzoo.common.errors import EnvironmentProblem, UsageError, disk_full
from poolzoo.compare import config as configs
from poolzoo.compare import earlier, measuring, schedule, table, trial, writing
from poolzoo.compare.board import pinning, protocol
from poolzoo.compare.board.protocol import Protocol
from poolzoo.compare.clock import Clock
from poolzoo.compare.config import ComparisonConfig
from poolzoo.compare.grid import Trial
from poolzoo.compare.left_out import left_out
from poolzoo.compare.records import TrialRecords
from poolzoo.compare.training import Runner, run_local
from poolzoo.data import identity, store
from poolzoo.plugin import loader
from poolzoo.report.results import ComparisonResult
from poolzoo.train.step_plan import show_duration


def run(
    config: ComparisonConfig,
    out: Path,
    command: str,
    runner: Runner = run_local,
    path: str | None = None,
    pinned: Protocol | None = None,
    now: Callable[[], float] = time.monotonic,
) -> ComparisonResult:
    """Runs a new comparison and writes its tables and its page.

    Args:
        config: What is compared.
        out: Its directory, which must not exist.
        command: As it was typed, for the report.
        runner: Trains the trials.
        path: What later comparisons call this one, see `earlier.remember`; None for `out`.
        pinned: The protocol that the config follows; None for any other comparison.
        now: Gives the time in seconds, for the time budget.

    Raises:
        UsageError: A name is unknown, a feature map would be 1 × 1, or `out` exists; nothing has been written.
        CheckFailed: Every trial failed, or the data or the weights are not those of the protocol.
    """
    clock = Clock(config.time_budget, now)
    with store.shared():
        files.require_free(out)
        _ = config.baseline_variant  # raises where there is none
        config, data = _assemble_first(config, pinned)
        with files.appearing(out) as folder:
            data.save(folder / identity.FILE)
            if pinned is not None:
                files.write_atomically(folder / protocol.FILE, pinned.text)
            provenance = {"command": command, "started": datetime.now(UTC).isoformat(timespec="seconds")}
            files.write_json(folder / configs.FILE, {**config.to_json(), "provenance": provenance})
        with locks.alone_in(out, "comparison"):
            return _run(out, runner, clock, resumed=False, path=path)


def resume(
    out: Path,
    runner: Runner = run_local,
    time_budget: float | None = None,
    now: Callable[[], float] = time.monotonic,
) -> ComparisonResult:
    """Runs what is missing in an interrupted comparison, and writes its tables and its page.

    Args:
        out: Its directory.
        runner: Trains the trials.
        time_budget: Seconds of the whole comparison, earlier sessions included, from now on; None for what it had.
        now: Gives the time in seconds, for the time budget.

    Raises:
        UsageError: `out` is no comparison.
        CheckFailed: Every trial failed, or some are not trained yet and the data has changed since.
    """
    clock = Clock(time_budget, now)
    if not files.has_file(out / configs.FILE):
        text = f"{out} is no comparison: it has no {configs.FILE}"
        raise UsageError(text, "give the directory of an interrupted comparison")
    with store.shared(), locks.alone_in(out, "comparison"):
        locks.sweep(out)
        return _run(out, runner, clock, resumed=True)


def _run(out: Path, runner: Runner, clock: Clock, *, resumed: bool, path: str | None = None) -> ComparisonResult:
    content = dict(json_reader.mapping(files.read_json(out / configs.FILE)))
    facts = content.pop("facts", {})  # the key of earlier versions
    provenance = json_reader.mapping(content.pop("provenance", facts))
    command, started = json_reader.text(provenance.get("command")), json_reader.text(provenance.get("started"))
    config, records = ComparisonConfig.from_json(content), TrialRecords(out)
    if clock.budget is not None and clock.budget != config.time_budget:
        config = replace(config, time_budget=clock.budget)
        files.write_json(out / configs.FILE, {**config.to_json(), "provenance": dict(provenance)})
    loader.add_files(config.settings.plugins, out)
    known = replace(config, options_known=True)
    if all(records.done(one) or records.is_stopped(one) for one in known.trials):  # nothing is to be trained
        config = known
    if resumed and not all(map(records.done, config.trials)):
        _require_same_data(config, out)
    with _resume_hint(out):
        if config.time_budget is not None:
            clock.budget = config.time_budget
            _predict(config, records, clock)
        schedule.train(config, records, out / "trials", runner, clock)
        if config.export_top:
            measuring.measure_sizes(config, records)
            measuring.export_best(config, records, clock)
        if config.robustness_samples:
            measuring.measure_robustness(config, records, clock)
    records.set_session(clock.session)
    exports = measuring.exported_trials(config, records) if config.export_top else []
    missing = left_out(config, records, exports)
    found = table.comparison_result(config, records, command=command, started=started, left_out=missing)
    writing.write(found, out)
    earlier.remember(config, records, out, path)
    return found


def _predict(config: ComparisonConfig, records: TrialRecords, clock: Clock) -> None:
    """Tells the clock how long trials take, and says what the budget has room for."""
    from poolzoo.compare.preview import preview

    remaining = [one for one in config.trials if not records.done(one)]
    with output.quiet():  # assembling the first variants has said it
        found = preview(config) if remaining else None
    rows = found.rows if found else ()
    of_rows = {(row.backbone, row.pool, row.local_pool): row.seconds or 0.0 for row in rows}
    each = {one.key: of_rows.get((one.backbone, one.pool, one.local_pool), 0.0) for one in config.variants}
    if found:  # what all share, such as the features of a frozen backbone, in equal parts
        shared = max(0.0, found.seconds - config.seeds * sum(each.values())) / len(config.trials)
        each = {key: seconds + shared for key, seconds in each.items()}
    clock.start_from(3600 * records.hours, each, [one for one in config.trials if records.done(one)])
    first = [one for one in remaining if one.seed == config.settings.seed]
    needed, budget = sum(map(clock.seconds, first)), show_duration(config.time_budget or 0)
    if first and needed > clock.left:
        fewer = max(1, int((config.settings.epochs or 1) * clock.left / needed))
        hint = (
            f"--epochs {fewer} would train all of them"
            if config.settings.epochs and fewer < config.settings.epochs
            else ""
        )
        text = f"one seed of {len(first)} variants takes about {show_duration(needed)}, the time budget is {budget}"
        output.warn(f"{text}: the baseline and the first variants are trained, the others are left out", hint)
    elif remaining:
        every = sum(map(clock.seconds, remaining))
        output.say(f"training takes about {show_duration(every)}, the time budget is {budget}")


@contextmanager
def _resume_hint(out: Path) -> Iterator[None]:
    """Makes Ctrl-C and a full disk say how to resume."""
    command = f"poolzoo compare --resume {out}"
    try:
        yield
    except KeyboardInterrupt as stop:
        stop.args = (f"{command} continues it",)
        raise
    except (OSError, EnvironmentProblem) as error:
        if (full := disk_full(error)) is None:
            raise
        text = f"{full.filename or out} cannot be written: {full.strerror}"
        raise EnvironmentProblem(text, f"free some space; {command} continues it") from error


def _require_same_data(config: ComparisonConfig, out: Path) -> None:
    """Refuses to train on other data than the trials before; comparisons of earlier versions keep no identity of it."""
    from poolzoo.train.splits import read_data

    recorded = identity.DataIdentity.load(out / identity.FILE)
    if recorded is not None:
        now = read_data(trial.settings_of(config.settings, config.trials[0])).identity
        identity.require_same(recorded, now, "restore it, or start another comparison")


def _assemble_first(
    config: ComparisonConfig, pinned: Protocol | None
) -> tuple[ComparisonConfig, identity.DataIdentity]:
    """Assembles the first variant of every backbone, which refuses what cannot be compared, such as a 1 × 1 map.

    Returns:
        The config with the validation split that all trials share, and the identity of the data that they see.
    """
    from poolzoo.train.prepare import prepare

    firsts = {variant.backbone: variant for variant in reversed(config.variants)}
    for variant in firsts.values():
        plain = replace(variant, pool="avg", local_pool=None)
        prepared = prepare(trial.settings_of(config.settings, Trial(plain, config.settings.seed)))
        if pinned is not None:
            pinning.require_prepared(pinned, prepared)
        config = replace(config, settings=replace(config.settings, validation=prepared.settings.validation))
    return config, prepared.data.identity
