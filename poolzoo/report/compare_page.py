"""The `report.html` of `poolzoo compare`: one page with a leaderboard and charts that needs nothing but a browser."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from poolzoo.common import csv_writer, json_writer
from poolzoo.common.text import data_title, json_escaped
from poolzoo.metrics.results import untested_note
from poolzoo.report import bundle_words as words
from poolzoo.report import plots
from poolzoo.report.leaderboard import leaderboard, signed
from poolzoo.report.pieces import Safe, document, element, joined, properties, section, table
from poolzoo.report.plots import Figure, Json
from poolzoo.report.results import Accuracy, ComparisonResult, CorruptionAccuracy, Delta, MeanSd
from poolzoo.report.variants import NOT_SIGNIFICANT, VariantView, baselines, count, mean, ordered

HERE: Final = Path(__file__)
DRAWN: Final = 6  # variants whose lines are drawn at first, the baseline among them
MAX_CLASSES: Final = 50  # columns of the heat map that can be read
HARDEST: Final = 20  # columns where there are more
SEVERITIES: Final = 5
MAX_SENTENCES: Final = 7  # conclusions that are all shown
OPEN_SENTENCES: Final = 4  # of more, those that are shown before the rest
PALE: Final = 0.05  # share of the recalls that get the lightest shade, so that one failure does not take all of it


@dataclass(frozen=True)
class Place:
    """One comparison's part of a page: the prefix of its names, and its figures for the script by their names."""

    prefix: str = ""
    figures: dict[str, list[Figure]] = field(default_factory=dict)

    def section(self, name: str, title: str, *content: object) -> Safe:
        """A section of the comparison with its heading; nothing where it is empty."""
        return section(f"{self.prefix}{name}", title, *content)


def html(found: ComparisonResult) -> str:
    """The page of one comparison."""
    place = Place()
    main = parts(found, place)
    charts = {name: [figure.to_json() for figure in figures] for name, figures in place.figures.items()}
    return page(title(found), main, charts)


def title(found: ComparisonResult) -> str:
    """The number of variants and the data."""
    return f"{count(len(found.results), 'variant')} on {data_title(found.data.name or 'one data set')}"


def parts(found: ComparisonResult, place: Place) -> list[Safe]:
    """All sections of one comparison, from the conclusions to the provenance.

    Args:
        found: The comparison.
        place: Where it goes; its figures are added to it.
    """
    variants = ordered(found)
    return [
        _conclusions(found, variants),
        leaderboard(variants, place.prefix, len(found.seeds)),
        _cost(variants, place),
        _accuracy(variants, place),
        _robustness(variants, place),
        _classes(variants, place),
        _curves(variants, place),
        _provenance(found, variants, place),
    ]


def page(title: str, main: Sequence[object], charts: Mapping[str, Json]) -> str:
    """A page with its title, its one script and a policy that lets nothing else run.

    Args:
        title: Its heading.
        main: The sections below it.
        charts: Figures for the script, by the name of their chart. Without any, the page holds no Plotly.
    """
    script = _script(charts)
    body = [element("header", element("p", "poolzoo compare", class_="kind"), element("h1", title))]
    body += [element("main", *main), Safe(f"<script>{script}</script>")]
    # Even a name that got past the escaping could neither run nor fetch anything: only this one script may run.
    policy = f"default-src 'none'; script-src '{source_of(script)}'; style-src 'unsafe-inline'; img-src data:"
    return document(title, policy, HERE.with_name("compare_page.css"), body)


def source_of(script: str) -> str:
    """A script as its page's policy names it, by its hash."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def csv(found: ComparisonResult) -> str:
    """The leaderboard as comma-separated values: one row a variant, fractions as 0–1."""
    rows = [_csv_row(v, found.seeds) for v in ordered(found)]
    return csv_writer.document(list(rows[0]) if rows else ["rank"], [list(row.values()) for row in rows])


def _csv_row(v: VariantView, seeds: Sequence[int]) -> dict[str, object]:
    found = v.result
    corruption = found.corruption_accuracy or CorruptionAccuracy()
    by_severity = corruption.by_severity or [None] * SEVERITIES
    by_seed = {run.seed: run.accuracy for run in found.per_seed}
    return {
        "rank": found.rank,
        "pool": found.pool,
        "local_pool": found.local_pool,
        "backbone": found.backbone,
        "status": found.status,
        "error": found.error,
        **_columns("accuracy", found.accuracy, Accuracy()),
        **_columns("f1", found.f1, MeanSd()),
        **_columns("delta", found.delta, Delta()),
        "stopped": None if found.stop is None else found.stop.reason(len(seeds)),
        **_columns("crop_consistency", found.crop_consistency, MeanSd()),
        **_columns("shift_consistency", found.shift_consistency, MeanSd()),
        "corruption_accuracy_mean": corruption.mean,
        **{f"corruption_accuracy_severity_{s}": accuracy for s, accuracy in enumerate(by_severity, 1)},
        "params": found.params,
        "macs": found.macs,
        **_columns("train_seconds", found.train_seconds, MeanSd()),
        "latency_ms": found.latency_ms,
        "latency_ms_32": found.latency_ms_32,
        "parity": found.parity,
        **{f"accuracy_seed_{seed}": by_seed.get(seed) for seed in seeds},
    }


def _columns(name: str, figures: MeanSd | Delta | None, empty: MeanSd | Delta) -> dict[str, object]:
    """A column for each field of some figures; None in each where there are no figures."""
    return {f"{name}_{key}": None if figures is None else getattr(figures, key) for key in vars(empty)}


def _script(charts: Mapping[str, Json]) -> str:
    """Plotly where there is a chart, the figures, and the page's own code; nothing in it can end the script."""
    from plotly.offline import get_plotlyjs

    drawn = json_escaped(json_writer.dumps(charts, separators=(",", ":"))).replace("<", "\\u003c")
    own = HERE.with_name("compare_page.js").read_text(encoding="utf-8")
    return f"{get_plotlyjs() if charts else ''}\nconst charts = {drawn};\n{own}"


