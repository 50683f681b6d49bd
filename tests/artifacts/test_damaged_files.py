"""Files of a run with values that nobody writes: each is refused in one line that names what is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from poolzoo.artifacts import manifest, reading, samples
from poolzoo.artifacts.run_report import RunReport
from poolzoo.common.errors import CheckFailed, UsageError
from poolzoo.compare import table
from poolzoo.compare.config import ComparisonConfig
from poolzoo.compare.grid import specs
from poolzoo.compare.journal import Journal
from poolzoo.data.identity import DataIdentity
from poolzoo.data.sizes import MAX_SIDE
from poolzoo.train.settings import Settings
from poolzoo.train.settings_file import read_toml

EARLIER = Path(__file__).parents[1] / "data/earlier"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return shutil.copytree(EARLIER / "run", tmp_path / "run")


@pytest.mark.parametrize(
    ("part", "key", "value", "text"),
    [
        (None, "num_classes", 9, "num_classes is 9, and label_names has 10"),
        ("poolzoo", "data_size", [8, 0], "poolzoo.data_size is [8, 0]"),
        ("poolzoo", "image_size", [16, 10**6], "poolzoo.image_size is [16, 1000000]"),
        ("pretrained_cfg", "input_size", [4, 16, 16], "pretrained_cfg.input_size has 4 channels, not 3"),
        ("pretrained_cfg", "std", [1.0, 0.0, 1.0], "pretrained_cfg.std has a number that is not above 0"),
        ("pretrained_cfg", "interpolation", "nearest", "pretrained_cfg has no interpolation bilinear or bicubic"),
        ("pretrained_cfg", "crop_pct", 0, "pretrained_cfg has no crop_pct above 0 and at most 1"),
        ("pretrained_cfg", "reader", 77, "pretrained_cfg has no reader that this version of poolzoo knows"),
    ],
)
def test_a_config_out_of_range_is_refused(run, part, key, value, text):
    config = json.loads((run / "config.json").read_text())
    (config if part is None else config[part])[key] = value
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckFailed, match="is damaged") as caught:
        reading.read_config(run)
    assert text in caught.value.message


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("mean", [0.5], "pretrained_cfg has no mean and std of three channels"),
        ("std", [1.0, 1.0], "pretrained_cfg has no mean and std of three channels"),
        ("std", [1.0, 1.0, -1.0], "pretrained_cfg.std has a number that is not above 0"),
        ("input_size", [3, 16], "pretrained_cfg.input_size is [16], no height and width"),
        ("input_size", [3, 16, MAX_SIDE + 1], f"of up to {MAX_SIDE:,} pixels"),
        ("input_size", [3, MAX_SIDE, 1], None),
        ("input_size", ..., None),
        ("mean", ..., None),
        ("std", ..., None),
    ],
)
def test_what_a_bundles_config_says_of_its_input_is_checked(run, key, value, text):
    config = json.loads((run / "config.json").read_text())
    config["pretrained_cfg"][key] = value
    if value is ...:  # as bundles of earlier versions
        del config["pretrained_cfg"][key]
    (run / "config.json").write_text(json.dumps(config))
    if text is None:
        assert reading.read_bundle_config(run) == config
        return
    with pytest.raises(CheckFailed, match="is damaged") as caught:
        reading.read_bundle_config(run)
    assert text in caught.value.message
    assert caught.value.hint == "export the run again"


def test_a_bundle_of_an_earlier_version_lacks_keys(run):
    (run / "config.json").write_text('{"num_classes": 3}')
    assert reading.read_bundle_config(run) == {"num_classes": 3}
    with pytest.raises(CheckFailed, match=r"config\.json"):
        reading.read_config(run)
    (run / "parity.json").write_text('{"passed": true}')
    assert reading.read_parity(run) == {"passed": True}


def test_a_report_with_other_types_is_refused(run):
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["test"]["precision"] = [1]
    (run / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(CheckFailed, match=r"metrics\.json is damaged: test\.precision is a list, not a number"):
        RunReport.load(run)


def test_a_manifest_that_is_no_object_is_refused(run):
    (run / "manifest.json").write_text("[1]")
    assert manifest.differences(run) == ["manifest.json is damaged"]
    with pytest.raises(CheckFailed, match="it is a list, not an object"):
        manifest.require_kind(run, "run")


@pytest.mark.parametrize(
    "labels", [np.array([0, 5]), np.array([0.5, 1]), np.zeros((2, 3, 1), int), np.zeros((2, 3), int) + 7, np.arange(3)]
)
def test_logits_with_labels_that_do_not_fit_are_refused(run, labels):
    np.savez(run / "validation.npz", logits=np.zeros((2, 3), np.float32), labels=labels)
    with pytest.raises(CheckFailed, match=r"validation\.npz is damaged: logits float32\[2, 3\]"):
        samples.load_validation(run)


def test_predictions_of_another_shape_are_refused(run):
    np.savez(run / "predictions.npz", predicted=np.arange(3), labels=np.arange(4))
    with pytest.raises(CheckFailed, match="not a class of each image"):
        table.correct(run)


def test_an_identity_that_does_not_fit_together_is_refused(run):
    with np.load(run / "data.npz") as stored:
        arrays = dict(stored)
    name = next(name for name in arrays if name.endswith("_labels"))
    np.savez(run / "data.npz", **{**arrays, name: arrays[name][:-1]})
    with pytest.raises(CheckFailed, match="does not fit together"):
        DataIdentity.load(run / "data.npz")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"seeds": 10**9}, "seeds is 1000000000, not 1 to 10,000"),
        ({"alpha": 2}, "alpha is 2, not between 0 and 1"),
        ({"pools": 3}, "pools is 3, not a text"),
        ({"settings": []}, "settings is a list"),
        ({"more": 1}, "has 'more', which is unknown"),
        ({"": 1}, "has '', which is unknown"),
        ({"time_budget": -1.0}, "time_budget is no time"),
    ],
)
def test_a_plan_that_no_command_writes_is_refused(change, text):
    plan = json.loads((EARLIER / "comparison/plan.json").read_text())
    assert ComparisonConfig.from_json(plan).seeds
    with pytest.raises(CheckFailed, match=r"plan\.json") as caught:
        ComparisonConfig.from_json({**plan, **change})
    assert text in caught.value.message


def test_a_sweep_without_end_is_refused():
    values = "|".join(map(str, range(99)))
    with pytest.raises(UsageError, match="means 970,299 poolings, and 10,000 are the most"):
        specs(f"gem:p={values},eps={values},learnable={values}", "global")


def test_a_journal_keeps_what_is_whole_beside_what_is_not(tmp_path):
    lines = ['{"trial": "a", "status": "done"}', "[" * 100_000, '{"trial": [1]}', "3", '{"status": "done"}', "\x00"]
    (tmp_path / "journal.jsonl").write_text("\n".join([*lines, '{"trial": "b", "status": "failed"}']))
    found = Journal(tmp_path / "journal.jsonl")
    assert found.done("a")
    assert found.records["b"]["status"] == "failed"


@pytest.mark.parametrize(
    ("text", "shown"),
    [("epochs = " + "9" * 400, "a number without end"), ("lr = [1]", "a list"), ("seed = true", "True")],
)
def test_a_setting_of_another_type_is_refused_in_a_short_line(tmp_path, text, shown):
    (tmp_path / "run.toml").write_text(text)
    with pytest.raises(UsageError, match=r"in run\.toml is not") as caught:
        read_toml(tmp_path / "run.toml")
    assert shown in caught.value.message


@pytest.mark.parametrize(
    "values", [{"freeze": "stages:²"}, {"steps": "1,2"}, {"time_budget": f"{'9' * 400}h"}, {"skip_broken": "9" * 5000}]
)
def test_settings_that_look_like_numbers_are_refused(values):
    with pytest.raises(UsageError):
        Settings(**values)


def test_data_without_test_images_is_said(tmp_path):
    train = DataIdentity.load(EARLIER / "run/data.npz").splits["train"]
    DataIdentity({"train": train}, ("ant",)).save(tmp_path / "data.npz")
    with pytest.raises(CheckFailed, match="the data has no test images"):
        _ = DataIdentity.load(tmp_path / "data.npz").test


@pytest.mark.parametrize("digests", [np.uint8(3), np.zeros(2, np.uint8), np.zeros((2, 4), np.uint8)])
def test_digests_of_another_shape_are_said(tmp_path, digests):
    np.savez(tmp_path / "data.npz", test_digests=digests, test_labels=np.zeros(2, np.int64))
    with pytest.raises(CheckFailed, match="what it has of test does not fit together"):
        DataIdentity.load(tmp_path / "data.npz")
