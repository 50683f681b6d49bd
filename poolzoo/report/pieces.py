"""Building blocks of a self-contained page: escaped text, tables, and the document around them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Final

from poolzoo.common.text import one_line
from poolzoo.report import bundle_words

STYLE: Final = Path(__file__).with_name("page.css")  # of all pages
LONGEST: Final = 400  # characters of one text; an error of a library may be longer


class Safe(str):
    """Finished HTML. Any other text is escaped when it becomes part of a page."""


def text(value: object) -> Safe:
    """Anything as text of a page: escaped, on one line, without control characters or lone surrogates."""
    return value if isinstance(value, Safe) else Safe(escape(one_line(str(value), LONGEST)))


def joined(parts: Iterable[object]) -> Safe:
    return Safe("\n".join(text(part) for part in parts))


def element(name: str, *content: object, **attributes: object) -> Safe:
    """`<name key="value">content</name>`; a trailing underscore of a key is dropped, other `_` become `-`."""
    given = "".join(f' {key.rstrip("_").replace("_", "-")}="{text(value)}"' for key, value in attributes.items())
    return Safe(f"<{name}{given}>{joined(content)}</{name}>")


def section(identity: str, title: str, *content: object) -> Safe:
    """A section of the page with its heading; nothing where it is empty."""
    if not any(content):
        return Safe("")
    heading = element("h2", title, id=f"{identity}-title")
    return element("section", heading, *content, id=identity, aria_labelledby=f"{identity}-title")


def table(
    caption: str, headers: Sequence[object], rows: Iterable[Sequence[object]], kind: str, foot: Sequence[object] = ()
) -> Safe:
    """A table whose first column names its rows, in a box that scrolls on a narrow screen.

    Args:
        caption: Its title.
        headers: The names of its columns.
        rows: The cells. A cell or header that is a finished `<td>` or `<th>` is kept as it is.
        kind: Its class in the style sheet.
        foot: Cells of a summary row.
    """
    parts = [
        element("caption", caption),
        element("thead", element("tr", *(_cell(header, "th", scope="col") for header in headers))),
        element("tbody", *map(_row, rows)),
        *([element("tfoot", _row(foot))] if foot else []),
    ]
    return element(
        "div", element("table", *parts, class_=kind), class_="scroll", role="region", aria_label=caption, tabindex=0
    )


def properties(caption: str, values: Mapping[str, object]) -> Safe:
    """A table of named values, such as settings."""
    rows = [(str(name).replace("_", " "), bundle_words.value(value)) for name, value in values.items()]
    return table(caption, ("name", "value"), rows, "properties")


def _row(cells: Sequence[object]) -> Safe:
    return element("tr", _cell(cells[0], "th", scope="row"), *(_cell(cell, "td") for cell in cells[1:]))


def _cell(value: object, name: str, **attributes: object) -> Safe:
    finished = isinstance(value, Safe) and value.startswith(("<td", "<th"))
    return Safe(value) if finished else element(name, value, **attributes)


def document(title: str, policy: str, style: Path, body: Iterable[object]) -> str:
    """A whole page.

    Args:
        title: The title of the browser's tab.
        policy: What the page may run and fetch, as a Content-Security-Policy.
        style: The style sheet of this kind of page; the one of all pages comes first.
        body: The content of the page.
    """
    sheets = "".join(path.read_text(encoding="utf-8") for path in (STYLE, style))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
{element("title", title)}
<style>
{sheets}</style>
</head>
<body>
{joined(body)}
</body>
</html>
"""
