"""What commands write to terminals of any width, without colors, and into pipes."""

from __future__ import annotations

import re

import pytest
from support import terminal
from support.command_lines import commands

from poolzoo.cli import COMMANDS
from poolzoo.common import output, streams

ESC = "\x1b"
LISTS = (
    ("list",),
    ("list", "backbones"),
    ("list", "datasets"),
    ("list", "runtimes"),
    ("list", "protocols"),
    ("plugin", "list"),
    ("show", "digits-heads"),
    ("show", "digits"),
    ("show", "tune"),
)
WRONG = (
    ("finetune", "--data", "folder:/a/folder/that/is/not/there/at/all", "--epochs", "3"),
    ("list", "--fliter", "x"),
    ("compare", "--resolution", "1", "--seeds", "3"),
    ("show", "no-such-thing"),
)
EXAMPLE = re.compile(r"(?: +|Usage: )(?:poolzoo|find|mkdir|torchrun) ")  # a command line is copied, so it stays whole


@pytest.mark.parametrize("columns", [120, 80, 40, 20])
def test_help_fits_into_the_terminal(columns):
    for name in ("", *(name for name, _ in commands())):
        shown = terminal.run(columns, *name.split(), "--help")
        assert shown.code == 0
        lines = [line for line in shown.out.splitlines() if not EXAMPLE.match(line)]
        assert terminal.too_wide("\n".join(lines), columns) == [], name
        assert ESC not in shown.out
        assert shown.err == ""


def test_columns_in_the_environment_win(tmp_path):
    wide, narrow = (terminal.run(None, "list", "--help", COLUMNS=text).out for text in ("80", "40"))
    assert max(map(terminal.width, wide.splitlines())) > 40
    assert [line for line in terminal.too_wide(narrow, 40) if not EXAMPLE.match(line)] == []
    assert terminal.too_wide(terminal.run(120, "list", COLUMNS="40").out, 40) == []


@pytest.mark.parametrize("columns", [80, 40, 20])
@pytest.mark.parametrize("arguments", LISTS, ids=" ".join)
def test_lists_fit_into_the_terminal_and_lose_nothing(columns, arguments):
    shown = terminal.run(columns, *arguments, NO_COLOR="1")
    piped = terminal.run(None, *arguments)
    assert shown.code == piped.code == 0
    assert ESC not in shown.out + shown.err + piped.out + piped.err
    assert terminal.too_wide(shown.out, columns) == []
    squeezed = re.sub(r"\W", "", shown.out)
    for row in piped.out.splitlines()[1:]:
        assert re.sub(r"\W", "", row.split("\t")[0]) in squeezed


@pytest.mark.parametrize("columns", [80, 40, 20])
@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
def test_errors_and_hints_fit_into_the_terminal(columns, arguments):
    shown, piped = terminal.run(columns, *arguments, NO_COLOR="1"), terminal.run(None, *arguments)
    assert shown.code == piped.code == 2
    assert shown.out == piped.out == ""
    assert ESC not in shown.err
    assert terminal.too_wide(shown.err, columns) == []
    assert shown.err.split() == piped.err.split()
    assert [line.split(":")[0] for line in piped.err.splitlines()] == ["error", "hint"]


def test_colors_are_shown_where_they_are_wanted_and_nowhere_else():
    wrong = ("show", "no-such-thing")
    assert f"{ESC}[31m{ESC}[1merror:{ESC}[0m nothing" in terminal.run(80, *wrong).err
    assert f"{ESC}[36m{ESC}[1mhint:{ESC}[0m" in terminal.run(None, *wrong, FORCE_COLOR="1").err
    assert ESC in terminal.run(80, "list").out
    for columns, variables in ((80, {"NO_COLOR": "1"}), (80, {"TERM": "dumb"}), (None, {})):
        assert ESC not in terminal.run(columns, *wrong, **variables).err
        assert ESC not in terminal.run(columns, "list", **variables).out
    assert ESC not in terminal.run(None, "list", FORCE_COLOR="1").out
    assert ESC not in terminal.run(80, *wrong, NO_COLOR="1", FORCE_COLOR="1").err
    assert ESC in terminal.run(80, *wrong, NO_COLOR="").err


