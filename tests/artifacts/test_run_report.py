"""`metrics.json` is read as it was written; a damaged one is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

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
