"""`runtimes.html` of a bundle: what `verify --runtime` found, as a self-contained page without a script."""

from __future__ import annotations

from collections.abc import Sequence

from poolzoo.artifacts.schema import KeptRuntime
from poolzoo.report import runtime_table
from poolzoo.report.bundle_page import POLICY, STYLE
from poolzoo.report.pieces import Safe, document, element, section, table


def html(name: str, rows: Sequence[KeptRuntime]) -> str:
    """The whole page.

    Args:
        name: That of the bundle's directory.
        rows: Those of `runtimes.json`.
    """
    shown = table(
        "What the bundle gives in each", runtime_table.kept_headers(rows), runtime_table.kept_cells(rows), "runtimes"
    )
    back = element("p", Safe('<a href="report.html">report.html</a>'), " shows the bundle itself.")
    same = runtime_table.conditions(rows)
    note = element("p", f"Measured {same}. {runtime_table.NOTE}" if same else runtime_table.NOTE, class_="note")
    header = element("header", element("p", "poolzoo bundle", class_="kind"), element("h1", name))
    main = element("main", section("runtimes", "Other runtimes", shown, note, back))
    return document(f"{name}: other runtimes", POLICY, STYLE, [header, main])
