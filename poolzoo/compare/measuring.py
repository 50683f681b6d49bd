"""What is measured of trained trials: robustness of all, sizes of all variants, exports of the best.

Each figure is written to the journal as soon as it is there, so that a resumed comparison measures what is missing.
What measures is imported where something is: a finished
comparison is read again without torch.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from statistics import fmean
from typing import Final

from poolzoo.common import files, json_reader, json_writer, output
from poolzoo.common.errors import disk_full, explain
from poolzoo.common.temporary import temporary_folder
from poolzoo.compare.clock import Clock
from poolzoo.compare.config import ComparisonConfig
from poolzoo.compare.grid import Trial, Variant
from poolzoo.compare.records import Robustness, TrialRecords

LARGEST_GROUP: Final = 16  # networks with backbones of their own in memory, while images are corrupted
EXPORT_SECONDS: Final = 10.0  # that a time budget must have for the first export


def measured_trials(config: ComparisonConfig, records: TrialRecords) -> list[Trial]:
    """The finished trials of the variants that no race has stopped: what robustness and exports are measured of."""
    return [one for one in config.trials if records.done(one) and not records.is_stopped(one)]


def measure_robustness(config: ComparisonConfig, records: TrialRecords, clock: Clock) -> None:
    """Measures the finished trials without a robustness, as many together as see the same input and the clock allows.

    A trial that cannot be measured gets a warning and an empty record; the others of its group are measured alone.
    """
    pending = [one for one in measured_trials(config, records) if records[one].robustness is None]
    if not pending:
        return
    guess = fmean(records[one].seconds or 0.0 for one in pending)  # of one trial, before any was measured
    if not clock.room("robustness", len(pending), guess):
        return
    output.say("measuring robustness")
    from poolzoo.compare import robustness
    from poolzoo.data import blocks, source
    from poolzoo.data.choice import choose
    from poolzoo.data.streaming.splits import load_split

    settings = config.settings
    configs = {one: json_reader.mapping(files.read_json(records[one].path / "config.json")) for one in pending}
    groups = group_by_input(configs, len(pending) if settings.freeze == "backbone" else LARGEST_GROUP)
    while groups:
        group = groups.pop(0)
        if not (room := clock.room("robustness", len(group), guess)):
            return
        group, rest = group[:room], group[room:]
        groups = [rest, *groups] if rest else groups
        size = _data_size(configs[group[0]])
        with output.quiet():  # training has said it
            dataset = source.open_dataset(
                settings.data,
                size,
                ("test",),
                settings.limit,
                config.split_seed,
                exact=True,
                skip=settings.skip_broken,
                how=settings.fit,
                test_part=settings.test_part,
            )
            test = load_split(dataset, "test", size)
        chosen = choose(test.labels, config.robustness_samples, config.split_seed)
        images, labels = blocks.gather(test.images, chosen), test.labels[chosen]
        paths = {one.key: records[one].path for one in group}
        found: Mapping[str, Robustness] = {}
        keep = settings.caches_features  # features of a backbone that is trained are not needed again
        try:
            label = f"robustness of {len(group)}"
            with clock.timing("robustness", len(group)):
                found = robustness.measure(paths, images, labels, settings.device, label, keep=keep)
        except Exception as error:  # a plugin's layer on an image that it never met
            if disk_full(error) is not None:
                raise
            if len(group) > 1:  # which of them is it?
                groups = [[one] for one in group] + groups
                continue
            output.warn(f"robustness of {group[0].variant.name} cannot be measured: {explain(error).message}")
        for one in group:
            records.add(replace(records[one], robustness=found.get(one.key, Robustness())))


def group_by_input(configs: Mapping[Trial, Mapping[str, object]], largest: int) -> list[list[Trial]]:
    """Trials whose networks take the same images, at most `largest` together; a batch is corrupted once for them.

    Args:
        configs: The `config.json` of each trial.
        largest: Number of trials in a group.
    """

    def key(one: Trial) -> str:
        seen = json_reader.mapping(configs[one].get("pretrained_cfg"))
        return json_writer.dumps([_data_size(configs[one]), seen.get("input_size"), seen.get("mean"), seen.get("std")])

    ordered = sorted(configs, key=lambda one: (key(one), one.key))
    groups = [list(alike) for _, alike in groupby(ordered, key)]
    return [group[start : start + largest] for group in groups for start in range(0, len(group), largest)]


def _data_size(config: Mapping[str, object]) -> tuple[int, int]:
    """(height, width) of the images that a network was trained on."""
    height, width = json_reader.items(json_reader.mapping(config.get("poolzoo")).get("data_size"))
    return json_reader.integer(height) or 0, json_reader.integer(width) or 0


def measure_sizes(config: ComparisonConfig, records: TrialRecords) -> None:
    """Counts parameters and operations of every variant."""
    for one in _first_trials(config, records):
        if records[one].params is None:
            from poolzoo.compare import measures

            size = measures.size(records[one].path)
            records.add(replace(records[one], params=size.params, macs=size.macs))


def exported_trials(config: ComparisonConfig, records: TrialRecords) -> list[Trial]:
    """The first trials of the most accurate variants and of the baseline, which are exported."""
    measured = measured_trials(config, records)
    trials = [one for one in _first_trials(config, records) if one in measured]
    best = sorted(trials, key=lambda one: -_mean_accuracy(config, records, one.variant))[: config.export_top]
    baseline = config.baseline_variant
    return best + [one for one in trials if one.variant.name == baseline.name and one not in best]


def export_best(config: ComparisonConfig, records: TrialRecords, clock: Clock) -> None:
    """Exports the most accurate variants and the baseline, as many as the clock allows; times them in ONNX Runtime."""
    pending = [one for one in exported_trials(config, records) if records[one].parity is None]
    while pending and (room := clock.room("export", len(pending), EXPORT_SECONDS)):
        with clock.timing("export", room):
            _export(pending[:room], records, config)
        pending = pending[room:]


def _export(trials: Sequence[Trial], records: TrialRecords, config: ComparisonConfig) -> None:
    from poolzoo.common import allocator
    from poolzoo.compare import exporting, measures
    from poolzoo.compare.exporting import Job

    output.say(f"exporting {', '.join(one.variant.name for one in trials)}")
    with temporary_folder() as folder:
        jobs = {Job(records[one].path, folder / f"{one.key}.onnx"): one for one in trials}
        allocator.release()  # what training needed
        threads, shared = config.settings.threads, config.settings.freeze == "backbone"
        exported = list(exporting.export_all(list(jobs), threads, shared=shared))
        for found in exported:  # now that nothing else runs
            if found.disk_full:  # a resumed comparison tries again
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), folder)
            one, error, times = jobs[found.job], found.error, dict[int, float]()
            if error is None:
                try:
                    times = measures.latencies(found.job.run, found.job.file, exporting.PROVIDER, threads)
                except Exception as reason:
                    error = explain(reason).message
            if error is not None:
                output.warn(f"{one.variant.name} cannot be exported: {error}")
            latency, latency_32 = (times.get(batch) for batch in measures.BATCHES)
            parity = found.parity and error is None
            records.add(replace(records[one], parity=parity, latency_ms=latency, latency_ms_32=latency_32))


def _first_trials(config: ComparisonConfig, records: TrialRecords) -> list[Trial]:
    """The finished trials from the first seed, one a variant."""
    return [one for one in config.trials if one.seed == config.settings.seed and records.done(one)]


def _mean_accuracy(config: ComparisonConfig, records: TrialRecords, variant: Variant) -> float:
    return fmean(records[one].accuracy or 0.0 for one in config.trials if one.variant == variant and records.done(one))