def _conclusions(found: ComparisonResult, variants: Sequence[VariantView]) -> Safe:
    done = [v for v in variants if v.done]
    sentences = found.conclusions or ["Every variant failed." if variants and not done else "Nothing was concluded."]
    lead = [*conclusions(sentences), *(element("p", sentence) for sentence in found.left_out)]
    tiles = [("best accuracy", *_tile(done[0]))] if done else []
    tiles += [("baseline", *_tile(v)) for v in baselines(done)[:1]]
    beside = [v.significance for v in variants]
    words_ = ("better", NOT_SIGNIFICANT, "worse", "failed", "left out")
    counts = [f"{beside.count(word)} {word}" for word in words_]
    counts.append(f"{sum(v.result.stop is not None for v in variants)} stopped by the race")
    tiles.append(("variants", str(len(variants)), ", ".join(text for text in counts if text[0] != "0")))
    if found.hours is not None:
        took = f"{found.hours:.1f} h" if found.hours >= 1 else f"{60 * found.hours:.0f} min"
        tiles.append(("time", took, f"{count(len(found.seeds), 'seed')} each"))
    shown = [
        element("div", element("dt", name), element("dd", element("b", big), element("span", small)))
        for name, big, small in tiles
    ]
    return joined([element("div", *lead, class_="conclusions"), element("dl", *shown, class_="tiles")])


def conclusions(sentences: Sequence[str]) -> list[Safe]:
    """Sentences as paragraphs. Of many, those between the first few and the last one are folded."""
    paragraphs = [element("p", sentences[0], class_="lead"), *(element("p", more) for more in sentences[1:])]
    if len(paragraphs) <= MAX_SENTENCES:
        return paragraphs
    first, middle, last = paragraphs[:OPEN_SENTENCES], paragraphs[OPEN_SENTENCES:-1], paragraphs[-1]
    return [*first, element("details", element("summary", f"{len(middle)} more"), *middle), last]


def _tile(v: VariantView) -> tuple[str, str]:
    accuracy = v.result.accuracy.mean if v.result.accuracy else None
    return words.percent(accuracy), v.name if v.gain is None else f"{v.name}, {signed(v.gain)} points"


def _cost(variants: Sequence[VariantView], place: Place) -> Safe:
    figures = [(cost.title, plots.cost(variants, cost)) for cost in plots.COSTS]
    caption = "Top left is best. On the dotted Pareto front nothing is both cheaper and more accurate."
    return place.section("cost", "Accuracy and cost", _chart("cost", caption, figures, place, "Cost"))


def _accuracy(variants: Sequence[VariantView], place: Place) -> Safe:
    caption = "Dot: mean; whisker: its interval; ring: a seed; dotted line: the baseline."
    return place.section("accuracy", "Accuracy", _chart("accuracy", caption, [("", plots.intervals(variants))], place))


def _robustness(variants: Sequence[VariantView], place: Place) -> Safe:
    had = [v for v in variants if v.result.corruption_accuracy]
    caption = "Accuracy on corrupted test images; the mean over the seeds."
    lines = _chart("severity", caption, plots.severities(variants), place, "Corruption", _lines(had))
    caption = "Consistency: how often the prediction stays the same when the image moves a little."
    shift = _chart("shift", caption, [("", plots.shift(variants))], place)
    return place.section("robustness", "Robustness", lines, shift)


def _curves(variants: Sequence[VariantView], place: Place) -> Safe:
    had = [v for v in variants if v.result.curves]
    figures = [(curve.title, plots.curves(variants, curve)) for curve in plots.CURVES]
    caption = "Line: mean over the seeds; band: from the lowest seed to the highest."
    return place.section("curves", "Learning curves", _chart("curves", caption, figures, place, "Curve", _lines(had)))


