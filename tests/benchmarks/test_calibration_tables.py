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


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("temperature by entropy", (0.5, -1.5)),
        ("temperature by spread", (0.0, 1.5)),
        ("Platt, top class", (-0.7, -0.3)),
        ("beta, top class", (0.5, -0.5, 0.2)),
    ],
)
def test_a_planted_member_of_a_family_is_found(name, numbers):
    generator = np.random.default_rng(1)
    logits = generator.normal(0, 1.5, (3000, 5)) * generator.uniform(0.5, 2, (3000, 1))
    family = FAMILIES[name]
    labels = drawn(family.map(logits, np.array(numbers)), generator)
    found, wanted = (
        scipy.special.softmax(map_(logits), axis=1).max(1)
        for map_ in (calibration_families.fitted(family, logits, labels), lambda z: family.map(z, np.array(numbers)))
    )
    assert np.abs(found - wanted).mean() < 0.02
    assert np.abs(scipy.special.softmax(logits, axis=1).max(1) - wanted).mean() > 0.04


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
