"""Weights that were trained on the validation images: they make figures too good, and `finetune` says so."""

from __future__ import annotations

import numpy as np
import pytest

from poolzoo.data import digest_sketch

PLUGIN = """
import numpy as np
import poolzoo

def seen(wanted):
    from poolzoo.data.digest_sketch import sketch
    from poolzoo.data.image_facts import Facts
    from poolzoo.datasets import digits
    from poolzoo.train.validation import split_validation

    images, labels = digits.load("train")
    parts = split_validation(labels, 0)
    rows = {"others": parts.train_indices, "all": np.arange(len(labels)), "none": []}[wanted]
    return sketch(Facts.of(images).digests[rows])

@poolzoo.hookimpl
def poolzoo_backbones():
    build = "poolzoo.backbones.nano:plain"
    yield poolzoo.Backbone(name="seen", summary="", build=build, trained_on="digits", trained_digests=lambda: SAMPLE)
"""


@pytest.fixture
def dry_run(poolzoo, tmp_path):
    """Prepares a run from weights with such a sample of the images that they were trained on."""

    def start(sample, *options):
        (tmp_path / "seen.py").write_text(PLUGIN.replace("SAMPLE", sample))
        arguments = ("finetune", "--plugin", tmp_path / "seen.py", "--backbone", "seen", "--data", "digits")
        return poolzoo(*arguments, "--dry-run", *options)

    return start


@pytest.mark.parametrize("seen", [0, 700, 5000])
def test_a_sample_estimates_how_many_images_are_among_those_it_is_of(seen):
    digests = np.random.default_rng(0).integers(0, 256, (50_000, 8), np.uint8)
    sample = digest_sketch.sketch(digests[:45_000])
    found = digest_sketch.overlap(sample, digests[45_000 - seen : 50_000 - seen])
    assert sample.nbytes == 2048 * 8
    assert found.judged == pytest.approx(5000 * 2048 / 45_000, abs=50)  # more than three standard deviations
    assert found.share == pytest.approx(seen / 5000, abs=0.08)


def test_a_sample_of_few_images_is_all_of_them():
    digests = np.random.default_rng(0).integers(0, 256, (30, 8), np.uint8)
    sample = digest_sketch.sketch(np.concatenate([digests[:20], digests[:5]]))
    assert sorted(map(bytes, sample)) == sorted(map(bytes, digests[:20]))
    assert digest_sketch.overlap(sample, digests).found == 20
    assert digest_sketch.overlap(sample[:0], digests) == (0, 0)
    assert digest_sketch.Overlap(0, 0).share == 0


@pytest.mark.parametrize(
    ("seen", "seed", "words"),
    [
        ("others", 1, "(hint: --split-seed 0 holds out images that it was not trained on)"),
        ("all", 1, "about 100 % of the validation images"),
        ("all", 1, "(hint: only the test images judge this network)"),
        ("none", 1, "If these are the same images, it has seen the validation images"),
    ],
)
def test_validation_images_that_were_trained_on_are_said(dry_run, seen, seed, words):
    assert words in dry_run(f"seen({seen!r})", "--pretrained", "--seed", seed).err


def test_validation_images_that_were_not_trained_on_are_not_said(dry_run):
    assert "trained on" not in dry_run("seen('others')", "--pretrained", "--seed", 1, "--split-seed", 0).err
    assert "trained on" not in dry_run("seen('others')", "--seed", 1).err  # from scratch


@pytest.mark.parametrize(
    ("sample", "words"),
    [("1 / 0", "division by zero"), ("np.zeros((3, 4))", "float64[3, 4]"), ("None", "object[]")],
)
def test_a_plugin_with_no_such_sample_is_named(dry_run, sample, words):
    outcome = dry_run(sample, "--pretrained")
    assert outcome.code == 1
    assert "trained_digests of seen" in outcome.err
    assert words in outcome.err


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--freeze", "backbone"), ("--time-budget", "60s"), ("--dry-run",)])
def test_comparison_says_it_once(poolzoo, tmp_path, options):
    (tmp_path / "seen.py").write_text(PLUGIN.replace("SAMPLE", "seen('all')"))
    arguments = ("compare", "--plugin", tmp_path / "seen.py", "--backbone", "seen", "--pretrained", "--data", "digits")
    more = ("--pool", "avg,max", "--seeds", 2, "--epochs", 1, "--limit", 200, "--out", tmp_path / "c")
    outcome = poolzoo(*arguments, *more, "--export-top", 0, "--robustness-samples", 0, *options)
    assert outcome.code == 0, outcome.err
    assert outcome.err.count("that seen was trained on") == 1, outcome.err