def _chart(
    name: str,
    caption: str,
    figures: Sequence[tuple[str, Figure | None]],
    place: Place,
    choice: str = "",
    lines: object = "",
) -> Safe:
    """An empty chart for the script to fill, with a choice where it has several figures; nothing where it has none.

    Args:
        name: Its name in the comparison.
        caption: How to read it.
        figures: The figures with their names.
        place: Where the figures are kept for the script.
        choice: The label of the choice.
        lines: Checkboxes for its lines.
    """
    kept = [(title, figure) for title, figure in figures if figure]
    if not kept:
        return Safe("")
    place.figures[place.prefix + name] = [figure for _, figure in kept]
    controls: list[object] = []
    if len(kept) > 1:
        options = [element("option", title, value=number) for number, (title, _) in enumerate(kept)]
        controls = [element("label", choice, element("select", *options), class_="controls")]
    waiting = element("p", "This chart needs JavaScript; the leaderboard has the figures.", class_="note")
    chart = element("div", waiting, class_="chart", role="img", aria_label=caption)
    return element("figure", element("figcaption", caption), *controls, chart, lines, data_chart=place.prefix + name)


def _lines(had: Sequence[VariantView]) -> Safe:
    """The legend of a chart of lines, a checkbox a variant."""
    first = baselines(had)[:1]
    first += [v for v in had if v not in first][: DRAWN - len(first)]
    boxes = []
    for v in had:
        ticked = " checked" if v in first else ""
        hue = "--ink" if v.baseline else v.color
        swatch = element("span", class_=f"swatch {v.dash}", style=f"--hue: var({hue})")
        boxes.append(element("label", Safe(f'<input type="checkbox" value="{v.place}"{ticked}>'), swatch, v.name))
    sets = [element("button", name, type="button", value=name) for name in ("all", "none")] if len(had) > 1 else []
    return element("fieldset", element("legend", "Variants", *sets), *boxes, class_="controls lines")


def _classes(variants: Sequence[VariantView], place: Place) -> Safe:
    recalls = [(v, {row.label: row.recall for row in v.result.per_class}) for v in variants if v.result.per_class]
    names = list(dict.fromkeys(name for _, row in recalls for name in row))
    every = [recall for _, row in recalls for recall in row.values() if recall is not None]
    if not every:
        return Safe("")
    low, high = sorted(every)[int(PALE * len(every))], max(every)
    note = f"The lightest is {100 * low:.1f} % or less, the strongest {100 * high:.1f} %; the mean over the seeds."
    note = f"{note} {untested_note([n for n in names if all(row.get(n) is None for _, row in recalls)])}".strip()
    if len(names) > MAX_CLASSES:
        means = {name: mean(row.get(name) for _, row in recalls) for name in names}
        note += f" Shown are the {HARDEST} of {len(names)} classes with the lowest recall."
        names = sorted(names, key=lambda name: 1.0 if (recall := means[name]) is None else recall)[:HARDEST]
    headers = ["variant", *(element("span", name) for name in names)]
    rows = [[v.name, *(_shaded(row.get(name), low, high) for name in names)] for v, row in recalls]
    drawn = table("Recall of each class, %", headers, rows, "heat")
    return place.section("classes", "Classes", element("p", note, class_="note"), drawn)


def _shaded(recall: float | None, low: float, high: float) -> Safe:
    if recall is None:
        return element("td", "–")
    return element("td", f"{100 * recall:.1f}", style=f"--shade:{max(0.0, recall - low) / ((high - low) or 1.0):.3f}")


def _provenance(found: ComparisonResult, variants: Sequence[VariantView], place: Place) -> Safe:
    about = {
        "data": found.data.name,
        "training images": found.data.n_train,
        "test images": found.data.n_test,
        "seeds": found.seeds,
        "baseline": found.baseline,
        "significance level": found.alpha,
        "started": _local_time(found.started),
        "hours": found.hours,
        "protocol": found.protocol,
        "not official for the protocol": found.unofficial,
    }
    tables = [properties("The comparison", about)]
    tables += [properties("Settings", found.settings)] if found.settings else []
    tables += [properties("Measured on", found.environment)] if found.environment else []
    runs = [
        (v.name, run.seed, words.percent(run.accuracy), words.percent(run.f1), run.run or "–")
        for v in variants
        for run in v.result.per_seed
    ]
    every = table("Every run", ("variant", "seed", "accuracy", "F1", "directory"), runs, "runs") if runs else ""
    return place.section(
        "provenance", "Provenance",
        element("ul", *(element("li", note) for note in found.notes), class_="note") if found.notes else "",
        element("pre", element("code", found.command), tabindex=0) if found.command else "",
        element("div", *tables, class_="beside"),
        element("details", element("summary", f"Every run ({len(runs)})"), every) if runs else "",
    )  # fmt: skip


def _local_time(started: str | None) -> str | None:
    """An ISO 8601 time for people; as it is where it is something else."""
    try:
        return f"{datetime.fromisoformat(started):%Y-%m-%d %H:%M %Z}".strip() if started else None
    except ValueError:
        return started
