"""`poolzoo choose`: planted answers come out, chance is called chance, and what it prints runs."""

from __future__ import annotations

import itertools
import json
import shlex
import signal
from pathlib import Path

import numpy as np
import pytest
from support import processes
from support.choices import Truth, finished
from support.command_lines import parse
from support.pixels import PIXELS

from poolzoo.common.errors import UsageError
from poolzoo.compare.choosing import budget, words
from poolzoo.compare.choosing.between import Between, Contender, between
from poolzoo.compare.choosing.candidates import Candidates, planned
from poolzoo.compare.choosing.plan import FROZEN, SCRATCH, Plan, Planned, Request
from poolzoo.compare.cost import StepTimes, Workload
from poolzoo.train.settings import Settings

ALL_EQUAL = {"avg": Truth(0.8, 0.80), "max": Truth(0.8, 0.82), "gem": Truth(0.8, 0.79)}
ONE_BETTER = {"avg": Truth(0.70, 0.70), "max": Truth(0.71, 0.74), "gem": Truth(0.80, 0.79)}


def said(comparisons) -> list[str]:
    found = compared(comparisons)
    first = found.order[0]
    return words.sentences(first, first.comparison.baseline, found)


def compared(comparisons) -> Between:
    return between([Contender(one, one.candidates[0]) for one in comparisons], 0.05 / 3)


# --- Planted answers ----------------------------------------------------------------------------------------------


def test_the_better_pooling_is_recommended_with_its_interval(tmp_path) -> None:
    one = finished(tmp_path, ONE_BETTER)
    chosen = one.candidates[0]
    assert chosen.variant.pool == "gem"
    assert chosen.delta is not None
    assert chosen.delta.low < 0.10 < chosen.delta.high  # the truth
    assert chosen.delta.low > 0
    first, second, third = said([one])
    assert first.startswith("Use gem on nano/resnet frozen")
    assert "beats avg by +" in first
    assert f"({100 * chosen.delta.low:+.2f} to {100 * chosen.delta.high:+.2f})" in first
    assert "Only" in second
    assert "latency" in third


def test_where_all_are_equal_the_baseline_is_kept() -> None:
    """The family-wise error is that of the comparison: a wrong recommendation in at most a twentieth of the cases."""
    import tempfile

    wrong = 0
    for random in range(20):
        with tempfile.TemporaryDirectory() as folder:
            one = finished(Path(folder), ALL_EQUAL, random=random, images=150)
            wrong += one.candidates[0].variant.pool != "avg"
            if one.candidates[0].variant.pool == "avg":
                first, *_ = said([one])
                assert "nothing beats it beyond chance" in first
                assert "is within the chance of 3 seeds and 150 test images" in first
    assert wrong <= 4  # of 20, at level 0.05: more has a probability of 0.3 %


def test_validation_chooses_among_several_that_are_better(tmp_path) -> None:
    truths = {"avg": Truth(0.6, 0.6), "max": Truth(0.80, 0.85), "gem": Truth(0.82, 0.80), "min": Truth(0.4, 0.99)}
    one = finished(tmp_path, truths)
    assert [each.variant.pool for each in one.candidates] == ["max", "gem", "avg"]  # min is worse, and none


def test_the_regimes_are_compared_with_each_other(tmp_path) -> None:
    frozen = finished(tmp_path, ONE_BETTER)
    scratch = finished(tmp_path, {"avg": Truth(0.9, 0.9), "max": Truth(0.9, 0.9)}, regime=SCRATCH)
    found = compared([frozen, scratch])
    assert [one.candidate.regime for one in found.order] == [SCRATCH, FROZEN]
    assert [one.comparison for one in found.tied] == [scratch]
    delta = found.behind[frozen.planned.title]
    assert delta.better
    assert delta.low < 0.1 < delta.high
    _, second, _ = said([frozen, scratch])
    assert second.startswith("In this budget it beats nano/resnet frozen")


def test_among_regimes_that_do_not_differ_the_cheapest_comes_first(tmp_path) -> None:
    frozen = finished(tmp_path, ALL_EQUAL, macs=500)
    scratch = finished(tmp_path, {"avg": Truth(0.802, 0.8)}, regime=SCRATCH, macs=600, random=1)
    found = compared([frozen, scratch])
    assert [one.candidate.regime for one in found.tied] == [FROZEN, SCRATCH]
    cheapest = found.tied[0]
    _, second, _ = words.sentences(cheapest, cheapest.comparison.baseline, found)
    assert "beyond chance" in second
    assert "beats" not in second


def test_one_seed_claims_nothing(tmp_path) -> None:
    one = finished(tmp_path, ONE_BETTER, seeds=1)
    assert one.candidates[0].variant.pool == "avg"
    assert one.detectable is None
    first, *_ = said([one])
    assert "one seed cannot tell more" in first


