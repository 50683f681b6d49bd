"""A comparison from its plan to its report: every trial trained and measured once, whatever interrupts it."""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from poolzoo.artifacts import manifest
from poolzoo.common import files, json_writer, output
from poolzoo.common.errors import CheckFailed, UsageError, explain
from poolzoo.compare import grid, measures, table, trial
from poolzoo.compare.grid import Trial, Variant
from poolzoo.compare.journal import Journal
from poolzoo.data import identity, store
from poolzoo.plugin import loader
from poolzoo.report import compare_page
from poolzoo.train.settings import BEFORE, Settings, renamed

Record = dict[str, Any]
PLAN: Final = "plan.json"
RENAMED: Final = {"robust": "robustness_samples", "finalists": "export_top"}  # keys of earlier versions
MOST_TOGETHER: Final = 16  # networks of their own in memory, while images are corrupted
VARIED: Final = ("backbone", "pool", "local_pool", "seed")  # settings that the table itself shows


@dataclass(frozen=True)
class ComparisonConfig:
    """What is compared, as plain values: `plan.json`, from which an interrupted comparison goes on.

    Attributes:
        pools, local_pools, backbones: As they were typed.
        seeds: How many, from the settings' own seed upwards.
        baseline: As it was typed; None for the first variant.
        robustness_samples: Test images for corruptions and shifts; 0 to leave them out.
        export_top: How many of the best are exported beside the baseline; 0 to leave that out.
        alpha: The level of the tests.
        settings: Everything else that decides a run.
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

    @property
    def variants(self) -> list[Variant]:
        return grid.variants(self.pools, self.local_pools, self.backbones)

    @property
    def trials(self) -> list[Trial]:
        """Every variant from every seed, seeds outermost, so that an early stop leaves whole comparisons."""
        seeds = range(self.settings.seed, self.settings.seed + self.seeds)
        return [Trial(variant, seed) for seed in seeds for variant in self.variants]

    def to_json(self) -> Record:
        return {**asdict(self), "schema": manifest.SCHEMA}

    @classmethod
    def from_json(cls, found: Record) -> ComparisonConfig:
        """Raises CheckFailed where something is missing."""
        try:
            values = renamed({key: value for key, value in found.items() if key != "schema"}, RENAMED)
            settings = renamed(values["settings"])
            values["settings"] = {**BEFORE, **settings, "plugins": tuple(settings["plugins"])}
            return cls(**{**values, "settings": Settings(**values["settings"])})
        except (KeyError, TypeError) as error:
            raise CheckFailed(f"{PLAN} lacks {error}", "it was made by another version of poolzoo") from error


# Trains trials, wherever, and tells of those that ended together.
Runner = Callable[[ComparisonConfig, Sequence[Trial], Path], Iterator[Sequence[Record]]]


def new_path(root: Path = Path("comparisons")) -> Path:
    """A directory name that says when, and that nobody else has."""
    import secrets

    return root / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def start(plan: ComparisonConfig, out: Path, command: str, runner: Runner | None = None) -> Record:
    """Runs a new comparison.

    Raises:
        UsageError: A name is unknown, a map would be 1 × 1, or `out` is there already; nothing has been written.
    """
    with store.shared():
        return _start(plan, out, command, runner)


def _start(plan: ComparisonConfig, out: Path, command: str, runner: Runner | None) -> Record:
    files.require_free(out)
    grid.find_baseline(plan.baseline, plan.variants)
    plan, data = _tried_out(plan)
    out.mkdir(parents=True)
    data.save(out / identity.FILE)
    facts = {"command": command, "started": datetime.now(UTC).isoformat(timespec="seconds")}
    files.write_json(out / PLAN, {**plan.to_json(), "facts": facts})
    return _go_on(out, runner)


def go_on(out: Path, runner: Runner | None = None) -> Record:
    """Runs what is left of a comparison, and writes its tables and its page.

    Raises:
        UsageError: There is none.
        CheckFailed: Trials are left and the data is no longer what the others were trained on.
    """
    with store.shared():
        return _go_on(out, runner, resumed=True)


def _go_on(out: Path, runner: Runner | None, *, resumed: bool = False) -> Record:
    if not (out / PLAN).is_file():
        raise UsageError(f"{out} is no comparison: it has no {PLAN}", "give the directory of an interrupted one")
    kept = files.read_json(out / PLAN)
    facts = kept.pop("facts", {})
    plan, journal, began = ComparisonConfig.from_json(kept), Journal(out / "journal.jsonl"), time.monotonic()
    loader.settings.files = list(dict.fromkeys([*loader.settings.files, *map(Path, plan.settings.plugins)]))
    if resumed and not all(journal.done(one.key) for one in plan.trials):
        _require_same_data(plan, out)
    _train(plan, journal, out, runner or here)
    with _hint(out):
        if plan.robustness_samples:
            _robustness(plan, journal)
        if plan.export_top:
            _deployment(plan, journal)
    spent = sum(record.get("hours", 0) for record in journal.records.values() if record["status"] == "session")
    hours = spent + (time.monotonic() - began) / 3600
    journal.add({"trial": f"session {facts.get('started')} {hours:.6f}", "status": "session", "hours": hours - spent})
    found = {**_found(plan, journal), **facts, "hours": round(hours, 3)}
    write(found, out)
    return told(found, out)


def write(found: Record, out: Path) -> None:
    """Writes `compare.json`, `compare.csv` and `report.html`."""
    files.write_json(out / "compare.json", found)
    files.write_atomically(out / "compare.csv", compare_page.csv(found))
    files.write_atomically(out / "report.html", compare_page.html(found))


def told(found: Record, out: Path) -> Record:
    """What `compare --json` prints."""
    keep = {key: value for key, value in found.items() if key in ("results", "baseline", "verdict", "seeds", "alpha")}
    return {**keep, "report": str(out / "report.html"), "csv": str(out / "compare.csv")}


@contextmanager
def _hint(out: Path) -> Iterator[None]:
    """What Ctrl-C says."""
    try:
        yield
    except KeyboardInterrupt as stop:
        stop.args = (f"poolzoo compare --resume {out} goes on there",)
        raise


def here(plan: ComparisonConfig, trials: Sequence[Trial], folder: Path) -> Iterator[Sequence[Record]]:
    """Trains trials one after the other in this process; the heads of a frozen backbone together."""
    if plan.settings.freeze != "backbone":
        for one in trials:
            yield [trial.train(plan.settings, one, folder)]
        return
    for group in heads_together(trials):
        yield trial.train_heads(plan.settings, group, folder)


def heads_together(trials: Sequence[Trial]) -> list[list[Trial]]:
    """Trials on the same frozen backbone, from the same seed."""

    def key(one: Trial) -> tuple[str, str, int]:
        return one.variant.backbone, one.variant.local_pool or "", one.seed

    return [list(group) for _, group in groupby(sorted(trials, key=key), key)]


def _require_same_data(plan: ComparisonConfig, out: Path) -> None:
    """Refuses to train on other data than the trials before; those of an earlier version say nothing of theirs."""
    from poolzoo.train.prepare import read_data

    kept = identity.DataIdentity.load(out / identity.FILE)
    if kept is not None:
        now = read_data(trial.settings_of(plan.settings, plan.trials[0])).identity
        identity.require_same(kept, now, "bring it back, or start another comparison")


def _tried_out(plan: ComparisonConfig) -> tuple[ComparisonConfig, identity.DataIdentity]:
    """Assembles the first variant of every backbone, which refuses what could not be compared (a 1 × 1 map).

    Returns:
        The plan with what decides the data, so that all trials have the same, and which data they will see.
    """
    from poolzoo.train.prepare import prepare

    firsts = {variant.backbone: variant for variant in reversed(plan.variants)}
    for variant in firsts.values():
        own = replace(variant, pool="avg", local_pool=None)
        prepared = prepare(trial.settings_of(plan.settings, Trial(own, plan.settings.seed)))
        plan = replace(plan, settings=replace(plan.settings, validation=prepared.settings.validation))
    return plan, prepared.data.identity


def _train(plan: ComparisonConfig, journal: Journal, out: Path, runner: Runner) -> None:
    left = [one for one in plan.trials if not journal.done(one.key)]
    total, began = len(plan.trials), time.monotonic()
    if len(left) < total:
        output.say(f"{total - len(left)} of {total} trials are done already")
    with _hint(out):
        ended, number = runner(plan, left, out / "trials"), 0
        while number < len(left):
            with output.quiet():
                records = next(ended)
            number += len(records)
            ahead = _time((time.monotonic() - began) / number * (len(left) - number))
            for place, record in enumerate(records, total - len(left) + number - len(records) + 1):
                journal.add(record)
                name = f"{record['pool']} + {record['local_pool']}" if record["local_pool"] else record["pool"]
                told = f"accuracy {record['accuracy']:.4f}" if record["status"] == "done" else "failed"
                told = f"{record['backbone']}  {name}  seed {record['seed']}  {told}"
                output.say(f"trial {place}/{total}  {told}  {ahead} left")


def _time(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def _robustness(plan: ComparisonConfig, journal: Journal) -> None:
    """Measures what was not measured yet, many together."""
    done = [one for one in plan.trials if journal.done(one.key) and "shift" not in journal.records[one.key]]
    if not done:
        return
    output.say("measuring robustness")
    from poolzoo.data import source

    settings = plan.settings
    seed = settings.seed if settings.split_seed is None else settings.split_seed
    configs = {one: files.read_json(_run(journal, one) / "config.json") for one in done}
    left = _seeing_alike(configs, len(done) if settings.freeze == "backbone" else MOST_TOGETHER)
    while left:
        group = left.pop(0)
        size = tuple(configs[group[0]]["poolzoo"]["data_size"])
        how = {"exact": True, "skip": settings.skip_broken, "how": settings.fit}
        with output.quiet():  # it was said while they trained
            dataset = source.open_dataset(settings.data, size, ("test",), settings.limit, seed, **how)
            images, labels = source.load_split(dataset, "test", size)
        images, labels = source.limited(images, labels, plan.robustness_samples, seed)
        paths = {one.key: _run(journal, one) for one in group}
        try:
            found = measures.robustness(paths, images, labels, settings.device, f"robustness of {len(group)}")
        except Exception as error:  # a plugin's layer on an image that it never met
            if len(group) > 1:  # which of them is it?
                left = [[one] for one in group] + left
                continue
            output.warn(f"robustness of {group[0].variant.name} cannot be measured: {explain(error).message}")
            found = {}
        for one in group:
            journal.add({**journal.records[one.key], "shift": None, "corruption": None, **found.get(one.key, {})})


def _run(journal: Journal, one: Trial) -> Path:
    return Path(journal.records[one.key]["run"])


def _seeing_alike(configs: dict[Trial, Record], most: int) -> list[list[Trial]]:
    """Trials whose networks take the same images, at most so many at a time; each batch is corrupted once for all."""

    def key(one: Trial) -> tuple[str, str]:
        seen = configs[one]["pretrained_cfg"]
        return json_writer.dumps(
            [configs[one]["poolzoo"]["data_size"], seen["input_size"], seen["mean"], seen["std"]]
        ), one.key

    kinds = groupby(sorted(configs, key=key), lambda one: key(one)[0])
    found = [list(kind) for _, kind in kinds]
    return [kind[at : at + most] for kind in found for at in range(0, len(kind), most)]


def _deployment(plan: ComparisonConfig, journal: Journal) -> None:
    """Counts every variant's parameters, and exports the best ones and the baseline."""
    seed = plan.settings.seed
    firsts = [one for one in plan.trials if one.seed == seed and journal.done(one.key)]
    for one in firsts:
        record = journal.records[one.key]
        if "params" not in record:
            journal.add({**record, **measures.size(Path(record["run"]))})
    baseline = grid.find_baseline(plan.baseline, plan.variants)
    best = sorted(firsts, key=lambda one: -_mean(plan, journal, one.variant))[: plan.export_top]
    best += [one for one in firsts if one.variant.name == baseline.name and one not in best]
    for one in best:
        record = journal.records[one.key]
        if "parity" in record:
            continue
        output.say(f"exporting {one.variant.name}")
        try:
            with tempfile.TemporaryDirectory() as folder:
                found = measures.deployed(Path(record["run"]), "auto", plan.settings.threads, Path(folder))
        except Exception as error:
            output.warn(f"{one.variant.name} cannot be exported: {explain(error).message}")
            found = {"parity": False, "latency_ms": None, "latency_ms_32": None}
        journal.add({**journal.records[one.key], **found})


