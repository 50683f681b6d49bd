"""A pytest plugin that finds which tests provoke which places, and lists them in `sites.txt` where nothing did.

Run it over tests of the suite, in the root of the repository: `PYTHONPATH=.:tests python -m pytest -p messages.suite
tests/runtime`. It shows each error whose message or hint is no single line.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import filelock
import pytest
from support import error_sites

from messages import record

_found = pytest.StashKey[dict[str, str]]()
_odd = pytest.StashKey[list[str]]()


@pytest.hookimpl(wrapper=True)
def pytest_sessionstart(session: pytest.Session) -> Iterator[None]:
    session.stash[_found] = {}
    session.stash[_odd] = []
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[bool]:
    keys = {site: key for key, site in record.keys().items()}
    with error_sites.recorded() as made:
        done = yield
    for one in made:
        item.session.stash[_found].setdefault(keys[one.site], item.nodeid.partition("[")[0])
        if "\n" in f"{one.error.message}{one.error.hint}" or not (one.error.hint or record.lacks_hint(one.site)):
            item.session.stash[_odd].append(f"{one.site}: {one.error.message!r}, {one.error.hint!r}")
    return done


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Lists what was found for the places that were provoked by nothing, and no others."""
    with filelock.FileLock(Path(tempfile.gettempdir()) / f"{record.FILE.name}.lock"):  # another room may be at work
        listed = record.read()
        new = {key: by for key, by in session.stash[_found].items() if listed.get(key, "").startswith(record.OPEN)}
        record.write({**listed, **new})
    print(f"\n{len(new)} places are new in {record.FILE.name}", *session.stash[_odd], sep="\n")