def test_the_printed_command_has_every_setting_that_was_typed(tmp_path) -> None:
    one = finished(tmp_path, ONE_BETTER, image_size=32, test_fraction=0.2, data="folder:/my photos", limit=300)
    command = words.train_command(one, one.candidates[0], tmp_path / "out")
    assert shlex.split(shlex.join(command)) == command
    parse(command[1:])
    options = dict(itertools.pairwise(command))
    assert options["--data"] == "folder:/my photos"
    assert options["--image-size"] == "32"
    assert options["--test-fraction"] == "0.2"
    assert options["--freeze"] == "backbone"
    assert "--pretrained" in command
    assert "--epochs" not in command
    assert "--limit" not in command
    parse(words.export_command(one, tmp_path / "out", "opencv")[1:])


# --- What is compared, for how long -------------------------------------------------------------------------------


def test_candidates_are_those_that_are_named() -> None:
    found, not_tried = planned(Candidates("gem,avg", "blur", "nano/plain"), Settings(), 2, 0.05)
    assert [(one.regime, one.backbone) for one in found] == [(FROZEN, "nano/plain"), (SCRATCH, "nano/plain")]
    assert [one.name for one in found[0].config.variants] == ["gem", "avg"]
    assert [one.name for one in found[1].config.variants] == ["gem", "avg", "gem + blur", "avg + blur"]
    assert found[1].config.baseline_variant.name == "avg"
    assert any("Fine-tuning" in line for line in not_tried)
    with pytest.raises(UsageError):
        planned(Candidates("gemm"), Settings(), 2, 0.05)
    with pytest.raises(UsageError):
        planned(Candidates(backbones="nano/none"), Settings(), 2, 0.05)


