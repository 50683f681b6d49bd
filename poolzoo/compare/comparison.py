"""A comparison from its config to its report: every trial is trained and measured once, whatever interrupts it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from poolzoo.common import files, json_reader
from poolzoo.common.errors import UsageError
from poolzoo.compare import config as configs
from poolzoo.compare import earlier, measuring, table, trial, writing
from poolzoo.compare.board import pinning, protocol
from poolzoo.compare.board.protocol import Protocol
from poolzoo.compare.config import ComparisonConfig
from poolzoo.compare.grid import Trial
from poolzoo.compare.records import TrialRecords
from poolzoo.compare.training import Runner, run_local, train_remaining
from poolzoo.data import identity, store
from poolzoo.plugin import loader
from poolzoo.report.results import ComparisonResult


def run(
    config: ComparisonConfig,
    out: Path,
    command: str,
    runner: Runner = run_local,
    path: str | None = None,
    pinned: Protocol | None = None,
) -> ComparisonResult:
    """Runs a new comparison and writes its tables and its page.

    Args:
        config: What is compared.
        out: Its directory, which must not exist.
        command: As it was typed, for the report.
        runner: Trains the trials.
        path: What later comparisons call this one, see `earlier.remember`; None for `out`.
        pinned: The protocol that the config follows; None for any other comparison.

    Raises:
        UsageError: A name is unknown, a feature map would be 1 × 1, or `out` exists; nothing has been written.
        CheckFailed: Every trial failed, or the data or the weights are not those of the protocol.
    """
    with store.shared():
        files.require_free(out)
        _ = config.baseline_variant  # raises where there is none
        config, data = _assemble_first(config, pinned)
        out.mkdir(parents=True)
        data.save(out / identity.FILE)
        if pinned is not None:
            files.write_atomically(out / protocol.FILE, pinned.text)
        provenance = {"command": command, "started": datetime.now(UTC).isoformat(timespec="seconds")}
        files.write_json(out / configs.FILE, {**config.to_json(), "provenance": provenance})
        return _run(out, runner, resumed=False, path=path)


def resume(out: Path, runner: Runner = run_local) -> ComparisonResult:
    """Runs what is missing in an interrupted comparison, and writes its tables and its page.

    Raises:
        UsageError: `out` is no comparison.
        CheckFailed: Every trial failed, or some are not trained yet and the data has changed since.
    """
    with store.shared():
        return _run(out, runner, resumed=True)


def _run(out: Path, runner: Runner, *, resumed: bool, path: str | None = None) -> ComparisonResult:
    if not (out / configs.FILE).is_file():
        text = f"{out} is no comparison: it has no {configs.FILE}"
        raise UsageError(text, "give the directory of an interrupted comparison")
    content = dict(json_reader.mapping(files.read_json(out / configs.FILE)))
    facts = content.pop("facts", {})  # the key of earlier versions
    provenance = json_reader.mapping(content.pop("provenance", facts))
    command, started = json_reader.text(provenance.get("command")), json_reader.text(provenance.get("started"))
    config, records, start = ComparisonConfig.from_json(content), TrialRecords(out), time.monotonic()
    loader.settings.files = list(dict.fromkeys([*loader.settings.files, *map(Path, config.settings.plugins)]))
    if resumed and not all(map(records.done, config.trials)):
        _require_same_data(config, out)
    with _resume_hint(out):
        train_remaining(config, records, out / "trials", runner)
        if config.robustness_samples:
            measuring.measure_robustness(config, records)
        if config.export_top:
            measuring.measure_sizes(config, records)
            measuring.export_best(config, records)
    records.add_session(started, (time.monotonic() - start) / 3600)
    found = table.comparison_result(config, records, command=command, started=started)
    writing.write(found, out)
    earlier.remember(config, records, out, path)
    return found


@contextmanager
def _resume_hint(out: Path) -> Iterator[None]:
    """Makes Ctrl-C say how to resume."""
    try:
        yield
    except KeyboardInterrupt as stop:
        stop.args = (f"poolzoo compare --resume {out} continues it",)
        raise


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
