"""Differences and limits that are shown together are of one image."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from poolzoo.runtime import tolerance

PAIR = re.compile(r"difference ([\d.e+-]+)(?:,| of) (?:allowed )?([\d.e+-]+)")


@pytest.mark.parametrize("seed", range(20))
def test_printed_values_exceed_their_limit_only_where_a_check_fails(seed):
    random = np.random.default_rng(seed)
    allowed = 10.0 ** random.uniform(-9, 0, 50)
    differences = allowed * random.uniform(0, 1, 50)
    where, ratio = tolerance.closest_to_limit(differences, allowed)
    assert ratio <= 1
    assert float(f"{differences[where]:.2e}") <= float(f"{allowed[where]:.2e}")
    differences[seed] = allowed[seed] * 1.5
    where, ratio = tolerance.closest_to_limit(differences, allowed)
    assert (where, ratio) == (seed, pytest.approx(1.5))


def test_nan_is_furthest_and_nothing_is_nothing():
    assert tolerance.closest_to_limit(np.array([1.0, np.nan]), np.array([0.5, 1.0])) == (1, np.inf)
    assert tolerance.closest_to_limit(np.array([0.0, 0.0]), np.array([0.0, 1.0])) == (0, 0.0)
    assert tolerance.closest_to_limit(np.array([0.0, 1e-9]), np.array([1.0, 0.0])) == (1, np.inf)


def test_every_pair_of_a_passed_bundle_is_in_order(exported):
    parity = json.loads((exported / "parity.json").read_text())
    assert parity["max_abs"] <= parity["tolerance"]
    for pair in (parity["worst"], *parity["worst_by_batch"].values()):
        assert pair["ratio"] == pytest.approx(pair["max_abs"] / pair["allowed"])
        assert pair["ratio"] <= 1
    assert all(off <= parity["allowed_by_edge"][name] for name, off in parity["max_abs_by_edge"].items())
    for probe in parity["probes"]:
        if probe["passed"] and probe["max_abs"] is not None and probe["allowed"] is not None:
            assert probe["max_abs"] <= probe["allowed"], probe
        elif probe["allowed"] is None:
            assert "allowed" not in probe["note"]


@pytest.mark.usefixtures("kept_graphs")
def test_printed_pairs_are_in_order(poolzoo, trained, exported, tmp_path):
    printed = [poolzoo("export", trained, "--no-bench", "--out", tmp_path / "b").out]
    printed.append(poolzoo("verify", exported, "--no-bench").out)
    pairs = [tuple(map(float, pair)) for text in printed for pair in PAIR.findall(text)]
    assert len(pairs) == 1 + 4
    assert all(off <= allowed for off, allowed in pairs), pairs
