"""The leaderboard of a comparison's page: one row a variant, every column sortable, the gain drawn as a small bar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from poolzoo.report import bundle_words as words
from poolzoo.report.pieces import Safe, element, joined, section, table, text
from poolzoo.report.variants import Variant

UP, DOWN = "ascending", "descending"  # which end comes first when a column is sorted for the first time
MARKS: Final = {"better": "▲", "worse": "▼", "within noise": "≈", "baseline": "◆", "failed": "✗"}
ORDER: Final = {"better": 3, "baseline": 2, "within noise": 1, "worse": 0}


@dataclass(frozen=True)
class Column:
    """A column: its title, what it is sorted by, what it shows, and which end is wanted first."""

    title: str
    key: Callable[[Variant], float | str | None]
    show: Callable[[Variant], object]
    first: str = DOWN
    kind: str = "number"


def verdict(v: Variant) -> str:
    """What a variant is beside the baseline, in a word or two; a dash where nobody can say."""
    if not v.done:
        return "failed"
    if v.baseline:
        return "baseline"
    delta = v.found.get("delta")
    if not delta or v.number("delta", "mean") is None:
        return "–"
    return "better" if delta.get("better") else "worse" if delta.get("worse") else "within noise"


def leaderboard(variants: Sequence[Variant], prefix: str = "") -> Safe:
    """The part of the page with the table and the box that filters it; nothing without a variant.

    Args:
        variants: What was compared, in the order of the rows.
        prefix: What ids start with, for a page with several leaderboards.
    """
    if not variants:
        return Safe("")
    box = Safe(f'<input type="search" id="{text(prefix)}filter" placeholder="gem done …">')
    count = element("output", for_=f"{prefix}filter", id=f"{prefix}shown")
    note = "Shares are means over the seeds ± their standard deviation." if any(v.done for v in variants) else ""
    if any(v.found.get("delta") for v in variants):
        note += " Gain: over the baseline of the same backbone; its interval and p allow for the number of comparisons."
    if any(v.number("rank") for v in variants):
        note += " Rank: one more than there are variants that are significantly better."
    told = element("p", note, class_="note") if note else ""
    controls = element("div", element("label", "Filter", box), count, class_="controls")
    return section(f"{prefix}leaderboard", "Leaderboard", told, controls, _table(variants))


def _table(variants: Sequence[Variant]) -> Safe:
    """One row a variant; a column of which no variant has anything is left out."""
    columns = [column for column in _columns(variants) if any(column.key(v) is not None for v in variants)]
    headers = [_header(column) for column in columns]
    rows = [[_cell(column, v, at == 0) for at, column in enumerate(columns)] for v in variants]
    return table("All variants; a click on a heading sorts", headers, rows, "leaderboard")


def _columns(variants: Sequence[Variant]) -> list[Column]:
    gains = [v.percent("delta", key) for v in variants for key in ("low", "mean", "high")]
    bar = GainBar([gain for gain in gains if gain is not None])
    return [
        Column("variant", lambda v: v.name.lower(), _name, UP, "text"),
        Column("rank", lambda v: v.number("rank"), lambda v: f"{v.number('rank'):.0f}", UP),
        _share("accuracy, %", "accuracy"),
        Column("gain, points", lambda v: v.percent("delta", "mean"), bar.cell),
        Column("verdict", lambda v: ORDER.get(verdict(v)), _verdict),
        _share("F1, %", "f1"),
        _share("crops kept, %", "shift", "zhang"),
        _share("shifts kept, %", "shift", "circular"),
        Column("corrupted, %", lambda v: v.percent("corruption", "mean"), lambda v: _two(v, "corruption", "mean")),
        Column("parameters", lambda v: v.number("params"), lambda v: compact(v.number("params")), UP),
        Column("MACs", lambda v: v.number("macs"), lambda v: compact(v.number("macs")), UP),
        Column("training, s", lambda v: v.number("train_seconds", "mean"), _seconds, UP),
        _latency("1 image, ms", "latency_ms"),
        _latency("32 images, ms", "latency_ms_32"),
        Column("ONNX", lambda v: _passed(v), lambda v: "✓ same" if v.found["parity"] else "✗ failed"),
    ]


def _share(title: str, *keys: str) -> Column:
    def show(v: Variant) -> object:
        spread = v.percent(*keys, "sd")
        said = _two(v, *keys, "mean")
        return said if spread is None else joined([said, element("small", f"± {spread:.2f}")])

    return Column(title, lambda v: v.percent(*keys, "mean"), show)


def _latency(title: str, key: str) -> Column:
    return Column(title, lambda v: v.number(key), lambda v: words.milliseconds(v.number(key)), UP)


def _two(v: Variant, *keys: str) -> str:
    return f"{v.percent(*keys):.2f}"


def _seconds(v: Variant) -> object:
    said, spread = f"{v.number('train_seconds', 'mean'):,.1f}", v.number("train_seconds", "sd")
    return said if spread is None else joined([said, element("small", f"± {spread:,.1f}")])


def _passed(v: Variant) -> float | None:
    passed = v.found.get("parity")
    return None if passed is None else float(bool(passed))


def _name(v: Variant) -> object:
    error = v.found.get("error") or ("" if v.done else "no reason was kept")  # where it is done, a seed failed
    return joined([v.name, element("small", error, class_="error")]) if error else v.name


def _verdict(v: Variant) -> object:
    said = verdict(v)
    p = v.number("delta", "p_adjusted")
    mark = element("span", MARKS.get(said, ""), aria_hidden="true")
    parts = [element("span", mark, said, class_=f"mark {said.split()[0]}")]
    return joined(parts if p is None else [*parts, element("small", f"p {p:.3f}" if p >= 0.001 else "p < 0.001")])


def compact(count: float | None) -> str:
    """A count with three digits and a thousand, million or milliard; a dash where there is none."""
    if count is None:
        return "–"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= 0.9995 * size:
            return f"{count / size:.3g} {letter}" if count < 999.5 * size else f"{count / size:.0f} {letter}"
    return f"{count:.0f}"


def signed(points: float) -> str:
    """A gain with its sign, a true minus among them."""
    return f"{points:+.2f}".replace("-", "−")


class GainBar:
    """Gains over the baseline on one scale, which has zero on it.

    Args:
        values: All of them, and the ends of their intervals, in points.
    """

    def __init__(self, values: Sequence[float]) -> None:
        self.low, self.high = min(values, default=0.0), max(values, default=0.0)
        self.low, self.high = min(self.low, 0.0), max(self.high, 0.0)

    def _at(self, value: float) -> float:
        """Where a gain lies, in per cent of the bar."""
        return 3 + 94 * (value - self.low) / ((self.high - self.low) or 1.0)

    def cell(self, v: Variant) -> Safe:
        """A gain as a number, its interval, and both as a bar, which is decoration beside the numbers."""
        middle = v.percent("delta", "mean") or 0.0
        low, high = v.percent("delta", "low"), v.percent("delta", "high")
        drawn = [self._mark("zero", 0.0, 0.0, 0, 14)]
        said = [element("b", signed(middle))]
        if low is not None and high is not None:
            drawn.append(self._mark("interval", low, high, 7, 7))
            said.append(element("small", f"{signed(low)} to {signed(high)}"))
        drawn.append(Safe(f'<circle cx="{self._at(middle):.2f}%" cy="7" r="3.5"/>'))
        kind = verdict(v).split()[0]
        bar = element("svg", *drawn, aria_hidden="true", width="100%", height=14, class_=f"gain {kind}")
        return joined([*said, bar])

    def _mark(self, kind: str, left: float, right: float, top: float, bottom: float) -> Safe:
        x1, x2 = self._at(left), self._at(right)
        return Safe(f'<line class="{kind}" x1="{x1:.2f}%" y1="{top}" x2="{x2:.2f}%" y2="{bottom}"/>')


def _header(column: Column) -> Safe:
    button = element("button", column.title, element("span", aria_hidden="true"), type="button")
    start = DOWN if column.title == "accuracy, %" else "none"  # the order in which the page comes
    told = {"data_title": column.title, "data_first": column.first, "data_kind": column.kind, "aria_sort": start}
    return element("th", button, scope="col", **told)


def _cell(column: Column, v: Variant, first: bool) -> Safe:
    key = column.key(v)
    name, attributes = ("th", {"scope": "row"}) if first else ("td", {})
    if key is None:
        said = _verdict(v) if column.title == "verdict" else "–"
        return element(name, said, **attributes)
    return element(name, column.show(v), data_key=f"{key:.10g}" if isinstance(key, (int, float)) else key, **attributes)
