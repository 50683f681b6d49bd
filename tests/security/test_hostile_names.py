"""The same hostile texts through every output, each read back by a parser that is not poolzoo's."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from itertools import cycle, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile import TEXTS, Page, formulas, obeyed
from PIL import Image
from support.comparison import comparison, page_of

from poolzoo.common import csv_writer, errors, markdown, output
from poolzoo.common.text import one_line, printable
from poolzoo.data.walk import Tally
from poolzoo.datasets import table_rows
from poolzoo.report import compare_page, comparisons_page, confusion
from poolzoo.report.results import ComparisonResult
from poolzoo.runtime.prediction import file_lists

EVERY = range(len(TEXTS))
KEPT = ("status", "started")  # not words of anybody but poolzoo


def replaced(value: Any, texts: Iterator[str], key: str = "") -> Any:
    """JSON with the next of some texts in place of every other one."""
    if isinstance(value, dict):
        return {name: replaced(part, texts, name) for name, part in value.items()}
    if isinstance(value, list):
        return [replaced(part, texts, key) for part in value]
    return next(texts) if isinstance(value, str) and key not in KEPT else value


# --- A terminal ----------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_no_line_on_a_terminal_obeys_a_text(capsys, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")  # no colors of our own
    monkeypatch.setenv("COLUMNS", "600")
    shown = Terminal()
    with redirect_stdout(shown):
        for text in TEXTS:
            output.data(text)
            output.csv_row((text, 1))
            output.emit_json({text: [text]})
            output.table((text, "n"), [(text, 1)], right=(1,))
        output.emit_json_rows([text] for text in TEXTS)
    for tell in (output.say, output.warn, output.error):
        for text in TEXTS:
            tell(text)
    output.error("a", "\n".join(TEXTS))
    for text in (shown.getvalue(), capsys.readouterr().err):
        assert obeyed(text) == []
        assert "hostile" in text


def test_no_traceback_obeys_a_text(capsys, monkeypatch):
    monkeypatch.setenv("POOLZOO_DEBUG", "1")
    try:
        raise ValueError("\n".join(TEXTS) + "x" * 1_000_000)
    except ValueError as error:
        errors.show_traceback(error)
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback (most recent call last):\n  File ")
    assert obeyed(shown) == []
    assert shown.count("hostile") > len(TEXTS)
    assert len(shown) < 20_000


def test_the_check_sees_what_a_terminal_obeys():
    assert obeyed("\x1b[2J\u202ea\u200b\u3164\x9b\udcff") == ["001b", "009b", "200b", "202e", "3164", "dcff"]
    assert obeyed("a b\n\tété 🐈 数") == []


# --- Pages ---------------------------------------------------------------------------------------------------------


def test_pages_of_comparisons_show_texts_as_text():
    """All texts in one comparison: a page holds Plotly, of which a parser has much to read."""
    texts = cycle(TEXTS)
    found = replaced(comparison(variants=8, seeds=1, epochs=1, classes=9), texts)
    heading = next(texts)
    for source in (
        page_of(found),
        comparisons_page.html(heading, [*TEXTS], [(heading, ComparisonResult.from_json(found))]),
    ):
        page = Page(source)
        assert page.dangers == []
        assert len(page.scripts) == 1
        assert obeyed(page.text + page.scripts[0].partition("const charts = ")[2].partition("\n")[0]) == []
        assert [text for text in TEXTS if one_line(text, 400) not in page.text] == []
        assert "</script" not in page.scripts[0]


def test_the_check_of_pages_finds_what_is_active():
    source = "<p onclick=x></p><img src=//x><iframe></iframe><script>1</script><a href='javascript:1'>x</a>"
    assert len(Page(source).dangers) == 6


# --- Comma-separated values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", EVERY)
def test_no_cell_of_a_comparison_is_a_formula(at):
    found = replaced(comparison(variants=3, seeds=2, epochs=1, classes=2), repeat(TEXTS[at]))
    found["results"][1]["delta"]["mean"] = -0.25
    document = compare_page.csv(ComparisonResult.from_json(found))
    assert formulas(document) == []
    rows = list(csv.DictReader(io.StringIO(document, newline="")))
    assert {row["pool"].removeprefix("'") for row in rows} == {TEXTS[at]}
    assert "-0.25" in [row["delta_mean"] for row in rows]  # a number stays one


@pytest.mark.parametrize("at", EVERY)
def test_a_row_for_a_program_is_no_formula(at, capsys):
    output.csv_row((printable(TEXTS[at]), -1.5, "-1e-05", "1", None))
    document = capsys.readouterr().out
    assert formulas(document) == []
    first, *rest = next(csv.reader(io.StringIO(document, newline="")))
    assert first.removeprefix("'") == printable(TEXTS[at])
    assert rest == ["-1.5", "-1e-05", "1", ""]


@pytest.mark.parametrize("text", [*TEXTS, "'=x", "''=x", "'x", "'-1", "-1", "'", "", "''", "' =x"])
def test_a_text_comes_back_from_its_cell(text):
    assert csv_writer.plain(str(csv_writer.cell(text))) == text


def test_predictions_are_read_back_as_data(tmp_path):
    """What `predict --csv` writes is a list of images to `predict`, and data to `csv:`."""
    names = ["=red", "'=blue", "-1"]
    for name in names:
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    rows = [("path", "label"), *((f"{name}.png", name) for name in names)]
    table = tmp_path / "table.csv"
    table.write_text("".join(map(csv_writer.line, rows)), newline="")
    read = [(row.path, row.labels) for row in table_rows.rows(table, multilabel=False)]
    assert read == [(f"{name}.png", (name,)) for name in names]
    (tmp_path / "list.csv").write_text(csv_writer.document(["file"], [["=red.png"], ["'=blue.png"]]))
    assert list(file_lists.images_in(str(tmp_path / "list.csv"), Tally())) == ["=red.png", "'=blue.png"]


@pytest.mark.parametrize("number", ["-1", "+2.5", "-.5", "1e-3", "-inf", "nan"])
def test_a_number_in_a_text_stays_a_number(number):
    assert csv_writer.cell(number) == number


@pytest.mark.parametrize("text", ["-1+1", "-", "--1", "+1|x", " =1", "-nan(", "-1 "])
def test_what_is_not_quite_a_number_is_a_text(text):
    assert csv_writer.cell(text) == f"'{text}"


# --- Markdown and pictures -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", EVERY)
def test_a_cell_of_markdown_is_one_cell_of_text(at):
    markdown_it = pytest.importorskip("markdown_it")
    source = markdown.table(("name", "n"), [(TEXTS[at], 1), ("other", 2)])
    tokens = markdown_it.MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(source)
    cells = [one for one in tokens if one.type == "inline"]
    assert len(cells) == 6
    assert {child.type for one in cells for child in one.children} <= {"text", "text_special"}
    assert "".join(child.content for child in cells[2].children) == one_line(TEXTS[at])
    assert obeyed(source) == []


def test_a_picture_takes_a_text_for_no_formula(tmp_path):
    """Warnings are errors here: one of matplotlib would say that it has tried to typeset a name."""
    names = [text for text in TEXTS if "$" in text or "\\" in text]
    confusion.draw(np.eye(len(names), dtype=int), names, tmp_path / "confusion.png")
    with Image.open(tmp_path / "confusion.png") as drawn:
        assert drawn.size[0] > 400


# --- From folders to every file ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A folder of images whose classes have hostile names, as far as a disk takes them."""
    root = tmp_path_factory.mktemp("project") / "<b>hostile"
    random = np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 2)):
        for place, text in enumerate(text.replace("/", "") for text in TEXTS):
            if len(text.encode("utf-8", "surrogateescape")) > 250:
                continue
            folder = root / split / text
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 30, (12, 12, 3)) + 8 * place
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}{text[:60]}.png")
    return root


