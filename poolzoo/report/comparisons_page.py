"""Several comparisons on one page, such as a published leaderboard: the findings, then one comparison at a time."""

from __future__ import annotations

import math
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import Final

from poolzoo.common.text import one_line
from poolzoo.report import across_page, compare_page
from poolzoo.report.across_results import AcrossResult
from poolzoo.report.pieces import Safe, element
from poolzoo.report.plots import Figure, Json
from poolzoo.report.results import ComparisonResult, VariantResult

MAX_EPOCHS: Final = 60  # of a learning curve; more make a page of many comparisons slow to load
OVER_ALL: Final = "Over all comparisons"
OVER_ALL_SLUG: Final = "over-all--comparisons"  # no slug of a heading has two dashes
DIGITS: Final = 5  # of a number in a chart; a percentage keeps two or three decimals
REMOVED: Final = None  # in a difference: the key is removed, as in a JSON merge patch (RFC 7396)


def html(
    title: str,
    lead: Sequence[str],
    comparisons: Sequence[tuple[str, ComparisonResult]],
    over_all: AcrossResult | None = None,
) -> str:
    """The whole page. Without JavaScript, and on paper, it shows all comparisons.

    Args:
        title: Its heading.
        lead: The findings, a sentence or two each; what stands between backticks is shown as code.
        comparisons: Each with its heading.
        over_all: What they say together, which comes first.
    """
    main = [findings(lead)] if lead else []
    charts: dict[str, Json] = {}
    links, articles = ([], []) if over_all is None else ([over_all_link()], [over_all_article(over_all)])
    for (heading, found), slug in zip(comparisons, slugs([heading for heading, _ in comparisons]), strict=True):
        place = compare_page.Place(f"{slug}_")  # no slug has an underscore, so ids of comparisons never collide
        parts = compare_page.parts(thinned(found), place)
        above = [element("p", compare_page.title(found), class_="kind"), element("h2", heading, id=f"{slug}_heading")]
        articles.append(element("article", *above, *map(_deeper, parts), id=slug, aria_labelledby=f"{slug}_heading"))
        links.append(element("li", element("a", heading, href=f"#{slug}")))
        charts |= {name: packed(figures) for name, figures in place.figures.items()}
    if len(links) > 1:
        main.append(element("nav", element("ul", *links), aria_label="Comparisons"))
    return compare_page.page(title, [*main, *articles], charts)


def findings(lead: Sequence[str]) -> Safe:
    """The list of findings, a sentence or two each; what stands between backticks is shown as code."""
    return element("ol", *(element("li", _marked(one)) for one in lead), class_="findings")


def over_all_link() -> Safe:
    """The link to what the comparisons say together."""
    return element("li", element("a", OVER_ALL, href=f"#{OVER_ALL_SLUG}"))


def over_all_article(found: AcrossResult) -> Safe:
    """What the comparisons say together."""
    heading = f"{OVER_ALL_SLUG}_heading"
    above = [element("p", across_page.title(found), class_="kind"), element("h2", OVER_ALL, id=heading)]
    parts = map(_deeper, across_page.parts(found, f"{OVER_ALL_SLUG}_"))
    return element("article", *above, *parts, id=OVER_ALL_SLUG, aria_labelledby=heading)


def slugs(headings: Sequence[str]) -> list[str]:
    """A name for each heading that can be typed in an address, such as `digits-frozen`; no two are the same."""
    made: list[str] = []
    for heading in headings:
        plain = unicodedata.normalize("NFKD", heading).encode("ascii", "ignore").decode().lower()
        slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-") or "comparison"
        others = (f"{slug}-{number}" for number in range(2, len(made) + 3))
        made.append(slug if slug not in made else next(other for other in others if other not in made))
    return made


def thinned(found: ComparisonResult) -> ComparisonResult:
    """A comparison whose learning curves have at most MAX_EPOCHS epochs, the last one among them."""
    return replace(found, results=[_thinned(result) for result in found.results])


def _thinned(result: VariantResult) -> VariantResult:
    epochs = sorted({point.epoch for run in result.curves for point in run if point.epoch is not None})
    kept = set(epochs[:: -max(1, math.ceil(len(epochs) / MAX_EPOCHS))])
    return replace(result, curves=[[point for point in run if point.epoch in kept] for run in result.curves])


def packed(figures: Sequence[Figure]) -> Json:
    """The figures of a chart in a compact form for the script: the first, and the difference of each other to it."""
    first, *others = (_short(figure.to_json()) for figure in figures)
    return {"first": first, "others": [_difference(first, other) for other in others]}


def _short(part: Json, key: str = "") -> Json:
    """A part of a figure with numbers of a few digits; texts of a trace have their common prefix written once."""
    if isinstance(part, Mapping):
        return {name: _short(value, name) for name, value in part.items()}
    if isinstance(part, list) and key == "hovertext":
        start = os.path.commonprefix(part)  # noqa: RUF071 - of texts, not of paths
        return {"start": start, "ends": [str(text)[len(start) :] for text in part]}
    if isinstance(part, list):
        return [_short(value) for value in part]
    if isinstance(part, float):
        rounded = float(f"{part:.{DIGITS}g}")
        return int(rounded) if rounded.is_integer() else rounded
    return part


def _difference(first: Json, other: Json) -> Json:
    """A patch from `first` to `other`: keys that are new or differ, by index in a list of objects, and removed keys."""
    if isinstance(first, list) and isinstance(other, list) and len(first) == len(other):
        pairs = list(zip(first, other, strict=True))
        if not all(isinstance(part, Mapping) for pair in pairs for part in pair):
            return other
        return {str(place): _difference(*pair) for place, pair in enumerate(pairs) if pair[0] != pair[1]}
    if not (isinstance(first, Mapping) and isinstance(other, Mapping)):
        return other
    changed = {
        key: _difference(first[key], value) if key in first else value
        for key, value in other.items()
        if key not in first or first[key] != value
    }
    return changed | {key: REMOVED for key in first if key not in other}


def _marked(sentence: str) -> Safe:
    """A sentence of any length as text of the page, with code between backticks."""
    return Safe(re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(one_line(sentence, 8 * len(sentence)))))


def _deeper(part: Safe) -> Safe:
    """A section with its heading one level down; only markup has a `<`, all else is escaped."""
    return Safe(part.replace("<h2 ", "<h3 ").replace("</h2>", "</h3>"))
