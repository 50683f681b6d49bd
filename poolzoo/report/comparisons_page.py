"""Several comparisons on one page, such as a published leaderboard: what was found, then one comparison at a time."""

from __future__ import annotations

import math
import os
import re
import unicodedata
from collections.abc import Sequence
from html import escape
from typing import Any, Final

from poolzoo.common import output
from poolzoo.report import compare_page, plots
from poolzoo.report.pieces import Safe, element
from poolzoo.report.variants import finite

MOST_EPOCHS: Final = 60  # of a learning curve; with more, many comparisons would make the page slow to load
DIGITS: Final = 5  # of a number in a chart; a share in per cent keeps two or three decimals
GONE: Final = None  # in a difference: the key is not there, as in a JSON merge patch (RFC 7396)


def html(title: str, lead: Sequence[str], comparisons: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """The whole page, which needs nothing but a browser; without JavaScript, and on paper, it shows all comparisons.

    Args:
        title: Its heading.
        lead: What was found, a sentence or two each; what stands between backticks is shown as code.
        comparisons: The heading of each and the content of its `compare.json`.
    """
    main = [element("ol", *(element("li", _marked(told)) for told in lead), class_="findings")] if lead else []
    charts: dict[str, Any] = {}
    links, articles = [], []
    for (heading, found), slug in zip(comparisons, slugs([heading for heading, _ in comparisons]), strict=True):
        place = compare_page.Place(f"{slug}_")  # no slug has an underscore, so no id is that of another comparison
        parts = compare_page.parts(thinned(found), place)
        above = [element("p", compare_page.subject(found), class_="kind"), element("h2", heading, id=f"{slug}_heading")]
        articles.append(element("article", *above, *map(_deeper, parts), id=slug, aria_labeledby=f"{slug}_heading"))
        links.append(element("li", element("a", heading, href=f"#{slug}")))
        charts |= {name: packed(figures) for name, figures in place.drawn.items()}
    if len(links) > 1:
        main.append(element("nav", element("ul", *links), aria_label="Comparisons"))
    return compare_page.page(title, [*main, *articles], charts)


def slugs(headings: Sequence[str]) -> list[str]:
    """A name for each heading that can be typed in an address, such as `digits-frozen`; no two are the same."""
    made: list[str] = []
    for heading in headings:
        plain = unicodedata.normalize("NFKD", heading).encode("ascii", "ignore").decode().lower()
        slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-") or "comparison"
        others = (f"{slug}-{number}" for number in range(2, len(made) + 3))
        made.append(slug if slug not in made else next(other for other in others if other not in made))
    return made


def thinned(found: dict[str, Any]) -> dict[str, Any]:
    """A comparison whose learning curves have no more epochs than can be seen, the last one among them."""
    return {**found, "results": [_fewer_epochs(result) for result in found.get("results") or []]}


def _fewer_epochs(result: dict[str, Any]) -> dict[str, Any]:
    runs = [run or [] for run in result.get("curves") or []]
    epochs = sorted({epoch for run in runs for row in run if (epoch := finite(row.get("epoch"))) is not None})
    kept = set(epochs[:: -max(1, math.ceil(len(epochs) / MOST_EPOCHS))])
    return {**result, "curves": [[row for row in run if row.get("epoch") in kept] for run in runs]}


def packed(figures: Sequence[plots.Figure]) -> dict[str, Any]:
    """The figures of a chart for the script in little room: the first, and how each of the others differs from it."""
    first, *others = (_short(figure) for figure in figures)
    return {"first": first, "others": [_difference(first, other) for other in others]}


def _short(part: Any, key: str = "") -> Any:
    """A part of a figure with numbers of a few digits, and with what all texts of a trace start with told once."""
    if isinstance(part, dict):
        return {name: _short(value, name) for name, value in part.items()}
    if isinstance(part, list) and key == "hovertext":
        start = os.path.commonprefix(part)  # noqa: RUF071 - of texts, not of paths
        return {"start": start, "ends": [told[len(start) :] for told in part]}
    if isinstance(part, list):
        return [_short(value) for value in part]
    if isinstance(part, float):
        rounded = float(f"{part:.{DIGITS}g}")
        return int(rounded) if rounded.is_integer() else rounded
    return part


def _difference(first: Any, other: Any) -> Any:
    """What makes `other` of `first`: keys that are new or differ, by index in a list of objects, and those gone."""
    if isinstance(first, list) and isinstance(other, list) and len(first) == len(other):
        pairs = list(zip(first, other, strict=True))
        if not all(isinstance(part, dict) for pair in pairs for part in pair):
            return other
        return {place: _difference(*pair) for place, pair in enumerate(pairs) if pair[0] != pair[1]}
    if not (isinstance(first, dict) and isinstance(other, dict)):
        return other
    changed = {
        key: _difference(first[key], value) if key in first else value
        for key, value in other.items()
        if key not in first or first[key] != value
    }
    return changed | {key: GONE for key in first if key not in other}


def _marked(told: str) -> Safe:
    """A sentence of any length as text of the page, what stands between backticks as code."""
    return Safe(re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(output.one_line(told, 8 * len(told)))))


def _deeper(part: Safe) -> Safe:
    """A part of a comparison below that comparison's own heading; only markup has a `<`, all else is escaped."""
    return Safe(part.replace("<h2 ", "<h3 ").replace("</h2>", "</h3>"))
