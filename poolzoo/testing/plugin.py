"""A plugin of pytest: the fixture `poolzoo_project`, in which tests run poolzoo in a temporary project.

An author enables it in `tests/conftest.py`:

    pytest_plugins = ["poolzoo.testing.plugin"]

It is no entry point of pytest: those are imported at each start of pytest on the whole machine, also where nobody tests
a plugin of poolzoo.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from poolzoo.testing import process_state
from poolzoo.testing.project import Project


@pytest.fixture(autouse=True)
def _poolzoo_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Around all other fixtures of a test, so that what they undo, such as `monkeypatch`, is no leak."""
    if "poolzoo_project" not in request.fixturenames:
        yield
        return
    leaks = process_state.LeakCheck()
    yield
    if changed := leaks.restore():
        names = ", ".join(changed)
        pytest.fail(f"the test leaves {names} changed; restore it, or use run(…, in_process=False)", pytrace=False)


@pytest.fixture
def poolzoo_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """A temporary project, which is the current directory: see `poolzoo.testing.Project`.

    When the test ends, the catalog of plugins is dropped, and the test fails if it leaves a setting of the process
    changed: the environment, the current directory, `sys.path`, or torch's threads, default dtype and modes.
    """
    process_state.forget_plugins(tmp_path)
    yield Project(tmp_path, monkeypatch)
    process_state.forget_plugins(tmp_path)
