"""The leaderboard of a comparison's page: one row a variant, every column sortable, the gain drawn as a small bar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from poolzoo.report import bundle_words as words
from poolzoo.report.pieces import Safe, element, joined, section, table, text
from poolzoo.report.results import MeanSd
from poolzoo.report.variants import NOT_SIGNIFICANT, VariantView, mean_percent, percent

ASCENDING: Final = "ascending"
DESCENDING: Final = "descending"
MARKS: Final = {"better": "▲", "worse": "▼", NOT_SIGNIFICANT: "≈", "baseline": "◆", "failed": "✗", "left out": "–"}
ORDER: Final = {"better": 3, "baseline": 2, NOT_SIGNIFICANT: 1, "worse": 0}  # of the column of significances
ACCURACY: Final = "accuracy, %"  # the column by which the rows are sorted at first
SIGNIFICANCE: Final = "vs. baseline"
WIDEST: Final = 2.0


@dataclass(frozen=True)
class Column:
    """A column of the leaderboard.

    Attributes:
        title: Its heading.
        key: What it is sorted by; None for a cell without a value.
        show: The content of a cell that has a value.
        first: The order when it is sorted for the first time.
        kind: Whether keys are compared as "number" or as "text".
    """

    title: str
    key: Callable[[VariantView], float | str | None]
    show: Callable[[VariantView], object]
    first: str = DESCENDING
    kind: str = "number"


def leaderboard(variants: Sequence[VariantView], prefix: str = "", seeds: int = 1) -> Safe:
    """The section with the table and its filter; nothing without a variant.

    Args:
        variants: In the order of the rows.
        prefix: What ids start with, for a page with several leaderboards.
        seeds: Of the comparison.
    """
    if not variants:
        return Safe("")
    box = Safe(f'<input type="search" id="{text(prefix)}filter" placeholder="gem better …">')
    count = element("output", for_=f"{prefix}filter", id=f"{prefix}shown")
    note = element("p", _note(variants), class_="note") if _note(variants) else ""
    controls = element("div", element("label", "Filter", box), count, class_="controls")
    return section(f"{prefix}leaderboard", "Leaderboard", note, controls, _table(variants, seeds))


def _note(variants: Sequence[VariantView]) -> str:
    """How to read the figures."""
    note = "Figures are means over the seeds ± their standard deviation." if any(v.done for v in variants) else ""
    if any(v.result.delta for v in variants):
        note += (
            " Gain: accuracy minus that of the baseline in the same backbone; its interval and p are corrected for "
            "multiple comparisons."
        )
    if any(v.result.rank for v in variants):
        note += " Rank: 1 plus the number of variants that are significantly better."
    return note


def _table(variants: Sequence[VariantView], seeds: int) -> Safe:
    """One row a variant; a column without any value is left out."""
    columns = [column for column in _columns(variants, seeds) if any(column.key(v) is not None for v in variants)]
    headers = [_header(column) for column in columns]
    rows = [[_cell(column, v, place == 0) for place, column in enumerate(columns)] for v in variants]
    return table("All variants; a click on a heading sorts", headers, rows, "leaderboard")


def _columns(variants: Sequence[VariantView], seeds: int) -> list[Column]:
    deltas = [v.result.delta for v in variants if v.result.delta]
    ends = [percent(end) for delta in deltas for end in (delta.low, delta.mean, delta.high)]
    bar = GainBar([end for end in ends if end is not None])
    return [
        Column("variant", lambda v: v.name.lower(), _name, ASCENDING, "text"),
        Column("rank", lambda v: v.result.rank, lambda v: v.result.rank, ASCENDING),
        _fraction(ACCURACY, lambda v: v.result.accuracy),
        Column("gain, points", lambda v: v.gain, bar.cell),
        Column(SIGNIFICANCE, lambda v: ORDER.get(v.significance), lambda v: _significance(v, seeds)),
        _fraction("F1, %", lambda v: v.result.f1),
        _fraction("crop consistency, %", lambda v: v.result.crop_consistency),
        _fraction("shift consistency, %", lambda v: v.result.shift_consistency),
        Column("mean corruption accuracy, %", _corruption_accuracy, lambda v: two_digits(_corruption_accuracy(v))),
        Column("parameters", lambda v: v.result.params, lambda v: compact(v.result.params), ASCENDING),
        Column("MACs", lambda v: v.result.macs, lambda v: compact(v.result.macs), ASCENDING),
        Column("training, s", _train_seconds, _show_train_seconds, ASCENDING),
        _latency("1 image, ms", lambda v: v.result.latency_ms),
        _latency("32 images, ms", lambda v: v.result.latency_ms_32),
        Column("ONNX parity", _parity, lambda v: "✓ passed" if v.result.parity else "✗ failed"),
    ]


def _fraction(title: str, figures: Callable[[VariantView], MeanSd | None]) -> Column:
    """A column of fractions in percent, with their standard deviation."""

    def show(v: VariantView) -> object:
        found = figures(v)
        shown = two_digits(mean_percent(found))
        if found is None or found.sd is None:
            return shown
        return joined([shown, element("small", f"± {100 * found.sd:.2f}")])

    return Column(title, lambda v: mean_percent(figures(v)), show)


def _latency(title: str, latency: Callable[[VariantView], float | None]) -> Column:
    return Column(title, latency, lambda v: words.milliseconds(latency(v)), ASCENDING)


def two_digits(value: float | None) -> str:
    """A number with two digits behind the point; a dash where there is none."""
    return "–" if value is None else f"{value:.2f}"


def _corruption_accuracy(v: VariantView) -> float | None:
    found = v.result.corruption_accuracy
    return None if found is None else percent(found.mean)


def _train_seconds(v: VariantView) -> float | None:
    return v.result.train_seconds.mean if v.result.train_seconds else None


def _show_train_seconds(v: VariantView) -> object:
    found = v.result.train_seconds or MeanSd()
    shown = f"{found.mean or 0:,.1f}"
    return shown if found.sd is None else joined([shown, element("small", f"± {found.sd:,.1f}")])


def _parity(v: VariantView) -> float | None:
    passed = v.result.parity
    return None if passed is None else float(passed)


def _name(v: VariantView) -> object:
    error = v.result.error or ("" if v.done else "unknown error")  # where it is done, a seed failed
    return joined([v.name, element("small", error, class_="error")]) if error else v.name


def _significance(v: VariantView, seeds: int = 1) -> object:
    shown, p = v.significance, v.result.delta.p_adjusted if v.result.delta else None
    mark = element("span", MARKS.get(shown, ""), aria_hidden="true")
    parts = [element("span", mark, shown, class_=f"mark {shown.split()[0]}")]
    if p is not None:
        parts.append(element("small", f"p {p:.3f}" if p >= 0.001 else "p < 0.001"))
    if v.result.stop is not None:
        parts.append(element("small", v.result.stop.reason(seeds)))
    return joined(parts)


def compact(count: float | None) -> str:
    """A count with three digits and k, M or G; a dash where there is none."""
    if count is None:
        return "–"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= 0.9995 * size:
            return f"{count / size:.3g} {letter}" if count < 999.5 * size else f"{count / size:.0f} {letter}"
    return f"{count:.0f}"


def signed(points: float) -> str:
    """A gain with its sign, which is a true minus where it is negative."""
    return f"{round(points, 2) + 0.0:+.2f}".replace("-", "−")


class GainBar:
    """Draws gains over the baseline on one scale that contains zero.

    The scale ends at WIDEST times the third quartile of their sizes, so that one failure does not shrink all others.

    Args:
        values: All gains and the ends of their intervals, in points.
    """

    def __init__(self, values: Sequence[float]) -> None:
        sizes = sorted(map(abs, values)) or [0.0]
        most = WIDEST * sizes[3 * len(sizes) // 4]
        self.low = max(-most, min(0.0, min(values, default=0.0)))
        self.high = min(most, max(0.0, max(values, default=0.0)))

    def _at(self, value: float) -> float:
        """The place of a gain, in percent of the bar; one beyond the scale is at its end."""
        return 3 + 94 * (min(max(value, self.low), self.high) - self.low) / ((self.high - self.low) or 1.0)

    def cell(self, v: VariantView) -> Safe:
        """A gain as a number, its interval, and both as a bar, which is decoration beside the numbers."""
        low, high = (None, None) if v.result.delta is None else (v.result.delta.low, v.result.delta.high)
        return self.draw(v.gain or 0.0, percent(low), percent(high), v.significance.split()[0])

    def draw(self, gain: float, low: float | None, high: float | None, kind: str) -> Safe:
        """The same for a gain and the ends of its interval, in points; `kind` is its class in the style sheet."""
        drawn = [self._mark("zero", 0.0, 0.0, 0, 14)]
        shown = [element("b", signed(gain))]
        if low is not None and high is not None:
            drawn.append(self._mark("interval", low, high, 7, 7))
            shown.append(element("small", f"{signed(low)} to {signed(high)}"))
        drawn.append(Safe(f'<circle cx="{self._at(gain):.2f}%" cy="7" r="3.5"/>'))
        bar = element("svg", *drawn, aria_hidden="true", width="100%", height=14, class_=f"gain {kind}")
        return joined([*shown, bar])

    def _mark(self, kind: str, left: float, right: float, top: float, bottom: float) -> Safe:
        x1, x2 = self._at(left), self._at(right)
        return Safe(f'<line class="{kind}" x1="{x1:.2f}%" y1="{top}" x2="{x2:.2f}%" y2="{bottom}"/>')


def _header(column: Column) -> Safe:
    button = element("button", column.title, element("span", aria_hidden="true"), type="button")
    return element(
        "th",
        button,
        scope="col",
        data_title=column.title,
        data_first=column.first,
        data_kind=column.kind,
        aria_sort=DESCENDING if column.title == ACCURACY else "none",
    )


def _cell(column: Column, v: VariantView, first: bool) -> Safe:
    key = column.key(v)
    name, attributes = ("th", {"scope": "row"}) if first else ("td", {})
    if key is None:
        shown = _significance(v) if column.title == SIGNIFICANCE else "–"
        return element(name, shown, **attributes)
    sort_key = f"{key:.10g}" if isinstance(key, (int, float)) else key
    return element(name, column.show(v), data_key=sort_key, **attributes)
