"""The page of several comparisons: which pooling wins over them. It needs no script."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from poolzoo.common import csv_writer
from poolzoo.report import across_charts as charts
from poolzoo.report.across_results import (
    AcrossComparison,
    AcrossGroup,
    AcrossResult,
    AcrossVariant,
    Interval,
)
from poolzoo.report.compare_page import conclusions
from poolzoo.report.leaderboard import MARKS, GainBar, signed
from poolzoo.report.pieces import Safe, document, element, joined, section, table
from poolzoo.report.results import Delta
from poolzoo.report.variants import count

STYLE: Final = Path(__file__).with_name("compare_page.css")
POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
READING: Final = {
    "Mean gain": "accuracy minus the baseline's in the same comparison. Every test set counts the same, and so does "
    "every comparison on it. Its interval and p are corrected for the number of variants; the other intervals are not.",
    "Rank": "the average over test sets, 1 for the best.",
    "P(improvement)": "how often a run of the variant beats one of the baseline.",
    "IQM": "the mean of the middle half of all runs, which one odd comparison does not move.",
    "Error ratio": "the geometric mean of its error over the baseline's; below 1 is better.",
    "Verdict": "better and worse need a significant mean that no comparison contradicts significantly.",
}


def html(found: AcrossResult) -> str:
    """The whole page."""
    header = element("header", element("p", "poolzoo report", class_="kind"), element("h1", title(found)))
    return document(title(found), POLICY, STYLE, [header, element("main", *parts(found, ""))])


def parts(found: AcrossResult, prefix: str) -> list[Safe]:
    """All sections, group by group, with the notes at the end.

    Args:
        found: The comparisons together.
        prefix: What ids start with.
    """
    several = len(found.groups) > 1
    made = []
    for number, group in enumerate(found.groups):
        place = f"{prefix}group{number}"
        made += [element("h2", _capital(group.title), class_="group", id=place)] if several else []
        made += _group(group, f"{place}-")
    notes = element("ul", *(element("li", note) for note in found.notes), class_="note") if found.notes else ""
    command = element("pre", element("code", found.command), tabindex=0) if found.command else ""
    return [*made, section(f"{prefix}about", "About these figures", notes, command)]


def title(found: AcrossResult) -> str:
    """The number of comparisons and of test sets."""
    sets = len({one.test_set for group in found.groups for one in group.aggregated})
    compared = sum(len(group.aggregated) for group in found.groups)
    return f"{count(compared, 'comparison')} on {count(sets, 'test set')}"


def _group(group: AcrossGroup, prefix: str) -> list[Safe]:
    """All sections of a group, from the conclusions to the list of comparisons."""
    return [
        element("div", *conclusions(group.conclusions), class_="conclusions"),
        section(
            f"{prefix}aggregates", "Aggregated gains",
            _reading(), _aggregates(group), _missing(group),
        ),
        _ranks(group, prefix),
        section(f"{prefix}gains", "Gain in each comparison", _gains(group)),
        _profile(group, prefix),
        section(f"{prefix}comparisons", "The comparisons", _comparisons(group)),
    ]  # fmt: skip


def _reading() -> Safe:
    """What the columns mean."""
    parts = [element("li", element("b", f"{name}:"), meaning) for name, meaning in READING.items()]
    return element("ul", *parts, class_="note")


def _aggregates(group: AcrossGroup) -> Safe:
    bar = GainBar(_ends(group))
    n = len(group.aggregated)
    headers = (
        "variant", "mean gain, points", "verdict", "rank", "P(improvement)", "IQM, points", "error ratio",
        f"better in, of {n}", f"worse in, of {n}",
    )  # fmt: skip
    rows = [
        (
            row.name,
            "–" if row.gain is None else _gain(row.gain, row.verdict, bar),
            _verdict(row),
            f"{row.average_rank:.1f}",
            _interval(row.improvement, 1, "{:.2f}"),
            _interval(row.iqm, 100, "{:+.2f}"),
            _interval(row.error_ratio, 1, "{:.2f}"),
            "–" if row.gain is None else row.better_in,
            "–" if row.gain is None else row.worse_in,
        )
        for row in group.variants
    ]
    return table("All common variants, the highest gain first", headers, rows, "across")


def _ends(group: AcrossGroup) -> list[float]:
    """The ends of all intervals, in points."""
    ends = [end for row in group.variants if row.gain for end in (row.gain.low, row.gain.high)]
    return [100 * end for end in ends if end is not None]


def _gain(delta: Delta, verdict: str, bar: GainBar) -> Safe:
    if delta.mean is None or delta.low is None or delta.high is None:
        return element("td", "–")
    return element("td", bar.draw(100 * delta.mean, 100 * delta.low, 100 * delta.high, verdict.split()[0]))


def _verdict(row: AcrossVariant) -> Safe:
    mark = element("span", MARKS.get(row.verdict, "↕" if row.verdict == "depends" else ""), aria_hidden="true")
    shown = [element("span", mark, row.verdict, class_=f"mark {row.verdict.split()[0]}")]
    p = row.gain.p_adjusted if row.gain else None
    return joined(shown if p is None else [*shown, element("small", f"p {p:.3f}" if p >= 0.001 else "p < 0.001")])


def _interval(found: Interval | None, factor: float, shape: str) -> object:
    if found is None:
        return "–"
    ends = (round(factor * end, 2) + 0.0 for end in (found.mean, found.low, found.high))
    mean, low, high = (shape.format(end).replace("-", "−") for end in ends)
    return joined([mean, element("small", f"{low} to {high}")])


def _missing(group: AcrossGroup) -> Safe:
    if not group.missing:
        return Safe("")
    n = len(group.aggregated)
    named = ", ".join(f"{name} ({lacking} of {n})" for name, lacking in group.missing.items())
    return element("p", f"Not aggregated, with the number of comparisons that lack them: {named}.", class_="note")


def _ranks(group: AcrossGroup, prefix: str) -> Safe:
    if group.critical_difference is None or group.friedman_p is None:
        return Safe("")
    caption = (
        f"Average rank over {count(group.test_sets, 'test set')}, the best on the left. A bar joins variants of "
        f"which no two differ by the signed-rank test with Holm's correction. Nemenyi's critical difference is "
        f"{group.critical_difference:.1f} ranks. Friedman's test that all variants are alike: "
        f"p = {group.friedman_p:.4f}."
    )
    figure = element(
        "figure", element("figcaption", caption), _scrolling(charts.ranks(group), "Average ranks"), class_="wide"
    )
    return section(f"{prefix}ranks", "Average ranks", figure)


def _scrolling(chart: Safe, label: str) -> Safe:
    """A chart in a box that scrolls on a narrow screen, where it would be too small to read."""
    return element("div", chart, class_="scroll", role="region", aria_label=label, tabindex=0)


def _gains(group: AcrossGroup) -> Safe:
    """A heat map: one row a variant, one column a comparison, also those that are not aggregated."""
    names = [row.name for row in group.variants]
    names += [name for name in group.missing if any(name in one.cells for one in group.comparisons)]
    scale = charts.scale_of([cell.gain for one in group.comparisons for cell in one.cells.values()], 0.9)
    headers = ["variant", *(element("th", _column(one), scope="col") for one in group.comparisons)]
    rows = [[name, *(_cell(one, name, scale) for one in group.comparisons)] for name in names if name != group.baseline]
    caption = "Points over the baseline; ▲ and ▼: significant in that comparison; a dash: it has no such variant"
    return table(caption, headers, rows, "heat gains")


def _column(one: AcrossComparison) -> Safe:
    left = [element("small", "not aggregated")] if one.left_out else []
    return joined([one.name, *left])


def _cell(one: AcrossComparison, name: str, scale: float) -> Safe:
    if name not in one.cells:
        return element("td", "–", class_="none")
    cell = one.cells[name]
    mark = " ▲" if cell.better else " ▼" if cell.worse else ""
    return element("td", f"{signed(100 * cell.gain)}{mark}", style=charts.shade(cell.gain, scale))


def _profile(group: AcrossGroup, prefix: str) -> Safe:
    if not group.profile:
        return Safe("")
    caption = "Performance profile: the share of single runs whose gain is at least as large; the highest mean gains."
    figure = element(
        "figure",
        element("figcaption", caption),
        _scrolling(charts.profile(group), "Performance profile"),
        charts.legend(group),
        class_="wide",
    )
    return section(f"{prefix}profile", "Performance profile", figure)


def _comparisons(group: AcrossGroup) -> Safe:
    headers = ("comparison", "data", "backbone", "test set", "test images", "seeds", "resampled")
    rows = [
        (
            one.name, one.data, one.backbone, one.test_set, f"{one.n_test:,}", one.seeds,
            one.left_out or ("seeds and images" if one.images_resampled else "seeds"),
        )
        for one in group.comparisons
    ]  # fmt: skip
    return table(
        "Comparisons with the same number of a test set share test images, or the name of their data",
        headers,
        rows,
        "listing",
    )


def csv(found: AcrossResult) -> str:
    """One row a variant and group, fractions as 0–1."""
    rows = [_csv_row(group, row) for group in found.groups for row in group.variants]
    return csv_writer.document(list(rows[0]) if rows else ["variant"], [list(row.values()) for row in rows])


def _csv_row(group: AcrossGroup, row: AcrossVariant) -> dict[str, object]:
    return {
        "group": group.title,
        "variant": row.name,
        "verdict": row.verdict,
        "accuracy": row.accuracy,
        "average_rank": row.average_rank,
        **_columns("gain", row.gain, ("mean", "low", "high", "p", "p_adjusted")),
        **_columns("iqm", row.iqm, ("mean", "low", "high")),
        **_columns("improvement", row.improvement, ("mean", "low", "high")),
        **_columns("error_ratio", row.error_ratio, ("mean", "low", "high")),
        "better_in": row.better_in,
        "worse_in": row.worse_in,
        "comparisons": len(group.aggregated),
        "elsewhere_p": row.elsewhere_p,
    }


def _columns(name: str, found: Delta | Interval | None, keys: Sequence[str]) -> dict[str, object]:
    return {f"{name}_{key}": None if found is None else getattr(found, key) for key in keys}


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
