"""Every error of the program: one line that names what is wrong, a hint, an exit code, nothing on stdout.

`sites.txt` says of each place that makes an error what provokes it. A new place fails the test until it is listed;
`python -m messages.record` in `tests/` lists it, once something provokes it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import error_sites

from messages import absent, calls, command_lines, record
from poolzoo.common import errors
from poolzoo.plugin import loader

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    command_lines.files(tmp_path)
    monkeypatch.chdir(tmp_path)
    with absent.unused():
        yield tmp_path


@pytest.mark.slow
def test_wrong_command_lines_get_one_line_and_a_hint(poolzoo: Callable[..., object], folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    for names, words in command_lines.WRONG:
        outcome = poolzoo(*words)
        loader.settings.reset()
        shown = f"{' '.join(words)}: {outcome}"
        assert outcome.code in (errors.CHECK_FAILED, errors.USAGE, errors.PLUGIN, errors.ENVIRONMENT), shown
        assert outcome.out == "", shown
        lines = [line for line in outcome.err.splitlines() if line.startswith(("error: ", "hint: "))]
        assert [line.split(": ")[0] for line in lines] == ["error", "hint"], shown
        assert names in lines[0], shown
        assert "Traceback" not in outcome.err, shown
        assert not lines[0].startswith("error: unexpected "), shown
        check_message(lines[0].removeprefix("error: "), lines[1].removeprefix("hint: "))
    assert sorted(path for path in folder.rglob("*") if "__pycache__" not in path.parts) == before


@pytest.mark.slow
def test_wrong_calls_raise_errors_with_a_hint(folder: Path) -> None:
    for call in calls.calls(folder):
        with pytest.raises(errors.PoolzooError) as raised:
            call()
        check_message(raised.value.message, raised.value.hint)
        assert raised.value.exit_code in errors.EXIT_CODES


@pytest.mark.slow
def test_reasons_that_others_show_are_one_line(folder: Path) -> None:
    for call in calls.reasons(folder):
        with pytest.raises(errors.PoolzooError) as raised:
            call()
        check_line(raised.value.message)


@pytest.mark.slow
def test_the_list_of_places_is_true(folder: Path) -> None:
    found = record.provoked(folder)
    listed = record.read()
    wrong = {key: by for key, by in listed.items() if by in record.BY_CATALOG and found.get(key) != by}
    assert wrong == {}
    assert [key for key in found if key in listed and listed[key] not in record.BY_CATALOG] == []


def test_every_place_that_makes_an_error_is_listed() -> None:
    listed, known = set(record.read()), set(record.keys())
    new = [str(site) for key, site in record.keys().items() if key not in listed]
    assert not new, "provoke these, and run python -m messages.record in tests/:\n" + "\n".join(new)
    assert not listed - known, "these are gone: run python -m messages.record in tests/"


def test_listed_tests_exist() -> None:
    for by in set(record.read().values()):
        if by.startswith("tests/"):
            file, _, name = by.partition("::")
            assert re.search(rf"^ *def {re.escape(name.partition('[')[0])}\(", (ROOT / file).read_text(), re.M), by


def test_few_places_are_provoked_by_nothing() -> None:
    nothing = [key for key, by in record.read().items() if by.startswith(record.NOTHING)]
    assert len(nothing) <= record.MOST_UNPROVOKED, nothing
    elsewhere = [key for key, by in record.read().items() if by.startswith(record.NEEDS)]
    assert len(elsewhere) <= record.MOST_ELSEWHERE, elsewhere


def test_each_place_is_provoked_or_says_why_not() -> None:
    for key, by in record.read().items():
        known = by in record.BY_CATALOG or by.startswith(("tests/", f"{record.NOTHING}: ", f"{record.NEEDS} "))
        assert known, f"{key}: {by}"


def test_every_error_that_reaches_a_user_has_a_hint() -> None:
    """Reasons that a check or a step collects have none; whoever shows them adds one."""
    without = [site for site in error_sites.sites().values() if record.lacks_hint(site)]
    assert {site.file for site in without} <= record.REASONS, [str(site) for site in without]


def test_exit_codes_in_the_docs_are_those_of_the_program() -> None:
    page = (ROOT / "docs" / "reference" / "environment.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", page, re.M)
    assert {int(code): meaning.replace("`", "") for code, meaning in rows} == errors.EXIT_CODES


def test_each_kind_of_error_has_a_documented_code() -> None:
    kinds = {errors.PoolzooError}
    while more := {sub for kind in kinds for sub in kind.__subclasses__()} - kinds:
        kinds |= more
    assert {kind.exit_code for kind in kinds} <= set(errors.EXIT_CODES)


def check_message(message: str, hint: str) -> None:
    """One line each, and a way out."""
    for text in (message, hint):
        check_line(text)
    assert hint != message


def check_line(text: str) -> None:
    """One line, that ends without a full stop."""
    assert text == text.strip() != ""
    assert "\n" not in text
    assert not text.removesuffix("...").endswith((".", ":")), text
