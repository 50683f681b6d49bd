"""The content of `compare.json` as types: what is written is read again, and earlier versions are read too."""

from __future__ import annotations

import json
import math

from support.comparison import comparison

from poolzoo.common import json_writer
from poolzoo.report.results import ComparisonResult, CorruptionAccuracy, MeanSd, VariantResult


def test_what_is_written_is_read_again():
    found = ComparisonResult.from_json(comparison())
    assert ComparisonResult.from_json(json.loads(json_writer.dumps(found.to_json()))) == found
    assert found.results[0].crop_consistency is not None


def test_keys_of_earlier_versions_are_read():
    found = ComparisonResult.from_json(
        {
            "verdict": ["Nothing beats avg."],
            "results": [
                {
                    "pool": "avg",
                    "shift": {"zhang": {"mean": 0.9, "sd": 0.1}, "circular": {"mean": 0.8, "sd": None}},
                    "corruption": {"mean": 0.7, "by_severity": [0.9, 0.5], "by_kind": {"fog": [0.9, 0.5]}},
                }
            ],
        }
    )
    assert found.conclusions == ["Nothing beats avg."]
    (row,) = found.results
    assert row.crop_consistency == MeanSd(0.9, 0.1)
    assert row.shift_consistency == MeanSd(0.8)
    assert row.corruption_accuracy == CorruptionAccuracy(0.7, [0.9, 0.5], {"fog": [0.9, 0.5]})


def test_what_is_missing_or_not_finite_is_none():
    row = VariantResult.from_json({"accuracy": {"mean": math.nan, "n": 2.5}, "params": "many", "curves": [None, [{}]]})
    assert row.accuracy.mean is None
    assert row.accuracy.n is None
    assert row.params is None
    assert not row.done
    assert [len(run) for run in row.curves] == [0, 1]
    assert ComparisonResult.from_json({}).to_json()["results"] == []
