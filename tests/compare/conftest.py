"""One submission under a small protocol for all tests of boards."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.submissions import make_submission


@pytest.fixture(scope="session")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `submission`, `tiny.toml` and `mine.py`. Read it, do not change it."""
    folder = tmp_path_factory.mktemp("honest")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POOLZOO_CACHE", str(folder / "cache"))
        make_submission(folder)
    return folder


@pytest.fixture
def copied(honest: Path, tmp_path: Path) -> Path:
    """A copy of the submission, to be changed."""
    return Path(shutil.copytree(honest / "submission", tmp_path / "submission"))
