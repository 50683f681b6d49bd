"""What a planned comparison can show: the prediction beside finished comparisons, and where its variances come from."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from poolzoo.compare import resolution, statistics
from poolzoo.compare.resolution import Design, VarianceComponents

Rows = dict[int, np.ndarray]


def simulated(
    rng: np.random.Generator, variants: int, seeds: int, images: int, seed_sd: float, image_sd: float
) -> dict[str, Rows]:
    """Which images each trial has right: a chance for each variant and image, moved by every seed."""
    easy = rng.choice([0.5, 0.9], size=images, p=[0.2, 0.8])
    right: dict[str, Rows] = {}
    for number in range(variants):
        chance = easy + rng.normal(0, image_sd, images)
        right[f"v{number:02d}"] = {s: rng.random(images) < chance + rng.normal(0, seed_sd) for s in range(seeds)}
    return right


# --- The prediction -----------------------------------------------------------------------------------------------


def test_the_prediction_for_a_table_is_what_its_statistics_say() -> None:
    for seeds, seed_sd, image_sd in ((2, 0.05, 0.2), (3, 0.04, 0.2), (9, 0.03, 0.3)):
        right = simulated(np.random.default_rng(seeds), 2, seeds, 500, seed_sd, image_sd)
        found = resolution.components(right, "v00")
        predicted = Design(500, 2, 0.05).detectable(found, seeds)
        assert predicted == pytest.approx(statistics.compare(right, "v00", resamples=99).detectable, rel=1e-9)


@pytest.mark.parametrize(
    ("pilot", "planned", "images", "sd"),
    [
        ((3, 2), (8, 5), 1000, (0.01, 0.2)),
        ((6, 3), (6, 3), 2000, (0.01, 0.2)),
        ((4, 3), (12, 6), 400, (0.03, 0.1)),
        ((3, 2), (3, 3), 1000, (0.002, 0.3)),
    ],
)
def test_predictions_agree_with_what_later_comparisons_end_with(pilot, planned, images, sd) -> None:
    """Over twelve pairs of pilot and comparison, the median is within a third and each one within a factor of three."""
    rng = np.random.default_rng(7)
    ratios = []
    for _ in range(12):
        found = resolution.components(simulated(rng, *pilot, images, *sd), "v00")
        predicted = Design(images, planned[0], 0.05).detectable(found, planned[1])
        right = simulated(rng, *planned, images, *sd)
        ratios.append(predicted / statistics.compare(right, "v00", resamples=50).detectable)
    assert 0.75 < np.median(ratios) < 1.33, ratios
    assert min(ratios) > 1 / 3
    assert max(ratios) < 3


def test_a_difference_of_the_predicted_size_is_found_as_often_as_the_power_says() -> None:
    rng = np.random.default_rng(3)
    found = resolution.pooled(
        [resolution.components(simulated(rng, 6, 6, 400, 0.02, 0.1), "v00") for _ in range(8)]  # type: ignore[misc]
    )
    gap = Design(400, 2, 0.05).detectable(found, 5)
    better = 0
    for _ in range(120):
        right = simulated(rng, 2, 5, 400, 0.02, 0.1)
        shift = rng.normal(0, 0, 1)[0] + gap
        right["v01"] = {s: row | (rng.random(400) < shift / (~row).mean()) for s, row in right["v01"].items()}
        delta = statistics.compare(right, "v00", resamples=399).variants["v01"].delta
        better += delta is not None and delta.better
    assert 0.65 < better / 120 < 0.95


def test_more_seeds_help_until_the_images_bound_them() -> None:
    found = VarianceComponents(seed=1e-4, image=0.05, residual=0.1, images=360, df=10.0)
    design = Design(360, 4, 0.05)
    shown = [design.detectable(found, seeds) for seeds in (2, 3, 5, 10, 100, 10_000)]
    assert shown == sorted(shown, reverse=True)
    assert shown[-1] == pytest.approx(design.bound(found), rel=0.01)
    seeds = design.seeds(found, 0.06, 50)
    assert seeds is not None
    assert design.detectable(found, seeds) <= 0.06 < design.detectable(found, seeds - 1)
    assert design.seeds(found, 0.02, 1000) is None
    images = design.images_for(found, 0.02, 20)
    assert images is not None
    assert replace(design, images=images).detectable(found, 20) <= 0.02
    assert replace(design, images=round(0.85 * images)).detectable(found, 20) > 0.02
    assert design.images_for(replace(found, seed=0.01), 0.02, 3) is None  # seed variance alone is more


def test_the_range_narrows_as_degrees_of_freedom_grow() -> None:
    few = VarianceComponents(seed=1e-4, image=0.01, residual=0.02, images=1000, df=2.0)
    low, high = few.range
    assert low.seed < few.seed < high.seed
    assert (low.image, low.residual) == (few.image, few.residual)
    many = replace(few, df=100.0).range
    assert many[1].seed - many[0].seed < 0.2 * (high.seed - low.seed)


# --- Where the variances come from --------------------------------------------------------------------------------

TRAINED = ("--data", "digits", "--limit", 200, "--backbone", "nano/resnet", "--freeze", "backbone", "--pretrained")
MORE = ("--epochs", 1, "--threads", 1)
FAST = ("--robustness-samples", 0, "--export-top", 0)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache directory without earlier comparisons."""
    monkeypatch.setenv("POOLZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def dry_run(poolzoo, *more: object) -> dict:
    return poolzoo("compare", *TRAINED, *MORE, "--pool", "avg,max", *more, "--dry-run", "--json").json["resolutions"][0]


def test_without_earlier_comparisons_a_range_is_assumed(poolzoo, cache) -> None:
    found = dry_run(poolzoo, "--seeds", 3)
    assert found["evidence"]["source"] == "assumption"
    assert found["likely"] is None
    assert 0 < found["low"] < found["high"] < 1
    assert found["images"] == 200
    outcome = poolzoo("compare", *TRAINED, *MORE, "--pool", "avg,max", "--seeds", 1, "--dry-run")
    assert "1 seed gives no p-value" in outcome.out


def test_a_finished_comparison_predicts_the_next_one(poolzoo, cache, tmp_path) -> None:
    made = poolzoo("compare", *TRAINED, *MORE, *FAST, "--pool", "avg,max", "--seeds", 3, "--out", tmp_path / "c")
    found = dry_run(poolzoo, "--seeds", 3, "--resolution", 5)
    (used,) = found["evidence"]["comparisons"]
    assert used["path"] == str(tmp_path / "c")
    assert found["evidence"]["differences"] == "the same test images, backbone and settings"
    assert f"a true difference of {100 * found['likely']:.2f} points" in made.out  # what it ended with itself
    other = dry_run(poolzoo, "--epochs", 2)
    assert other["evidence"]["differences"] == "other epochs"
    scratch = poolzoo("compare", *TRAINED[:6], *MORE, "--pool", "avg,max", "--dry-run", "--json").json
    assert scratch["resolutions"][0]["evidence"]["source"] == "assumption"  # from scratch, other variances
    (kept,) = (cache / "variances").iterdir()
    kept.write_text(kept.read_text()[:-40])
    assert dry_run(poolzoo)["evidence"]["source"] == "assumption"  # a damaged file says nothing


def test_a_wanted_resolution_trains_a_pilot_and_chooses_the_seeds(poolzoo, cache, tmp_path) -> None:
    arguments = ("compare", *TRAINED, *MORE, *FAST, "--pool", "avg,max")
    outcome = poolzoo(*arguments, "--resolution", 30, "--seeds-max", 4, "--out", tmp_path / "c", "--json")
    assert "the pilot trains avg, max from 2 seeds" in outcome.err
    said = re.search(r"--resolution 30: (\d) seeds", outcome.err)
    assert said is not None
    assert outcome.json["seeds"] == list(range(int(said[1])))
    assert not list(tmp_path.glob("**/*seed1000000*"))
    plan = json.loads((tmp_path / "c" / "plan.json").read_text())
    assert plan["seeds"] == int(said[1]) <= 4


def test_a_resolution_beyond_the_images_says_how_many_are_needed(poolzoo, cache) -> None:
    outcome = poolzoo("compare", *TRAINED, *MORE, "--pool", "avg,max", "--resolution", 0.1, "--dry-run")
    assert outcome.code == 0
    assert "needs more" in outcome.out
    assert "test images" in outcome.out.splitlines()[-1]


def test_contradicting_options_are_one_line_and_a_hint(poolzoo, cache) -> None:
    for arguments in (
        ("--resolution", 1, "--seeds", 3),
        ("--pilot",),
        ("--resolution", 1, "--pool", "avg"),
        ("--resume", "x", "--resolution", 1),
    ):
        outcome = poolzoo("compare", *TRAINED, *MORE, "--pool", "avg,max", *arguments)
        assert outcome.code == 2, arguments
        assert len([line for line in outcome.err.splitlines() if line.startswith(("error", "hint"))]) == 2
