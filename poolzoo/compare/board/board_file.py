"""The file of a board, which is read strictly, and its pages beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from poolzoo.common import conform, files, json_reader, locks
from poolzoo.common.errors import CheckFailed, UsageError
from poolzoo.common.text import one_line
from poolzoo.compare.board.board import SCHEMA, Board, BoardRow, BoardSection
from poolzoo.report.results import Accuracy, Delta


def load(path: Path) -> Board:
    """Reads a board; a new one where there is no file.

    Raises:
        UsageError: It is no place for a board.
        CheckFailed: It is damaged, or of a later version.
    """
    if path.suffix != ".json":
        raise UsageError(f"{path} is no place for a board", "its name ends in .json; its pages are written beside it")
    if not path.exists():
        if not path.absolute().parent.is_dir():
            raise UsageError(f"{path.parent} does not exist", "make the directory first")
        return Board()
    files.require_file(path)
    try:
        text = path.read_text(encoding="utf-8")
        content: Any = json_reader.parse(text)
        if not isinstance(content, dict) or content.get("schema") != SCHEMA:
            raise CheckFailed(f"{path} is no board of this version of poolzoo", "restore it, or update poolzoo")
        if problem := conform.problem(content["sections"], dict[str, object], "sections"):
            raise ValueError(problem)
        found = {name: _section(value) for name, value in content["sections"].items()}
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise CheckFailed(f"{path} is damaged: {error}", "restore it") from error
    return Board(found, text)


def _section(found: Mapping[str, object]) -> BoardSection:
    """Reads a section.

    Raises:
        KeyError, TypeError, ValueError: It lacks something, or something has another type.
    """
    values = dict(found)
    rows = tuple(_row(row) for row in _typed(values.pop("rows"), list))
    texts = tuple(_typed(one, str) for one in _typed(values.pop("conclusions"), list))
    section = BoardSection(**values, rows=rows, conclusions=texts)  # type: ignore[arg-type]
    if text := conform.problem(section, BoardSection):
        raise ValueError(text)
    if not 0 < section.alpha < 1 or section.images < 1:
        raise ValueError(f"alpha is {section.alpha} and images {section.images}")
    return section


def _row(found: Mapping[str, object]) -> BoardRow:
    """Reads a row.

    Raises:
        KeyError, TypeError, ValueError: It lacks something, or something has another type.
    """
    values = dict(found)
    accuracy, delta = values.pop("accuracy"), values.pop("delta")
    f1 = {int(seed): float(_typed(value, float)) for seed, value in _typed(values.pop("f1"), dict).items()}
    correct = {int(seed): _typed(value, str) for seed, value in _typed(values.pop("correct"), dict).items()}
    values["reran"] = tuple(_typed(one, str) for one in _typed(values["reran"], list))
    row = BoardRow(
        **values,  # type: ignore[arg-type]
        f1=f1,
        correct=correct,
        accuracy=None if accuracy is None else Accuracy(**_figures(accuracy)),  # type: ignore[arg-type]
        delta=None if delta is None else Delta(**_figures(delta)),  # type: ignore[arg-type]
    )
    if not f1:
        raise ValueError(f"{row.name} has no seed")
    return row


def _figures(found: object) -> dict[str, float | None]:
    return {name: _typed(value, float, type(None)) for name, value in _typed(found, dict).items()}


def _typed(value: Any, *kinds: type) -> Any:
    """The value, if it has one of the types; an integer is a float too.

    Raises:
        TypeError: It has another one.
    """
    if isinstance(value, kinds) or (float in kinds and isinstance(value, int)):
        return value
    raise TypeError(f"{one_line(repr(value), 40)} is not {kinds[0].__name__}")


def save(board: Board, path: Path, before: Board) -> None:
    """Writes a board and its pages beside it, the pages first: the file of the board is what counts.

    Args:
        board: What to write.
        path: Its JSON file, or a link to it; its pages have its name with `.md` and `.html`.
        before: As it was read.

    Raises:
        CheckFailed: Somebody changed the file since, or a page cannot be replaced.
    """
    from poolzoo.compare.board import board_page

    path = path.resolve()
    markdown, html = path.with_suffix(".md"), path.with_suffix(".html")
    with locks.waiting_for(path.parent):  # no other command writes a board in this directory
        if (path.read_text(encoding="utf-8") if path.exists() else "") != before.text:
            raise CheckFailed(f"{path} changed while the submission was checked", "run the same command again")
        for page in (markdown, html):
            if page.exists() and not page.is_file():
                raise CheckFailed(f"{page} is no file, so that the page of the board has no place", "move it away")
        try:
            above = markdown.read_text(encoding="utf-8") if markdown.is_file() else ""
        except UnicodeDecodeError as error:
            raise CheckFailed(f"{markdown} is no text: {error}", "restore it, or move it away") from error
        pages = {markdown: board_page.markdown(board, above), html: board_page.html(board)}
        text = files.json_text(board.to_json())
        for place, content in pages.items():
            files.write_atomically(place, content)
        files.write_atomically(path, text)