def poolzoo_process(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "poolzoo", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, errors="surrogateescape", check=False)


@pytest.mark.slow
def test_no_file_or_line_of_any_command_lets_a_class_name_through(project, tmp_path):
    data, run, bundle = f"folder:{project}", tmp_path / "run", tmp_path / "bundle"
    compared = tmp_path / "comparison"
    images = sorted(map(str, (project / "test").rglob("*.png")))[:8]
    training = ("--data", data, "--backbone", "nano/plain", "--epochs", 1, "--threads", 1)
    commands = [
        ("data", "check", data, "--page", tmp_path / "check.html"),
        ("finetune", *training, "--pool", "gem", "--out", run),
        ("evaluate", run),
        ("export", run, "--out", bundle),
        ("verify", bundle, "--no-bench"),
        ("predict", bundle, *images),
        ("predict", bundle, *images, "--csv"),
        ("predict", bundle, *images, "--json"),
        ("predict", bundle, *images, "--saliency-dir", tmp_path / "saliency"),
        ("compare", *training, "--pool", "avg", "--pool", "max", "--seeds", 2, "--out", compared),
        ("report", run, "--out", tmp_path / "page.html"),
    ]
    for command in commands:
        done = poolzoo_process(*command)
        assert done.returncode in (0, 1), (command[:2], done.stderr)
        assert "Traceback" not in done.stderr
        assert obeyed(done.stderr) == [], command[:2]
        if "--csv" in command:
            assert formulas(done.stdout) == []
        else:
            assert obeyed(done.stdout) == [], command[:2]
        if "--json" in command:
            json.loads(done.stdout)
    script = subprocess.run(
        [sys.executable, bundle / "predict.py", *images],
        capture_output=True,
        text=True,
        errors="surrogateescape",
        check=True,
    )
    assert obeyed(script.stdout + script.stderr) == []
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) >= 4
    for path in pages:
        page = Page(path.read_text(encoding="utf-8"))
        assert page.dangers == [], path
        assert obeyed(page.text) == [], path
    tables = list(tmp_path.rglob("*.csv"))
    assert tables
    for path in tables:
        with path.open(encoding="utf-8", newline="") as file:
            assert formulas(file.read()) == [], path
    markdown_it = pytest.importorskip("markdown_it")
    cards = list(tmp_path.rglob("*.md"))
    assert cards
    for path in cards:
        text = path.read_text(encoding="utf-8")
        assert obeyed(text) == [], path
        tokens = markdown_it.MarkdownIt("commonmark").enable("table").parse(text.split("\n---\n", 1)[-1])
        inner = [one for token in tokens for one in token.children or ()]
        assert not any(one.type in ("html_inline", "image") and "hostile" in one.content for one in inner), path
        assert not any(token.type == "html_block" for token in tokens), path