def test_a_pipe_gets_whole_cells_between_tabs():
    for columns in ("20", "200"):
        lines = terminal.run(None, "list", COLUMNS=columns).out.splitlines()
        assert lines[0] == "pooling\tkinds\twhat it does\tfrom"
        assert "avg\tglobal local\tmean over the feature map" in lines[1]


@pytest.mark.parametrize("columns", [100, 40, 20])
def test_a_progress_bar_fits_into_one_line(columns, monkeypatch):
    shown = _progress(columns, monkeypatch)
    assert "5/10" in shown
    for frame in re.split(r"[\r\n]", re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", shown)):
        assert terminal.width(frame) <= columns


def test_a_dumb_terminal_gets_no_progress_bar(monkeypatch):
    assert _progress(80, monkeypatch, TERM="dumb") == ""


def _progress(columns: int, monkeypatch: pytest.MonkeyPatch, **variables: str) -> str:
    from poolzoo.cli import list as command

    def work() -> None:
        with output.progress("reading images of a data set with a long name", 10) as bar:
            bar.update(5, "the note that goes with it")

    monkeypatch.setattr(command.loader, "catalog", lambda: work() or 1 / 0)
    return terminal.run(columns, "list", **variables).err.partition("error:")[0].removesuffix(f"{ESC}[31m{ESC}[1m")


def test_wide_characters_count_as_two_cells():
    text = "表 " * 30
    lines = output.wrapped(text, 20)
    assert all(terminal.width(line) <= 20 for line in lines)
    assert "".join(lines).split() == text.split()


def test_a_long_word_stays_whole():
    path = "/a/path/" + "x" * 60
    assert path in "\n".join(output.wrapped(f"it is in {path} now", 30)).split()
    assert output.wrapped("short", None) == ["short"]


def test_help_is_what_no_command_and_help_show(poolzoo):
    whole = poolzoo("--help").out
    assert poolzoo("help").out == whole
    assert poolzoo("help", "export").out == poolzoo("export", "--help").out
    assert poolzoo("help", "plugin", "check").out == poolzoo("plugin", "check", "--help").out
    for name in COMMANDS:
        assert re.search(rf"^  {name}  ", whole, re.MULTILINE)


def test_a_missing_command_is_wrong_usage_with_the_help_on_stderr(poolzoo):
    for words in ((), ("plugin",), ("data",)):
        outcome = poolzoo(*words)
        assert (outcome.code, outcome.out) == (2, "")
        assert outcome.err == poolzoo(*words, "--help").out


@pytest.mark.parametrize(
    ("words", "says", "hint"),
    [
        (["plugn"], "poolzoo has no command 'plugn'", "did you mean poolzoo plugin?"),
        (["plugin", "chek"], "poolzoo plugin has no command 'chek'", "did you mean poolzoo plugin check?"),
        (["data", "xyz"], "poolzoo data has no command 'xyz'", "there are: check"),
        (["help", "verfy"], "poolzoo has no command 'verfy'", "did you mean poolzoo verify?"),
        (["help", "plugin", "x"], "poolzoo plugin has no command 'x'", "there are: check, disable, enable, list, new"),
        (["help", "verify", "x"], "poolzoo verify has no command 'x'", "poolzoo verify --help"),
    ],
)
def test_misspelled_commands_get_a_suggestion(poolzoo, words, says, hint):
    outcome = poolzoo(*words)
    assert outcome.code == 2
    assert outcome.err == f"error: {says}\nhint: {hint}\n"


def test_streams_without_a_size_are_eighty_columns_wide(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(streams, "data", lambda: type("Odd", (), {"isatty": lambda self: True})())
    assert streams.data_columns() == 80
