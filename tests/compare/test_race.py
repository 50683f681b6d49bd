"""`compare --race`: what stops and where, the same after a kill, and no more errors than alpha allows."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
from scipy import stats
from support.planted_trials import Planted, config

from benchmarks.compare.racing import World, simulate
from poolzoo.compare import comparison
from poolzoo.compare.race import Race, pilot_count, replay
from poolzoo.compare.racing import Standings, critical_value, look_level, verdict_level
from poolzoo.compare.writing import Summary
from poolzoo.report.results import ComparisonResult

SIX = "avg,max,gem,lse,lp,topk"
GAINS = {"max": -0.2, "gem": -0.25}  # far behind the four others


def rows(found: ComparisonResult) -> dict[str, object]:
    return {row.pool: row for row in found.results}


def without_clock(found: ComparisonResult) -> object:
    """The results without what a clock or a place decides."""
    return [{**row.to_json(), "per_seed": [(one.seed, one.accuracy) for one in row.per_seed]} for row in found.results]


# --- Races with planted results -----------------------------------------------------------------------------------


def test_a_race_stops_clear_losers_after_one_seed(tmp_path):
    whole, raced = Planted(GAINS), Planted(GAINS)
    every = comparison.run(config(SIX), tmp_path / "whole", "", whole)
    found = comparison.run(config(SIX, race=True), tmp_path / "race", "", raced)
    assert {name for name, row in rows(found).items() if row.stop} == {"max", "gem"}
    assert sorted(raced.trained) == sorted(one for one in whole.trained if one[0] not in GAINS or one[1] == 0)
    for name, row in rows(found).items():
        same = rows(every)[name]
        assert (row.delta and (row.delta.better, row.delta.worse)) == (
            same.delta and (same.delta.better, same.delta.worse)
        )
        assert [one.accuracy for one in row.per_seed] == [one.accuracy for one in same.per_seed[: len(row.per_seed)]]
    for name in GAINS:
        row = rows(found)[name]
        first = {other: rows(found)[other].per_seed for other in (row.stop.behind, name)}
        accuracy = {other: np.mean([one.accuracy for one in per_seed]) for other, per_seed in first.items()}
        assert row.stop.mean == pytest.approx(accuracy[row.stop.behind] - accuracy[name])
        assert 0 < row.stop.low < row.stop.mean < row.stop.high
        assert row.stop.p_adjusted < 0.05
        assert row.rank == 1 + len(row.stop.worse_than)


def test_a_stopped_row_says_where_and_why(tmp_path, capsys):
    from poolzoo.cli.compare import show

    found = comparison.run(config(SIX, race=True), tmp_path / "c", "", Planted(GAINS))
    stop = rows(found)["gem"].stop
    reason = (
        f"stopped after 1 of 3 seeds: {100 * stop.mean:.1f} points ({100 * stop.low:.1f} to {100 * stop.high:.1f}) "
        f"behind {stop.behind}"
    )
    show(Summary(found, tmp_path / "c"), as_json=False)
    assert reason in capsys.readouterr().out
    assert reason in (tmp_path / "c" / "report.html").read_text()
    table = {row["pool"]: row for row in csv.DictReader((tmp_path / "c" / "compare.csv").read_text().splitlines())}
    assert table["gem"]["stopped"] == reason
    assert table["avg"]["stopped"] == ""
    again = ComparisonResult.from_json(json.loads((tmp_path / "c" / "compare.json").read_text()))
    assert rows(again)["gem"].stop == stop
    assert any(line == "The race stopped 2 of 6 variants: about 22 % less training." for line in found.conclusions)


def test_the_baseline_is_never_stopped(tmp_path):
    runner = Planted({"avg": -0.4})
    found = comparison.run(config(SIX, race=True), tmp_path / "c", "", runner)
    assert rows(found)["avg"].stop is None
    assert [seed for name, seed in runner.trained if name == "avg"] == [0, 1, 2]
    assert any(row.delta.better for row in found.results if row.delta)


def test_a_race_of_equals_trains_everything(tmp_path):
    runner = Planted({})
    found = comparison.run(config(SIX, race=True), tmp_path / "c", "", runner)
    assert len(runner.trained) == 18
    assert not any(row.stop for row in found.results)
    assert any("stopped none of 6 variants" in line for line in found.conclusions)


def test_a_killed_race_ends_as_if_it_were_not_killed(tmp_path):
    """Costs, which are in the journal, make a cheap loser the fourth pilot."""
    costs = dict.fromkeys(("lse", "lp", "topk"), 60.0)
    whole = comparison.run(config(SIX, race=True), tmp_path / "whole", "", Planted(GAINS, costs=costs))
    place, trained = tmp_path / "killed", []
    for survives in (3, 0, 5, 2, 99):
        left = iter([True] * survives + [False])

        def before(trial, left=left):
            if not next(left):
                raise KeyboardInterrupt

        runner = Planted(GAINS, before=before, costs=costs)
        try:
            if place.exists():
                found = comparison.resume(place, runner)
            else:
                found = comparison.run(config(SIX, race=True), place, "", runner)
        except KeyboardInterrupt:
            trained += runner.trained
            continue
        trained += runner.trained
        break
    assert len(set(trained)) == len(trained) == 16
    assert without_clock(found) == without_clock(whole)
    looks = [line for line in map(json.loads, (place / "journal.jsonl").read_text().splitlines()) if "look" in line]
    assert [line["look"] for line in looks] == [1, 2]  # none is taken twice


def test_trials_that_fail_leave_the_race_going(tmp_path):
    failing = (("lp", 0), ("topk", 1), ("max", 0), ("max", 1), ("max", 2))
    runner = Planted(GAINS, failing=failing)
    found = comparison.run(config(f"{SIX},soft", race=True), tmp_path / "c", "", runner)
    states = {name: (row.status, len(row.per_seed), row.stop is not None) for name, row in rows(found).items()}
    assert states["max"] == ("failed", 0, False)
    assert states["lp"] == ("done", 2, False)
    assert states["gem"] == ("done", 1, True)
    assert set(failing) < set(runner.trained)


def test_every_backbone_has_its_own_race(tmp_path):
    gains = {"avg": 0.0, **GAINS}
    found = comparison.run(
        config(SIX, backbones="nano/plain,nano/resnet", race=True), tmp_path / "c", "", Planted(gains)
    )
    stopped = {(row.backbone, row.pool) for row in found.results if row.stop}
    assert stopped == {(backbone, name) for backbone in ("nano/plain", "nano/resnet") for name in GAINS}
    assert sum("The race stopped 2 of 6" in line for line in found.conclusions) == 2


def test_a_race_of_one_seed_is_refused(poolzoo, tmp_path):
    outcome = poolzoo(
        "compare", "--data", "digits", "--pool", "avg,max", "--seeds", 1, "--race", "--out", tmp_path / "c"
    )
    assert outcome.code == 2
    assert "--race needs two seeds" in outcome.err
    assert "hint: add --seeds 3" in outcome.err
    assert not (tmp_path / "c").exists()


def test_a_race_of_frozen_heads_trains_the_seeds_together(tmp_path):
    """Each call of the runner gets the surviving heads of all seeds of a rung, which it may train at once."""
    runner, calls = Planted(GAINS), []

    def noted(config, trials, folder):
        calls.append([(one.variant.name, one.seed) for one in trials])
        return runner(config, trials, folder)

    plain = config(SIX, race=True)
    frozen = replace(plain, settings=replace(plain.settings, freeze="backbone"))
    comparison.run(frozen, tmp_path / "c", "", noted)
    names = SIX.split(",")
    assert calls[0] == [(name, 0) for name in names]
    assert sorted(calls[1]) == sorted((name, seed) for name in set(names) - set(GAINS) for seed in (1, 2))
    assert len(calls) == 2


# --- The bounds ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_looks_and_verdicts_share_alpha(seeds):
    levels = [look_level(0.05, look, seeds) for look in range(1, seeds)]
    assert min(levels) > 0
    assert sum(levels) + verdict_level(0.05, seeds) == pytest.approx(0.05)
    assert 0.025 < verdict_level(0.05, seeds) < 0.05


@pytest.mark.parametrize(("count", "df"), [(6, 6.0), (12, 9.5)])
def test_the_bound_is_that_of_the_largest_difference(count, df):
    """Simulated: the range of as many normal numbers over an independent estimate of their standard deviation."""
    rng, draws = np.random.default_rng(0), 100_000
    sd = 1.0 if np.isinf(df) else np.sqrt(rng.chisquare(df, draws) / df)
    ranges = np.ptp(rng.normal(size=(draws, count)), 1) / sd / sqrt(2)
    assert (ranges > critical_value(0.04, count, df)).mean() == pytest.approx(0.04, abs=4 * sqrt(0.04 / draws))


def test_less_than_one_degree_of_freedom_bounds_nothing():
    assert critical_value(0.05, 12, 0.9) == np.inf


def test_the_standard_error_is_that_of_repeated_experiments():
    """New seeds and new images each time: one variant from a single seed, the other and a third from four."""
    rng, gaps, squares = np.random.default_rng(1), [], []
    for _ in range(300):
        ease, taste = rng.uniform(0.3, 0.9, 400), rng.normal(0, 0.15, (3, 400))
        sd = rng.normal(0, 0.02, (3, 4))
        right = {
            f"v{i}": {s: rng.random(400) < ease + taste[i] + sd[i, s] for s in range(1 if i == 0 else 4)}
            for i in range(3)
        }
        gap = Standings(right).gap("v0", "v1")
        gaps.append(gap.mean)
        squares.append(gap.errors[1][0] ** 2)
    ratio = np.sqrt(np.mean(squares)) / np.std(gaps)
    print(ratio)
    assert 0.9 < ratio < 1.25  # where it errs, it is careful


@pytest.mark.parametrize("classes", [4, 10])  # 1/4 is exact in binary, 1/10 is not
def test_a_loser_that_agrees_with_the_baseline_stops_without_a_difference(classes):
    """Both always give the same class, and the best are always right: no variance from seed to seed."""
    collapsed, perfect = np.arange(300) % classes == 0, np.ones(300, dtype=bool)
    right = {name: dict.fromkeys(range(3), collapsed if name in ("a", "c") else perfect) for name in "abcd"}
    race = Race(list(right), "a", range(3), 0.05)
    replay(right, race)
    assert list(race.stopped) == ["c"]
    delta = race.stopped["c"].delta
    assert (str(delta.mean), delta.low, delta.high, delta.p) == ("0.0", 0.0, 0.0, 1.0)
    assert 0 < race.stopped["c"].stop.low < race.stopped["c"].stop.mean == pytest.approx(1 - 1 / classes)


def test_variants_without_a_second_seed_cannot_be_told_apart():
    rows_of = {name: {0: np.arange(50) < share} for name, share in (("a", 10), ("b", 40))}
    assert Standings(rows_of).gap("a", "b") is None


def test_pilots_are_the_baseline_the_most_accurate_and_cheap_ones():
    right = {
        name: {0: np.arange(100) < share, 1: np.zeros(100, bool)}
        for name, share in zip("abcdef", range(10, 70, 10), strict=True)
    }
    race = Race("abcdef", "a", [0, 1, 2], 0.05)
    assert race.pilots(right, {}) == ["a", "f", "e", "d"]
    costs = {"f": 99.0, "d": 80.0, "c": 39.0, "b": 30.0}  # to a clock, c and b cost the same
    assert race.pilots(right, {name: {0: cost} for name, cost in costs.items()}) == ["a", "f", "e", "c"]
    assert [pilot_count(variants, 3) for variants in (2, 3, 6, 12, 30)] == [2, 2, 4, 4, 4]
    assert [pilot_count(12, seeds) for seeds in (2, 3, 5, 10)] == [7, 4, 3, 2]


def test_a_variant_stops_although_it_is_level_with_the_baseline():
    """It is behind the best. One that is behind the baseline too trains on, until that is certain."""
    rng = np.random.default_rng(3)
    gains = {"base": 0.0, "best": 0.12, "good": 0.11, "fine": 0.11, "same": 0.0, "near": -0.04}
    ease = rng.uniform(0.2, 0.8, 3000)
    right = {
        name: {s: rng.random(3000) < ease + gain + rng.normal(0, 0.001) for s in range(3)}
        for name, gain in gains.items()
    }
    race = Race(list(gains), "base", range(3), 0.05)
    trained = replay(right, race)
    assert not race.stopped["same"].decided
    assert race.stopped["same"].stop.seeds == 1
    assert len(trained["near"]) > 1


# --- How often a race is wrong ------------------------------------------------------------------------------------

WORLDS = {
    "alike": World(images=400),
    "uneven": World(images=400, uneven=0.7),
    "one is noisy": World(images=400, noisy=2.0),
}


@pytest.mark.parametrize(
    ("world", "races"),
    [("one is noisy", 25), *(pytest.param(world, 2000, marks=pytest.mark.slow) for world in WORLDS)],
)
def test_races_of_equals_are_seldom_wrong(world, races):
    found = simulate(WORLDS[world], [0.0] * 8, 3, races)
    print(found)
    assert found.wrong / races <= 0.05 + 3 * sqrt(0.05 * 0.95 / races)


@pytest.mark.slow
def test_a_race_finds_nearly_what_the_whole_comparison_finds():
    found = simulate(World(images=2000), [*[0.0] * 11, 0.04], 3, 200, whole=True)
    print(found)
    assert found.found >= 0.75 * found.found_by_all > 100


def test_a_race_finds_five_points_and_saves_training():
    found = simulate(World(images=1500), [*[0.0] * 7, 0.07], 3, 8)
    assert found.found >= 6
    assert found.trained < found.trials


def test_a_slow_starter_is_stopped_only_by_looks_that_come_early():
    ends = [*[0.0] * 7, 0.03]
    early = simulate(World(images=1500), ends, 3, 8, seen=[*[0.0] * 7, -0.12])
    late = simulate(World(images=1500), ends, 3, 8)
    assert early.last >= 5
    assert late.last == 0


def test_the_normal_bound_of_scipy_is_met():
    assert critical_value(0.05, 2, np.inf) == pytest.approx(stats.norm.isf(0.025), rel=1e-3)
    assert critical_value(0.05, 2, 7.0) == pytest.approx(stats.t.isf(0.025, 7), rel=1e-3)
