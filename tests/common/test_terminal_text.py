"""Foreign text on a terminal: nothing in it is obeyed, whoever wrote it and wherever it is shown."""

from __future__ import annotations

import csv
import io
import json
from contextlib import redirect_stdout

import click
import pytest

from poolzoo.common import output, streams, text

# What a terminal obeys or a reader does not see, and how it is shown instead.
OBEYED = {
    "\x1b[2J": r"\x1b[2J",  # clears the screen
    "\x1b]0;title\x07": r"\x1b]0;title\x07",  # sets the window's title
    "\x9b31m": r"\x9b31m",  # C1: the same as ESC [
    "a\x08b\x7f": r"a\x08b\x7f",
    "\u202eevil": r"\u202eevil",  # reorders what follows
    "\u2066x\u2069": r"\u2066x\u2069",
    "a\u200bb\ufeff": r"a\u200bb\ufeff",
    "\udcff": r"\udcff",  # a byte of a file's name that is no UTF-8
    "\U000e0041": r"\U000e0041",  # tags, which nobody sees
}
EVIL = "".join(OBEYED) + "[red]x[/red] :warning: \\"
SHOWN = "".join(OBEYED.values()) + "[red]x[/red] :warning: \\"

PLUGIN = f"""
from poolzoo import Backbone, BackboneFamily, Dataset, Pooling, hookimpl

EVIL = {EVIL!r}

def build(channels, *, mode: str = EVIL):
    from torch import nn
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())

@hookimpl
def poolzoo_poolings():
    yield Pooling(name="evil", summary=EVIL, kind="global", build=build, equation=EVIL, paper=EVIL)
    raise ValueError(EVIL)

@hookimpl
def poolzoo_backbones():
    yield Backbone(name="evil-net", summary=EVIL, build=build, license=EVIL)
    yield BackboneFamily(prefix="evils", summary=EVIL, names=lambda: [EVIL], get=lambda name: 1 / 0)

@hookimpl
def poolzoo_datasets():
    yield Dataset(name="evil-data", summary=EVIL + "\\nsecond line", load=print)
"""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch):
    """What `with redirect_stdout(terminal)` writes to."""
    monkeypatch.setenv("COLUMNS", "500")
    monkeypatch.setenv("NO_COLOR", "1")
    return Terminal()


@pytest.fixture
def evil(tmp_path):
    path = tmp_path / "evil.py"
    path.write_text(PLUGIN, encoding="utf-8", errors="surrogatepass")
    return path


@pytest.mark.parametrize("raw", OBEYED)
def test_what_a_terminal_obeys_is_written_out(raw):
    assert text.visible(f"<{raw}>") == f"<{OBEYED[raw]}>"
    assert text.one_line(f"<{raw}>") == f"<{OBEYED[raw]}>"


def test_what_is_seen_stays_as_it_is():
    for word in ("été", "数字", "🐈", "e\u0301", "a b", "Ω≠"):
        assert text.visible(word) == word
    assert text.visible("a\u00a0b\u3000c") == "a b c"
    assert text.visible("a\nb\tc") == r"a\nb\tc"
    assert text.one_line(" a\n\n b\t") == "a b"


def test_a_text_without_end_costs_no_more_than_its_line():
    assert len(text.one_line("x" * 50_000_000)) == text.MAX_LINE


@pytest.mark.parametrize(
    "arguments",
    [
        ("list",),
        ("list", "backbones"),
        ("list", "backbones", "--filter", "evils/*"),
        ("list", "datasets"),
        ("show", "evil"),
        ("show", "evil-net"),
        ("show", "evils/x"),
        ("show", EVIL),
        ("plugin", "list", "--load"),
        ("plugin", "check", EVIL),
    ],
)
def test_no_command_lets_it_through(poolzoo, evil, arguments):
    for as_json in ((), ("--json",)):
        outcome = poolzoo(*arguments, *as_json, "--plugin", evil)
        for stream in (outcome.out, outcome.err):
            assert all(line.replace("\t", "").isprintable() for line in stream.splitlines())
        assert "Traceback" not in outcome.err


def test_escaped_texts_keep_one_line_each(poolzoo, evil):
    outcome = poolzoo("list", "datasets", "--plugin", evil)
    assert outcome.out.splitlines()[-1].split("\t")[1] == f"{SHOWN} second line"
    rows = poolzoo("list", "datasets", "--json", "--plugin", evil).json["datasets"]
    assert rows[-1]["summary"] == f"{EVIL}\nsecond line"  # the same value


def test_a_table_on_a_terminal_reads_no_markup(terminal):
    with redirect_stdout(terminal):
        output.table((EVIL, "n"), [(EVIL, 1), ("[bold]b[/]\\", 22)], right=(1,))
    assert terminal.getvalue().count(SHOWN) == 2
    assert "[bold]b[/]\\" in terminal.getvalue()
    assert "\x1b[2J" not in terminal.getvalue()
    assert "\u202e" not in terminal.getvalue()


def test_data_and_csv_lines_are_safe_on_a_terminal(terminal):
    with redirect_stdout(terminal):
        output.data(f"{EVIL}\n")
        output.csv_row((EVIL, "a\nb"))
        output.emit_json({EVIL: EVIL})
    shown = terminal.getvalue().splitlines()
    assert shown[:2] == [rf"{SHOWN}\n", rf'{SHOWN},"a\nb"']
    assert json.loads(shown[2]) == {EVIL: EVIL}
    assert all(line.isprintable() for line in shown)


def test_csv_for_a_program_is_exact(capsys):
    cells = ("\x1b[31mred", "two\nlines", 'a "quote"', "été")
    output.csv_row(cells)
    assert tuple(next(csv.reader(io.StringIO(capsys.readouterr().out)))) == cells


def test_progress_and_messages_are_safe(capsys, monkeypatch):
    monkeypatch.setattr(streams, "stderr_is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "500")
    monkeypatch.setenv("FORCE_COLOR", "1")
    with output.progress(EVIL, 2) as bar:
        bar.update(1, EVIL)
    drawn = capsys.readouterr().err
    assert SHOWN in drawn
    assert not any(raw in drawn for raw in OBEYED)
    monkeypatch.delenv("FORCE_COLOR")
    monkeypatch.setenv("NO_COLOR", "1")
    for tell in (output.say, output.warn, output.error):
        tell(EVIL)
    told = click.unstyle(capsys.readouterr().err)
    assert all(line.isprintable() for line in told.splitlines())
    assert told.count(SHOWN) == 3


@pytest.mark.parametrize(
    ("data", "title"),
    [
        ("folder:/home/me/photos", "folder:photos"),
        ("shards:/a/{train,test}-{0..9}.tar", "shards:{train,test}-{0..9}.tar"),
        ("hf:owner/name:config", "hf:owner/name:config"),
        ("folder:photos/mine", "folder:photos/mine"),
        ("folder:/", "folder:/"),
        ("cifar10", "cifar10"),
    ],
)
def test_titles_name_the_last_part_of_an_absolute_path(data, title):
    assert text.data_title(data) == title
