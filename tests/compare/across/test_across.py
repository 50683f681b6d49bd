"""Several comparisons together: planted winners come out, chance does not, and bad input is refused in one line."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.planted_comparisons import planted
from support.refusals import refused
from support.submissions import edit_json

from poolzoo.common.errors import UsageError
from poolzoo.compare.across import together

FLAT = {"avg": 0.7, "max": 0.7, "gem": 0.7, "soft": 0.7}
BEST = {**FLAT, "gem": 0.84}
WORST = {**FLAT, "gem": 0.56}
COMMITTED = Path(__file__).parents[3] / "docs" / "results" / "leaderboard.json"


@pytest.fixture
def data_sets(tmp_path):
    """Makes one comparison for each of several data sets, from the chances of its poolings."""

    def make(*chances, **more):
        return [planted(tmp_path / f"c{n}", one, f"data {n}", **more) for n, one in enumerate(chances)]

    return make


def across(paths, baseline=None, resamples=300):
    return together.report(paths, baseline, 0.05, resamples)


def verdicts(group):
    return {row.name: row.verdict for row in group.variants}


# --- Planted answers ------------------------------------------------------------------------------------------------


def test_the_pooling_that_is_better_everywhere_wins(data_sets):
    (group,) = across(data_sets(BEST, BEST, BEST)).groups
    assert verdicts(group) == {"gem": "better", "avg": "baseline", "max": "not significant", "soft": "not significant"}
    first = group.variants[0]
    assert (first.name, first.average_rank, first.better_in, first.worse_in) == ("gem", 1.0, 3, 0)
    assert 0 < first.gain.low < 0.14 < first.gain.high
    assert first.improvement.mean == 1
    assert first.error_ratio.high < 0.8
    assert first.rests_on is None
    assert group.conclusions[0].startswith("Over 3 comparisons on 3 test sets, gem beats avg by ")
    assert "significant in 3 of 3" in group.conclusions[0]


def test_equal_poolings_have_no_winner(data_sets):
    (group,) = across(data_sets(FLAT, FLAT, FLAT)).groups
    assert set(verdicts(group).values()) == {"baseline", "not significant"}
    assert "nothing beats avg" in group.conclusions[0]


def test_an_order_that_turns_between_data_sets_has_no_winner(data_sets):
    (group,) = across(data_sets(BEST, WORST, {**FLAT, "gem": 0.9})).groups
    gem = next(row for row in group.variants if row.name == "gem")
    assert gem.gain.better  # its mean alone would make it the winner
    assert (gem.better_in, gem.worse_in, gem.verdict) == (2, 1, "depends")
    assert "nothing beats avg" in group.conclusions[0]
    assert any(line.startswith("Dependent on the data") and "gem" in line for line in group.conclusions)


def test_a_significant_loss_contradicts_a_mean_that_wins(data_sets):
    """No single gain is significant, the mean is, and one comparison has a significant loss."""
    paths = data_sets(BEST, BEST, BEST)
    for path, deltas in zip(paths, ({}, {}, {"p_adjusted": 0.01, "worse": True}), strict=True):
        shutil.rmtree(path / "trials")
        content = json.loads((path / "compare.json").read_text())
        gem = next(row for row in content["results"] if row["pool"] == "gem")
        gem["delta"] |= {"p_adjusted": 0.2, "better": False, **deltas}
        if deltas:
            for run in gem["per_seed"]:
                run["accuracy"] = 0.6
        (path / "compare.json").write_text(json.dumps(content))
    (group,) = across(paths).groups
    gem = group.variants[0]
    assert gem.gain.better
    assert (gem.name, gem.better_in, gem.worse_in, gem.verdict) == ("gem", 0, 1, "depends")


def test_fewer_seeds_of_a_variant_are_noted(data_sets):
    first, second = data_sets(BEST, BEST)
    content = json.loads((first / "compare.json").read_text())
    for row in content["results"]:
        row["per_seed"] = row["per_seed"][: 2 if row["pool"] == "soft" else 3]
    (first / "compare.json").write_text(json.dumps(content))
    found = across([first, second])
    assert f"{first}: some variants have fewer seeds: soft (2 of 3)" in found.notes
    assert {row.verdict for row in found.groups[0].variants if row.name == "soft"} == {"not significant"}


def test_a_win_that_one_comparison_makes_says_so(data_sets):
    (group,) = across(data_sets(FLAT, {**FLAT, "gem": 0.95}, FLAT)).groups
    assert group.variants[0].verdict == "better"
    assert group.variants[0].rests_on.endswith("c1")
    assert "c1: without it, the mean is not significant" in group.conclusions[0]


def test_a_win_for_other_data_needs_many_test_sets(data_sets):
    paths = data_sets(*[BEST] * 8, images=100)
    (few,), (many,) = across(paths[:3]).groups, across(paths).groups
    assert few.variants[0].verdict == many.variants[0].verdict == "better"
    assert few.variants[0].elsewhere_p == pytest.approx(3 * 2 / 2**3, abs=0.3)
    assert few.conclusions[-1].startswith("All of this is about these 3 test sets. Of other data they can say nothing")
    assert few.conclusions[-1].endswith("It takes 7 test sets.")
    assert many.variants[0].elsewhere_p == pytest.approx(3 * 2 / 2**8)
    assert many.conclusions[-1].endswith("significant are gem above avg.")
    assert few.joined == [(0, 3)]


# --- What is aggregated ---------------------------------------------------------------------------------------------


def test_only_common_poolings_are_ranked_and_others_are_counted(data_sets):
    (group,) = across(data_sets({**FLAT, "lp": 0.7}, {**FLAT, "lse": 0.9}, {**FLAT, "lp": 0.6})).groups
    assert sorted(verdicts(group)) == sorted(FLAT)
    assert dict(group.missing) == {"lp": 1, "lse": 2}
    assert group.comparisons[1].cells["lse"].better


def test_a_comparison_that_shares_nothing_is_left_out(data_sets):
    paths = data_sets(BEST, BEST, {"avg": 0.7, "lse": 0.7})
    found = across(paths)
    (group,) = found.groups
    assert [one.left_out is None for one in group.comparisons] == [True, True, False]
    assert sum(f"{paths[2]} takes no part" in note for note in found.notes) == 1
    assert group.test_sets == 2


def test_heads_and_local_poolings_are_separate_groups(tmp_path):
    paths = [planted(tmp_path / f"{n}{local}", BEST, f"d{n}", local=local) for n in "ab" for local in (False, True)]
    groups = across(paths).groups
    assert [group.title for group in groups] == ["global poolings", "local poolings"]
    assert [group.variants[0].name for group in groups] == ["gem", "avg + gem"]


def test_the_same_images_under_two_names_are_one_test_set(data_sets, tmp_path):
    first, second = data_sets(BEST, BEST)
    renamed = tmp_path / "renamed"
    shutil.copytree(planted(tmp_path / "again", BEST, "data 0", seed=1), renamed)
    content = json.loads((renamed / "compare.json").read_text())
    content["data"]["name"] = "another name"
    (renamed / "compare.json").write_text(json.dumps(content))
    found = across([first, second, renamed])
    (group,) = found.groups
    assert group.test_sets == 2
    assert [one.test_set for one in group.comparisons] == [1, 2, 1]
    assert all(one.images_resampled for one in group.comparisons)
    assert any("share test images" in note for note in found.notes)


def test_other_images_under_one_name_are_not_said_to_be_shared(data_sets):
    first, second = data_sets(BEST, BEST)
    for path in (first, second):
        content = json.loads((path / "compare.json").read_text())
        content["data"].update(name="photos", n_test=-5)
        (path / "compare.json").write_text(json.dumps(content))
    found = across([first, second])
    assert found.groups[0].test_sets == 1
    assert any("have data of the same name, so they count as one test set" in note for note in found.notes)


def test_without_runs_the_reported_intervals_stand_in(data_sets):
    paths = data_sets(BEST, BEST, FLAT)
    (whole,) = across(paths).groups
    for path in paths:
        shutil.rmtree(path / "trials")
    found = across(paths)
    (group,) = found.groups
    assert not any(one.images_resampled for one in group.comparisons)
    assert any("sampling variance is taken from the intervals" in note for note in found.notes)
    for ours, theirs in zip(group.variants, whole.variants, strict=True):
        assert (ours.name, ours.average_rank) == (theirs.name, theirs.average_rank)
        if ours.gain:
            widths = [one.gain.high - one.gain.low for one in (ours, theirs)]
            assert ours.gain.mean == pytest.approx(theirs.gain.mean)
            assert 0.7 < widths[0] / widths[1] < 2  # with the images they err on the wide side


def test_another_baseline_is_tested_from_the_runs(data_sets):
    paths = data_sets(BEST, BEST)
    (group,) = across(paths, "gem").groups
    assert verdicts(group) == {"gem": "baseline", "avg": "worse", "max": "worse", "soft": "worse"}
    assert {row.worse_in for row in group.variants if row.gain} == {2}
    for path in paths:
        shutil.rmtree(path / "trials")
    with pytest.raises(UsageError, match="has intervals over avg, not over gem"):
        across(paths, "gem")


def test_a_baseline_that_means_several_variants_is_refused(data_sets):
    paths = data_sets(BEST, BEST)
    for path, pool in zip(paths, ("max", "gem"), strict=True):
        edit_json(path / "compare.json", lambda found, pool=pool: _row_of(found, pool).update(local_pool="blur"))
    with pytest.raises(UsageError, match=r"'gem' means different variants: gem in .*, gem \+ blur in "):
        across(paths, "gem")


def _row_of(found, pool):
    return next(row for row in found["results"] if row["pool"] == pool)


def test_one_seed_is_shown_and_not_tested(data_sets):
    (group,) = across(data_sets(BEST, BEST, seeds=1)).groups
    assert set(verdicts(group).values()) == {"baseline", "not tested"}
    assert group.variants[0].accuracy == pytest.approx(0.84, abs=0.05)
    assert any(line.startswith("Not tested") for line in group.conclusions)


# --- The command ----------------------------------------------------------------------------------------------------


def test_the_command_writes_a_page_and_its_tables(poolzoo, data_sets, tmp_path):
    paths = data_sets(BEST, BEST)
    outcome = poolzoo("report", *paths, "--out", tmp_path / "r")
    assert outcome.code == 0
    assert outcome.err == ""
    lines = outcome.out.splitlines()
    assert lines[0] == "global poolings, over avg"
    assert lines[2].split("\t")[0] == "gem"
    assert lines[2].split("\t")[-1] == "better"
    assert lines[-1] == str(tmp_path / "r" / "report.html")
    assert sorted(path.name for path in (tmp_path / "r").iterdir()) == ["across.csv", "across.json", "report.html"]
    kept = json.loads((tmp_path / "r" / "across.json").read_text())
    printed = poolzoo("report", *paths, "--out", tmp_path / "s", "--json").json
    assert printed["groups"] == kept["groups"]
    with (tmp_path / "r" / "across.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["variant"] for row in rows] == [row["name"] for row in kept["groups"][0]["variants"]]
    assert float(rows[0]["gain_mean"]) == kept["groups"][0]["variants"][0]["gain"]["mean"]


def test_the_committed_leaderboard_is_read(tmp_path):
    found = together.report([COMMITTED], None, 0.05, resamples=20)
    assert [(group.title, len(group.aggregated), group.test_sets) for group in found.groups] == [
        ("global poolings", 4, 2),
        ("local poolings", 2, 2),
    ]
    assert sum("takes no part" in note for note in found.notes) == 2


def test_files_that_use_one_name_twice_are_distinguished(data_sets, tmp_path):
    paths = data_sets(BEST, FLAT)
    for number, path in enumerate(paths):
        content = json.loads((path / "compare.json").read_text())
        for run in (run for row in content["results"] for run in row["per_seed"]):
            run["run"] = None
        (tmp_path / f"{number}.json").write_text(json.dumps({"digits": content}))
    (group,) = across([tmp_path / "0.json", tmp_path / "1.json"]).groups
    assert [one.name for one in group.comparisons] == ["digits", f"{tmp_path / '1.json'}: digits"]
    assert group.comparisons[0].cells["gem"].gain > 0.08 > group.comparisons[1].cells["gem"].gain


@pytest.mark.slow
def test_the_published_section_is_what_the_leaderboard_says():
    page = (COMMITTED.parent / "leaderboard.md").read_text(encoding="utf-8")
    section = re.search(r"^## Over all comparisons\n(.*?)^## ", page, re.DOTALL | re.MULTILINE)[1]
    for group in together.report([COMMITTED], None, 0.05).groups:
        assert " ".join(group.conclusions) in section
        for row in group.variants:
            assert row.gain is None or f"| {100 * row.gain.mean:+.2f} ({100 * row.gain.low:+.2f} to " in section


# --- What is refused ------------------------------------------------------------------------------------------------


def test_one_comparison_is_not_enough(poolzoo, data_sets, tmp_path):
    refused(poolzoo("report", *data_sets(BEST), "--out", tmp_path / "r"), 2, "is one comparison, two are needed")


def test_runs_and_comparisons_are_not_mixed(poolzoo, data_sets, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    hint = refused(poolzoo("report", *data_sets(BEST), run, "--out", tmp_path / "r"), 2, run, "comparison")
    assert "runs alone, or comparisons alone" in hint


def test_a_comparison_given_twice_is_refused(poolzoo, data_sets, tmp_path):
    (path,) = data_sets(BEST)
    copy = shutil.copytree(path, tmp_path / "copy")
    refused(poolzoo("report", path, copy, "--out", tmp_path / "r"), 2, path, copy, "the same comparison")


def test_different_baselines_need_a_choice(poolzoo, tmp_path):
    paths = [planted(tmp_path / name, BEST, name, baseline=name) for name in ("avg", "max")]
    hint = refused(poolzoo("report", *paths, "--out", tmp_path / "r"), 2, "different baselines")
    assert "--baseline" in hint
    assert poolzoo("report", *paths, "--baseline", "avg", "--out", tmp_path / "r").code == 0
    refused(poolzoo("report", *paths, "--baseline", "lse", "--out", tmp_path / "s"), 2, "'lse'", paths[0])


def test_comparisons_without_a_common_pooling_are_refused(poolzoo, data_sets, tmp_path):
    paths = data_sets({"avg": 0.7, "max": 0.7}, {"avg": 0.7, "gem": 0.7})
    refused(poolzoo("report", *paths, "--out", tmp_path / "r"), 2, *paths, "no variant beside avg")


def test_a_head_and_a_local_pooling_are_not_compared(poolzoo, tmp_path):
    paths = [planted(tmp_path / f"{local}", BEST, f"d{local}", local=local) for local in (False, True)]
    refused(poolzoo("report", *paths, "--out", tmp_path / "r"), 2, "no two comparisons vary the same")


@pytest.mark.parametrize(
    ("change", "message"),
    [({"accuracy": 1.7}, "an accuracy of 1.7"), ({"accuracy": None}, "lacks the accuracies of single seeds")],
)
def test_an_accuracy_that_cannot_be_is_refused(poolzoo, data_sets, tmp_path, change, message):
    good, bad = data_sets(BEST, BEST)
    content = json.loads((bad / "compare.json").read_text())
    content["results"][0]["per_seed"][0] |= change
    (bad / "compare.json").write_text(json.dumps(content))
    refused(poolzoo("report", good, bad, "--out", tmp_path / "r"), 1, bad, message)


@pytest.mark.parametrize("content", ["{", "[]", '{"a": 1}', '{"results": []}'])
def test_a_damaged_comparison_is_refused(poolzoo, data_sets, tmp_path, content):
    good, bad = data_sets(BEST, BEST)
    (bad / "compare.json").write_text(content)
    refused(poolzoo("report", good, bad, "--out", tmp_path / "r"), 1, bad)
    assert not (tmp_path / "r").exists()


def test_an_unfinished_comparison_says_how_to_finish_it(poolzoo, data_sets, tmp_path):
    good, bad = data_sets(BEST, BEST)
    (bad / "compare.json").rename(bad / "plan.json")
    hint = refused(poolzoo("report", good, bad, "--out", tmp_path / "r"), 2, bad, "is not finished")
    assert hint == f"hint: poolzoo compare --resume {bad}"


def test_a_run_that_changed_since_is_refused(poolzoo, data_sets, tmp_path):
    good, bad = data_sets(BEST, BEST)
    run = bad / "trials" / "gem-0"
    with np.load(run / "predictions.npz") as stored:
        np.savez(run / "predictions.npz", predicted=stored["labels"], labels=stored["labels"])
    refused(poolzoo("report", good, bad, "--out", tmp_path / "r"), 1, run, "another accuracy")
