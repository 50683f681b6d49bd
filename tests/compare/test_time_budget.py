"""`compare --time-budget`: what fits is done, what does not is said, and nothing lasts longer than it may."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from support.planted_trials import Planted, config

from poolzoo.common.errors import CheckFailed
from poolzoo.compare import comparison, preview
from poolzoo.compare.clock import Clock
from poolzoo.compare.grid import Trial, Variant
from poolzoo.compare.preview import Preview, VariantPreview
from poolzoo.compare.records import TrialRecords

FOUR = "avg,max,gem,lse"


@pytest.fixture(autouse=True)
def _previewed(monkeypatch):
    """Trials that are all previewed alike, five times too short; `preview` itself measures this machine."""

    def constant(config):
        rows = [VariantPreview(one.backbone, one.pool, one.local_pool, seconds=2.0) for one in config.variants]
        return Preview(len(config.trials), config.seeds, rows, once=0.0, each_seed=2.0 * len(rows))

    monkeypatch.setattr(preview, "preview", constant)


class Time:
    """A clock that only trials move."""

    def __init__(self, seconds: float | dict[str, float] = 10.0) -> None:
        self.seconds, self.now = seconds, 1000.0

    def __call__(self) -> float:
        return self.now

    def spend(self, trial: Trial) -> None:
        self.now += self.seconds if isinstance(self.seconds, float) else self.seconds[trial.variant.name]


def compare(place: Path, budget: float, time: Time, **changes: object):
    runner = Planted({}, before=time.spend)
    found = comparison.run(config(FOUR, time_budget=budget, **changes), place, "", runner, now=time)
    return found, runner


def test_seeds_are_trained_until_the_time_is_over(tmp_path):
    time = Time()
    found, runner = compare(tmp_path / "c", 75.0, time)
    assert time.now - 1000.0 == 70.0
    assert runner.trained == [(name, 0) for name in FOUR.split(",")] + [(name, 1) for name in ("avg", "max", "gem")]
    said = "The time budget of 1m15s left out: training of"
    assert found.left_out == [f"{said} lse from seed 1.", f"{said} all from seed 2."]
    assert {row.pool: len(row.per_seed) for row in found.results} == {"avg": 2, "max": 2, "gem": 2, "lse": 1}
    assert found.left_out[0] in (tmp_path / "c" / "report.html").read_text()
    assert json.loads((tmp_path / "c" / "compare.json").read_text())["left_out"] == found.left_out


def test_enough_time_leaves_nothing_out(tmp_path):
    found, runner = compare(tmp_path / "c", 1000.0, Time())
    assert len(runner.trained) == 12
    assert not found.left_out


def test_too_little_time_trains_the_baseline_first(tmp_path):
    time = Time()
    found, runner = compare(tmp_path / "c", 20.0, time, baseline="gem")
    assert runner.trained == [("gem", 0)]
    states = {row.pool: row.status for row in found.results}
    assert states == {"gem": "done", "avg": "left out", "max": "left out", "lse": "left out"}
    assert "training of avg, max, lse from seed 0" in found.left_out[0]


def test_a_first_seed_that_does_not_fit_is_announced(tmp_path, capsys):
    with pytest.raises(CheckFailed, match="no room for a single trial"):
        compare(tmp_path / "c", 5.5, Time(), settings=replace(config(FOUR).settings, epochs=40))
    said = capsys.readouterr().err
    assert "warning: one seed of 4 variants takes about 8s, the time budget is 6s: the baseline and" in said
    assert "hint: --epochs 6 would train all of them" in said


def test_a_resumed_comparison_has_only_the_rest_of_its_time(tmp_path):
    time, place = Time(), tmp_path / "c"

    def killed(trial: Trial) -> None:
        if len(runner.trained) == 3:
            raise KeyboardInterrupt
        time.spend(trial)

    runner = Planted({}, before=killed)
    with pytest.raises(KeyboardInterrupt):
        comparison.run(config(FOUR, time_budget=95.0), place, "", runner, now=time)
    assert TrialRecords(place).hours == pytest.approx(30 / 3600)
    time.now += 5000  # nobody works in between
    again, before = Planted({}, before=time.spend), time.now
    comparison.resume(place, again, now=time)
    assert [name for name, _ in again.trained] == ["lse", "avg", "max", "gem", "lse", "avg"]
    assert time.now - before == 60.0


def test_a_resumed_comparison_may_get_more_time(tmp_path):
    time = Time()
    _, runner = compare(tmp_path / "c", 75.0, time)
    again = Planted({}, before=time.spend)
    found = comparison.resume(tmp_path / "c", again, time_budget=5000.0, now=time)
    assert len(runner.trained) + len(again.trained) == 12
    assert not found.left_out
    assert json.loads((tmp_path / "c" / "plan.json").read_text())["time_budget"] == 5000.0


def test_a_race_within_a_budget_trains_what_it_can(tmp_path):
    time = Time()
    runner = Planted({"lse": -0.3, "gem": -0.3}, before=time.spend)
    plan = config("avg,max,lp,topk,gem,lse", time_budget=125.0, race=True)
    found = comparison.run(plan, tmp_path / "c", "", runner, now=time)
    assert len(runner.trained) == 12  # six of the first seed, then pilots
    assert "training of" in found.left_out[0]


def test_a_bad_budget_is_one_line_and_a_hint(poolzoo, tmp_path):
    outcome = poolzoo(
        "compare", "--data", "digits", "--pool", "avg,max", "--time-budget", "soon", "--out", tmp_path / "c"
    )
    assert outcome.code == 2
    assert len(outcome.err.splitlines()) == 2
    assert "no duration above zero" in outcome.err


# --- Predictions --------------------------------------------------------------------------------------------------


def trials(names: str) -> list[Trial]:
    return [Trial(Variant("nano/plain", name), 0) for name in names]


def seconds(clock: Clock, found: Sequence[Trial]) -> list[float]:
    return [clock.seconds(one) for one in found]


def test_what_was_trained_corrects_what_was_previewed():
    clock, (a, b, c) = Clock(100.0, lambda: 0.0), trials("abc")
    clock.start_from(0.0, {a.variant.key: 1.0, b.variant.key: 2.0, c.variant.key: 4.0}, [])
    assert seconds(clock, [a, b, c]) == [1.0, 2.0, 4.0]
    clock.trained([a, b], 9.0)
    assert seconds(clock, [a, b, c]) == [3.0, 6.0, 12.0]
    clock.trained([c], 6.0)
    assert seconds(clock, [a, b, c]) == [3.0, 6.0, 6.0]


def test_earlier_sessions_correct_it_too():
    clock, (a, b) = Clock(100.0, lambda: 0.0), trials("ab")
    clock.start_from(30.0, {a.variant.key: 10.0, b.variant.key: 5.0}, [a])
    assert clock.seconds(b) == 15.0
    assert clock.left == pytest.approx(100 - 30 - 3 - 0.6)  # no time passes on this clock


def test_what_is_too_long_gives_way_to_what_is_not():
    clock, (a, b, c) = Clock(40.0, lambda: 0.0), trials("abc")
    clock.start_from(0.0, {a.variant.key: 90.0, b.variant.key: 5.0, c.variant.key: 5.0}, [])
    assert clock.fitting([[a], [b], [c]]) == [b]


def test_only_half_of_the_time_is_given_away_at_once():
    clock, found = Clock(100.0, lambda: 0.0), trials("abcdefgh")
    clock.start_from(0.0, {one.variant.key: 10.0 for one in found}, [])
    groups = [[one] for one in found]
    assert clock.fitting(groups) == found[:1]  # nothing was measured yet
    clock.trained(found[:1], 10.0)
    assert clock.fitting(groups[1:]) == found[1:5]
    assert Clock(None).fitting(groups) == found


def test_of_a_group_that_does_not_fit_the_first_trials_are_taken():
    clock, found = Clock(40.0, lambda: 0.0), trials("abcdef")
    clock.start_from(0.0, {one.variant.key: 10.0 for one in found}, [])
    assert clock.fitting([found]) == found[:3]
    assert Clock(10.0, lambda: 0.0).room("robustness", 5, 20.0) == 0


def test_other_work_is_predicted_from_the_last_time():
    time = Time()
    clock = Clock(100.0, time)
    assert clock.room("robustness", 20, 5.0) == 1
    with clock.timing("robustness", 1):
        time.now += 7.0
    assert clock.room("robustness", 20, 5.0) == 12  # of the 90 seconds that are left
    assert Clock(None).room("robustness", 20, 5.0) == 20
