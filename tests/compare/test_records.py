"""The records of trials: what is written is read again, in lines of earlier versions too."""

from __future__ import annotations

from dataclasses import replace

from poolzoo.compare.grid import Trial, Variant
from poolzoo.compare.records import Consistency, Robustness, TrialRecord, TrialRecords
from poolzoo.report.results import CorruptionAccuracy

TRIAL = Trial(Variant("nano/plain", "avg"), 3)
ROBUSTNESS = Robustness(
    crop_consistency=Consistency(0.9, 0.8, 4),
    shift_consistency=Consistency(0.7, None, 4),
    corruption_accuracy=CorruptionAccuracy(0.5, [0.6, 0.4], {"fog": [0.6, 0.4]}),
)


def test_a_record_is_read_as_it_was_written(tmp_path):
    record = replace(TrialRecord.of(TRIAL, "done"), run="runs/a", accuracy=0.5, robustness=ROBUSTNESS, parity=False)
    records = TrialRecords(tmp_path)
    records.add(record)
    records.set_session(450.0)
    records.set_session(900.0)  # the same session, later
    again = TrialRecords(tmp_path)
    assert again[TRIAL] == record
    assert again.done(TRIAL)
    assert again.hours == 0.25


def test_a_robustness_that_failed_is_not_measured_again(tmp_path):
    records = TrialRecords(tmp_path)
    records.add(replace(TrialRecord.of(TRIAL, "done"), robustness=Robustness()))
    assert TrialRecords(tmp_path)[TRIAL].robustness == Robustness()


def test_lines_of_earlier_versions_are_read():
    line = {
        **TrialRecord.of(TRIAL, "done").to_json(),
        "shift": {
            "zhang": {"consistency": 0.9, "stability": 0.8, "reach": 4},
            "circular": {"consistency": 0.7, "stability": None, "reach": 4},
        },
        "corruption": {"mean": 0.5, "by_severity": [0.6, 0.4], "by_kind": {"fog": [0.6, 0.4]}},
    }
    assert TrialRecord.from_json(line).robustness == ROBUSTNESS
    assert TrialRecord.from_json({**line, "shift": None, "corruption": None}).robustness == Robustness()


def test_a_damaged_robustness_is_none():
    line = TrialRecord.of(TRIAL, "done").to_json()
    damaged = {"corruption_accuracy": {"mean": 0.5, "by_severity": [0.6, 0.4], "by_kind": {"fog": [], "snow": [0.6]}}}
    assert TrialRecord.from_json({**line, "robustness": damaged}).robustness == Robustness()
