"""`metrics.json` is read as it was written; a damaged one is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import poolzoo
from poolzoo.artifacts.run_report import RunReport
from poolzoo.common.errors import CheckFailed


def test_a_report_is_read_as_it_was_written(trained):
    report = RunReport.load(trained)
    assert report.to_json() == json.loads((trained / "metrics.json").read_text())
    assert report.path == trained


@pytest.mark.parametrize("content", ["[]", "{}", '{"val": {}, "test": {}}'])
def test_a_report_that_lacks_keys_is_refused(tmp_path: Path, content: str):
    (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(CheckFailed, match="lacks"):
        RunReport.load(tmp_path)


def test_a_run_says_which_version_wrote_it(trained):
    assert json.loads((trained / "env.json").read_text())["versions"]["poolzoo"] == poolzoo.__version__
