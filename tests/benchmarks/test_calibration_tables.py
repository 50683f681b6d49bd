"""The tables of the calibration benchmarks, on planted logits whose true probabilities are known."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import scipy.stats

from benchmarks.export import calibration_families, calibration_maps
from poolzoo.artifacts import samples

FAMILIES = {family.name: family for family in calibration_families.FAMILIES}


def drawn(logits, generator):
    """A label of each image from the softmax of its logits."""
    chances = scipy.special.softmax(logits, axis=1).cumsum(1)
    return (generator.random((len(logits), 1)) > chances[:, :-1]).sum(1)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_starts_at_the_probabilities_as_they_are(name):
    family = FAMILIES[name]
    logits = np.random.default_rng(0).normal(0, 2, (400, 6))
    found = scipy.special.softmax(family.map(logits, np.array(family.start)), axis=1)
    np.testing.assert_allclose(found, scipy.special.softmax(logits, axis=1), atol=3e-3)


def with_top(chances, top):
    """Probabilities whose largest one is another; the rest keeps its shares."""
    rows, best = np.arange(len(chances)), chances.argmax(1)
    others = chances.copy()
    others[rows, best] = 0
    others *= ((1 - top) / others.sum(1))[:, None]
    others[rows, best] = top
    return others


def by_odds(chances):
    return with_top(chances, scipy.special.expit(0.5 * scipy.special.logit(chances.max(1)) - 0.3))


def by_beta(chances):
    top = chances.max(1)
    return with_top(chances, scipy.special.expit(2.0 * np.log(top) - 0.5 * np.log(1 - top) - 0.8))


def by_entropy(chances):
    share = scipy.stats.entropy(chances, axis=1) / np.log(chances.shape[1])
    raised = chances ** np.exp(0.5 - 1.5 * share)[:, None]
    return raised / raised.sum(1, keepdims=True)


@pytest.mark.parametrize(
    ("name", "truth"),
    [("Platt, top class", by_odds), ("beta, top class", by_beta), ("temperature by entropy", by_entropy)],
)
def test_a_planted_member_of_a_family_is_found(name, truth):
    generator = np.random.default_rng(1)
    logits = generator.normal(0, 1.5, (3000, 5)) * generator.uniform(0.5, 2, (3000, 1))
    plain = scipy.special.softmax(logits, axis=1)
    wanted = truth(plain)
    labels = drawn(np.log(wanted), generator)
    found = scipy.special.softmax(calibration_families.fitted(FAMILIES[name], logits, labels)(logits), axis=1)
    assert np.abs(found - wanted).mean() < 0.008
    assert np.abs(plain - wanted).mean() > 0.02


@pytest.mark.parametrize(("ratio", "differs"), [(1.0, False), (1.5, True)])
def test_splits_with_other_temperatures_are_told_apart(tmp_path, ratio, differs):
    generator = np.random.default_rng(2)
    logits = generator.normal(0, 3, (4000, 10))
    labels = drawn(logits, generator)
    for name, part, temperature in (("validation", slice(2000), 1.0), ("test", slice(2000, None), ratio)):
        one = samples.ValidationLogits(temperature * logits[part], labels[part])
        (tmp_path / f"{name}.npz").write_bytes(samples.validation_bytes(one))
    row = dict(zip(calibration_maps.SPLIT_HEADERS[6:], calibration_maps.difference(tmp_path)[6:], strict=True))
    assert (float(row["z"]) > 4) == differs
    assert (float(row["half of test: T of val"]) > 2 * float(row["T of other half"])) == differs
    assert float(row["T of other half"]) == pytest.approx(float(row["perfect"]), abs=0.01)