def _mean(plan: ComparisonConfig, journal: Journal, variant: Variant) -> float:
    values = [
        journal.records[one.key]["accuracy"] for one in plan.trials if one.variant == variant and journal.done(one.key)
    ]
    return sum(values) / len(values)


def _found(plan: ComparisonConfig, journal: Journal) -> Record:
    baseline = grid.find_baseline(plan.baseline, plan.variants)
    rows, sentences = table.assemble(plan.variants, baseline, plan.trials, journal.records, plan.alpha)
    done = next((row for row in rows if row["status"] == "done"), None)
    if done is None:
        raise CheckFailed("every trial failed", rows[0]["error"])
    path = Path(done["per_seed"][0]["run"])
    environment = files.read_json(path / "env.json")
    seeds = list(range(plan.settings.seed, plan.settings.seed + plan.seeds))
    from poolzoo.metrics import corruptions

    notes = [
        f"{name}: {text}"
        for name, text in corruptions.NOTES.items()
        if plan.robustness_samples and name in corruptions.NAMES
    ]
    return {
        "schema": manifest.SCHEMA,
        "baseline": baseline.name,
        "seeds": seeds,
        "alpha": plan.alpha,
        "data": table.data(path),
        "settings": {
            key: value for key, value in asdict(plan.settings).items() if key not in VARIED and value not in (None, ())
        },
        "environment": {**environment.pop("versions", {}), **environment, "machine": platform.machine()},
        "verdict": sentences,
        "notes": notes,
        "results": rows,
    }
