"""`poolzoo choose` from its request to its page: comparisons that fit into a time, then the recommendation."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from poolzoo.common import files, json_reader, locks, output
from poolzoo.common.errors import CheckFailed
from poolzoo.compare import comparison
from poolzoo.compare import config as configs
from poolzoo.compare.choosing import budget, words
from poolzoo.compare.choosing.between import Contender, between
from poolzoo.compare.choosing.candidates import Candidates, planned
from poolzoo.compare.choosing.exports import Exports, require_target
from poolzoo.compare.choosing.finished import Finished
from poolzoo.compare.choosing.plan import Plan, Planned, Request
from poolzoo.compare.choosing.results import PAGE, RESULT, Candidate, Choice
from poolzoo.compare.config import ComparisonConfig
from poolzoo.compare.race import pilot_count
from poolzoo.compare.records import TrialRecords
from poolzoo.data import store
from poolzoo.plugin import loader
from poolzoo.report import choice_page
from poolzoo.train.settings import Settings


def choose(candidates: Candidates, settings: Settings, seeds: int, request: Request, out: Path, command: str) -> Choice:
    """Compares candidates within a time, and recommends one.

    Args:
        candidates: What is compared.
        settings: What all trainings share. With `epochs`, trainings have that length, and the time is not divided.
        seeds: Of every variant.
        request: The time, and what the network must fulfill.
        out: The directory of the choice, which must not exist.
        command: As it was typed.

    Raises:
        UsageError: A name is unknown, the time is too short, or `out` exists; nothing has been written.
        CheckFailed: No candidate can be recommended.
    """
    started = time.monotonic()
    with store.shared():
        files.require_free(out)
        require_target(request.target)
        every, not_tried = planned(candidates, settings, seeds, request.alpha)
        loads, without = budget.measure(every)
        alpha = request.alpha / (len(loads) + 1)  # all comparisons, and the one between them, hold together
        if settings.epochs is None:
            fitted = budget.fit(loads, request.time_budget, time.monotonic() - started)
            fits = list(zip(fitted.epochs, [fitted.limit] * len(loads), strict=True))
        else:
            fits = [(settings.epochs, settings.limit)] * len(loads)
        comparisons = []
        for load, (epochs, limit) in zip(loads, fits, strict=True):
            config = replace(budget.fitted_config(load.planned.config, limit, epochs), alpha=alpha)
            comparisons.append(Planned(load.planned.regime, replace(config, race=is_race(config))))
        plan = Plan(request, comparisons, [*_lengths(loads, comparisons), *without, *not_tried], command)
        with files.appearing(out) as folder:
            plan.save(folder)
        with locks.alone_in(out, "choice"):
            return _run(plan, out, started)


def is_race(config: ComparisonConfig) -> bool:
    """Whether a race can stop anything: some variants wait for what others show."""
    return config.seeds > 1 and len(config.variants) > pilot_count(len(config.variants), config.seeds)


def _lengths(loads: Sequence[budget.Load], comparisons: Sequence[Planned]) -> list[str]:
    """How much shorter the trainings are than those of `finetune`, in sentences."""
    lines = []
    for load, one in zip(loads, comparisons, strict=True):
        settings = one.config.settings
        if settings.epochs is not None and settings.epochs < load.most_epochs:
            lines.append(
                f"{one.title}: trained for {settings.epochs} epochs; finetune takes {load.most_epochs}, and longer "
                "trainings may change the order."
            )
    limit = comparisons[0].config.settings.limit
    if limit is not None:
        lines.append(f"At most {limit:,} training and {limit:,} test images were used; finetune takes all.")
    return lines


def resume(out: Path) -> Choice:
    """Continues an interrupted choice.

    Raises:
        UsageError: `out` is no choice.
        CheckFailed: No candidate can be recommended, or the data has changed.
    """
    plan = Plan.load(out)
    plugins = [Path(file) for one in plan.comparisons for file in one.config.settings.plugins]
    loader.settings.files = list(dict.fromkeys([*loader.settings.files, *plugins]))
    with store.shared(), locks.alone_in(out, "choice"):
        locks.sweep(out)
        return _run(plan, out, time.monotonic())


def _run(plan: Plan, out: Path, started: float) -> Choice:
    """Runs what is missing, and writes `choice.json` and `choice.html`."""
    earlier = sum(3600 * TrialRecords(out / one.name).hours for one in plan.comparisons)
    with _resume_hint(out):
        finished = []
        for done, one in enumerate(plan.comparisons):  # each may take its part of what is left, the others the rest
            left = (1 - budget.RESERVED) * plan.request.time_budget - earlier - (time.monotonic() - started)
            finished.append(_compared(one, out, max(1.0, left / (len(plan.comparisons) - done))))
        comparisons = [one for one in finished if one is not None and one.candidates]
        if not comparisons:
            raise CheckFailed("no candidate could be trained", f"see {out}, or poolzoo compare --dry-run")
        choice = _recommended(plan, comparisons, out)
    choice = replace(choice, seconds=time.monotonic() - started)
    files.write_json(out / RESULT, choice.to_json())
    titled = {one.planned.title: one.result for one in comparisons}
    page = choice_page.html(
        data=choice.data,
        sentences=[*choice.sentences, *(one.describe() for one in choice.comparisons)],
        commands=choice.commands,
        left_out=choice.left_out,
        comparisons=[(one.title, titled[one.title]) for one in choice.comparisons],
    )
    files.write_atomically(out / PAGE, page)
    return choice


def _compared(planned: Planned, out: Path, seconds: float) -> Finished | None:
    """Runs one comparison within a time, or resumes it within its own; None where every trial of it failed."""
    place = out / planned.name
    output.say(f"comparing {len(planned.config.variants)} candidates: {planned.title}")
    try:
        if files.has_file(place / configs.FILE):
            result = comparison.resume(place)
        else:
            shutil.rmtree(place, ignore_errors=True)  # it was interrupted before it had a plan
            result = comparison.run(replace(planned.config, time_budget=seconds), place, "poolzoo choose")
    except CheckFailed as error:
        if not files.has_file(place / configs.FILE) or any(one.done for one in TrialRecords(place).trials.values()):
            raise
        output.warn(f"{planned.title}: {error.message}", error.hint)
        return None
    # The comparison may have pinned settings that depend on the data.
    pinned = ComparisonConfig.from_json(json_reader.mapping(files.read_json(place / configs.FILE)))
    return Finished(replace(planned, config=pinned), result, TrialRecords(place), place)


def _recommended(plan: Plan, comparisons: Sequence[Finished], out: Path) -> Choice:
    alpha = plan.request.alpha / (len(plan.comparisons) + 1)
    exports = Exports(plan.request, comparisons[0].planned.config.settings.threads)
    waiting = {one.planned.name: list(one.candidates) for one in comparisons}
    refused: list[Candidate] = []
    while contenders := [
        Contender(one, waiting[one.planned.name][0]) for one in comparisons if waiting[one.planned.name]
    ]:
        found = between(contenders, alpha)
        one = found.tied[0]
        measured = exports.measured(one.comparison, one.candidate, check_target=True)
        if measured.refusal is None:
            break
        output.say(f"{measured.variant.name} is passed over: {measured.refusal}")
        refused.append(measured)
        waiting[one.comparison.planned.name].pop(0)
    else:
        reasons = "; ".join(f"{each.variant.name}: {each.refusal}" for each in refused[:2])
        text = f"no candidate fulfills what was asked for: {reasons}"
        raise CheckFailed(text, "ask for less, or name others with --pool")
    chosen, comparison = replace(one, candidate=measured), one.comparison
    baseline = comparison.baseline
    if baseline is not None:
        baseline = exports.measured(comparison, baseline)
    return Choice(
        data=comparison.planned.config.settings.data,
        images=comparison.images,
        recommended=measured,
        baseline=baseline,
        sentences=words.sentences(chosen, baseline, found),
        comparisons=[each.to_regime() for each in comparisons],
        between=found.behind,
        refused=refused,
        left_out=[*(line for each in comparisons for line in each.left_out), *plan.left_out],
        seconds=0.0,
        train=words.train_command(comparison, measured, out),
        export=words.export_command(comparison, out, plan.request.target),
        out=out,
    )


@contextmanager
def _resume_hint(out: Path) -> Iterator[None]:
    """Makes Ctrl-C say how to resume."""
    try:
        yield
    except KeyboardInterrupt as stop:
        stop.args = (f"poolzoo choose --resume {out} continues it",)
        raise
