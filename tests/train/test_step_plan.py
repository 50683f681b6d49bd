"""Plans of steps, durations, and what fits into a time."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from poolzoo.train.optimizer import LrSchedule
from poolzoo.train.step_plan import Fit, StepPlan, parse_duration, show_duration
from poolzoo.train.time_budget import StepCost


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("25m", 1500), ("1h30m", 5400), ("2h", 7200), ("1.5s", 1.5)]
)
def test_durations_are_read(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "0s", "5x", "-5s", "30s1m", "1h 30m", "infs"])
def test_other_texts_are_no_durations(text):
    with pytest.raises(ValueError, match=r"duration|unpack"):
        parse_duration(text)


def test_durations_are_shown_as_they_are_read():
    assert [show_duration(seconds) for seconds in (0.2, 90, 5400, 7200)] == ["0s", "1m30s", "1h30m", "2h"]


def test_a_plan_is_read_from_its_text():
    plan = StepPlan((Fit(0, 100), Fit(20, 80), Fit(60, 120)))
    assert str(plan) == "100,20:80,60:120"
    assert StepPlan.parse(str(plan)) == plan
    assert StepPlan.parse("7") == StepPlan.of(7)


@pytest.mark.parametrize("text", ["", "x", "0", "10,5", "10,5:4", "10,5:8,5:9", "10:3"])
def test_other_texts_are_no_plans(text):
    with pytest.raises((ValueError, TypeError)):
        StepPlan.parse(text)


def test_a_plan_without_another_fit_is_exact():
    plan = StepPlan.of(997)
    assert [plan.position(step) for step in range(997)] == list(range(997))


def test_the_rate_never_jumps_and_ends_with_the_plan():
    plan = StepPlan((Fit(0, 100), Fit(30, 60), Fit(50, 200)))
    schedule = LrSchedule(1.0, plan, warmup=0.1, decay="linear")
    rates = [schedule.lr_at(step) for step in range(plan.total + 1)]
    falls = [one - other for one, other in pairwise(rates[10:])]
    assert 0 <= min(falls) <= max(falls) < 0.03
    assert rates[plan.total] == 0
    assert plan.position(30) == 30
    assert plan.position(50) == pytest.approx(30 + 70 * 20 / 30)


@pytest.mark.parametrize("done", [0, 7, 20])
def test_steps_fill_the_time_with_their_validations(done):
    cost = StepCost(step=0.25, validation=1.5)
    for seconds in (0.1, 3.0, 20.0, 61.0):
        steps = cost.steps_in(seconds, done, steps_per_epoch=10)

        def time(count: int) -> float:
            validations = math.ceil((done + count) / 10) - done // 10
            return count * 0.25 + validations * 1.5

        assert steps == 0 or time(steps) <= seconds
        assert time(steps + 1) > seconds