def loads(seconds_an_image: float, train: int = 9000, test: int = 1000) -> list[budget.Load]:
    every, _ = planned(Candidates("avg,gem", None, "nano/resnet"), Settings(), 3, 0.05)
    work = Workload(train=train, val=train // 10, test=test, epochs=1)
    frozen = StepTimes(train=seconds_an_image / 100, forward=seconds_an_image / 200, backbone=seconds_an_image / 3)
    scratch = StepTimes(train=seconds_an_image, forward=seconds_an_image / 3)
    return [
        budget.Load(one, work, [times] * 2, preparing=0.5) for one, times in zip(every, (frozen, scratch), strict=True)
    ]


def test_more_time_gives_more_images_and_then_longer_trainings() -> None:
    fits = [budget.fit(loads(0.001), seconds) for seconds in (40, 120, 300, 3000)]
    images = [one.limit or 10**6 for one in fits]
    assert images == sorted(images)
    assert images[0] < images[-1] == 10**6
    assert fits[2].epochs[1] < fits[3].epochs[1]
    for one, seconds in zip(fits, (40, 120, 300, 3000), strict=True):
        total = sum(load.seconds(one.limit, count) for load, count in zip(loads(0.001), one.epochs, strict=True))
        assert total <= seconds
        assert all(count <= load.most_epochs for load, count in zip(loads(0.001), one.epochs, strict=True))


def test_a_time_too_short_for_one_pass_names_the_least() -> None:
    with pytest.raises(UsageError, match="one pass of 12 trainings over 200 images") as error:
        budget.fit(loads(0.01), 10)
    least = error.value.hint.split()[1].rstrip(",")
    from poolzoo.train.step_plan import parse_duration

    assert budget.fit(loads(0.01), parse_duration(least)).epochs


def test_a_plan_is_read_as_it_was_written(tmp_path) -> None:
    every, not_tried = planned(Candidates(), Settings(data="digits"), 3, 0.02)
    plan = Plan(Request(300.0, "opencv", 2.5, 0.05), every, not_tried, "poolzoo choose")
    plan.save(tmp_path)
    assert Plan.load(tmp_path) == plan
    assert isinstance(plan.comparisons[0], Planned)


# --- The command --------------------------------------------------------------------------------------------------


def test_what_cannot_be_chosen_is_one_line_and_a_hint(poolzoo, tmp_path) -> None:
    for arguments in (
        ("--data", "digits", "--pool", "avgg"),
        ("--data", "digits", "--backbone", "nano/none"),
        ("--data", "digits", "--target", "none"),
        ("--data", "digits", "--time-budget", "soon"),
        ("--data", "digits", "--task", "multilabel"),
        ("--resume", tmp_path),
        ("--resume", tmp_path, "--seeds", 2),
    ):
        outcome = poolzoo("choose", *arguments, "--out", tmp_path / "c")
        assert outcome.code == 2, arguments
        assert len(outcome.err.splitlines()) == 2, outcome.err
    assert not (tmp_path / "c").exists()


@pytest.fixture
def specks(tmp_path: Path) -> tuple[object, ...]:
    """Arguments for images in two classes that only the maximum tells apart, and a backbone that gives the image."""
    from PIL import Image

    random = np.random.default_rng(0)
    for split, count in (("train", 60), ("test", 40)):
        for label in (0, 1):
            place = tmp_path / "specks" / split / f"class{label}"
            place.mkdir(parents=True)
            for index in range(count):
                pixels = np.full(64, 60.0)
                chosen, few = random.permutation(64), random.integers(1, 4)
                pixels[chosen[: 8 * few if label == 0 else few]] += 20 if label == 0 else 160
                image = np.repeat((pixels.reshape(8, 8, 1) + random.normal(0, 3, (8, 8, 1))), 3, 2)
                Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(place / f"{index}.png")
    (tmp_path / "pixels.py").write_text(PIXELS)
    data = ("--data", f"folder:{tmp_path / 'specks'}", "--plugin", tmp_path / "pixels.py", "--backbone", "pixels")
    return (*data, "--threads", 1, "--epochs", 5, "--time-budget", "30m")


@pytest.mark.slow
def test_what_it_prints_trains_and_exports(poolzoo, specks, tmp_path) -> None:
    outcome = poolzoo("choose", *specks, "--pool", "avg,max", "--seeds", 3, "--out", tmp_path / "c", "--json")
    assert outcome.code == 0
    found = outcome.json
    assert found["recommended"]["pool"] == "max"
    assert found["recommended"]["delta"]["better"]
    assert found["recommended"]["latency_ms"] > 0
    assert found["baseline"]["latency_ms"] > 0
    assert found == {**json.loads((tmp_path / "c" / "choice.json").read_text())}
    assert "Use max on pixels" in (tmp_path / "c" / "choice.html").read_text()
    assert {one["regime"] for one in found["comparisons"]} == {FROZEN, SCRATCH}
    assert poolzoo(*shlex.split(found["train"])[1:], "--epochs", 1).code == 0
    assert poolzoo(*shlex.split(found["export"])[1:], "--no-bench").code == 0
    assert (tmp_path / "c" / "bundle" / "model.onnx").is_file()


@pytest.mark.slow
def test_an_interrupted_choice_resumes_to_the_same_answer(poolzoo, specks, tmp_path) -> None:
    arguments = ("choose", *specks, "--pool", "avg,max", "--seeds", 2)
    whole = poolzoo(*arguments, "--out", tmp_path / "whole", "--json").json
    process = processes.start(tmp_path, *arguments, "--out", tmp_path / "cut", before=_interrupted_in_the_second)
    outcome = process.wait()
    assert outcome.code == 130
    assert f"poolzoo choose --resume {tmp_path / 'cut'} continues it" in outcome.err
    resumed = poolzoo("choose", "--resume", tmp_path / "cut", "--json").json
    for found in (whole, resumed):
        for one in (found["recommended"], found["baseline"], *(row["best"] for row in found["comparisons"])):
            one.pop("latency_ms")
    assert resumed["recommended"] == whole["recommended"]
    assert resumed["between"] == whole["between"]


def _interrupted_in_the_second(events: object) -> None:
    from poolzoo.compare.records import TrialRecords

    added = TrialRecords.add

    def add(self, record):
        added(self, record)
        if len(self.trials) == 2:
            signal.raise_signal(signal.SIGINT)

    TrialRecords.add = add


ANTIALIASED = """
from poolzoo import Pooling, hookimpl


def build(channels: int):
    import torch
    from torch import nn

    class Maximum(nn.Module):
        def forward(self, x):
            reduced = nn.functional.interpolate(x, size=(4, 4), mode="bilinear", antialias=True)
            return x.amax((2, 3)) + 0.0 * reduced.mean((2, 3))

    return Maximum()


@hookimpl
def poolzoo_poolings():
    yield Pooling(name="reduced-max", summary="", kind="global", build=build)
"""


@pytest.mark.slow
def test_a_pooling_that_the_target_gets_wrong_is_passed_over(poolzoo, specks, tmp_path) -> None:
    (tmp_path / "reduced.py").write_text(ANTIALIASED)
    arguments = ("choose", *specks, "--plugin", tmp_path / "reduced.py", "--pool", "avg,reduced-max", "--seeds", 3)
    outcome = poolzoo(*arguments, "--target", "opencv", "--out", tmp_path / "c", "--json")
    assert outcome.code == 0, outcome.err
    assert {one["pool"] for one in outcome.json["refused"]} == {"reduced-max"}
    assert all("antialias" in one["refusal"] for one in outcome.json["refused"])
    assert outcome.json["recommended"]["pool"] == "avg"
    assert outcome.json["export"].endswith("--target opencv")


@pytest.mark.slow
def test_limits_that_nothing_fulfills_are_named(poolzoo, specks, tmp_path) -> None:
    arguments = ("choose", *specks, "--pool", "avg,max", "--seeds", 2, "--max-latency", 1e-6)
    outcome = poolzoo(*arguments, "--out", tmp_path / "c")
    assert outcome.code == 1
    assert "--max-latency is 1e-06" in outcome.err.splitlines()[-2]
