"""The `report.html` of `poolzoo compare`: one page with a leaderboard and charts that needs nothing but a browser."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Sequence
from csv import DictWriter
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from poolzoo.common import json_writer
from poolzoo.common.text import json_escaped
from poolzoo.metrics.results import untested_note
from poolzoo.report import bundle_words as words
from poolzoo.report import plots
from poolzoo.report.leaderboard import leaderboard, signed, verdict
from poolzoo.report.pieces import Safe, document, element, facts, joined, section, table
from poolzoo.report.variants import Variant, finite, mean, ordered

HERE: Final = Path(__file__)
DRAWN: Final = 6  # variants whose lines are drawn at first, the baseline among them
MOST_CLASSES: Final = 50  # columns of the heat map that can be read
HARDEST: Final = 20  # columns where there are more
COSTS: Final = (
    ("latency_ms", "latency of one image, ms"),
    ("latency_ms_32", "latency of 32 images, ms"),
    ("params", "parameters"),
    ("macs", "MACs"),
)
CURVES: Final = (
    ("val_accuracy", "validation accuracy, %"),
    ("train_accuracy", "training accuracy, %"),
    ("loss", "training loss"),
)


@dataclass(frozen=True)
class Place:
    """Where a comparison goes: what its names on the page start with, and its figures for the script, by their name."""

    prefix: str = ""
    drawn: dict[str, list[plots.Figure]] = field(default_factory=dict)

    def section(self, name: str, title: str, *content: object) -> Safe:
        """A part of the comparison with its heading; nothing where nothing is in it."""
        return section(f"{self.prefix}{name}", title, *content)


def html(found: dict[str, Any]) -> str:
    """The whole page.

    Args:
        found: The content of `compare.json`.
    """
    place = Place()
    return page(subject(found), parts(found, place), place.drawn)


def subject(found: dict[str, Any]) -> str:
    """How many variants were compared on which data."""
    variants, data = len(found.get("results") or []), found.get("data") or {}
    return f"{variants} {'variant' if variants == 1 else 'variants'} on {data.get('name') or 'one data set'}"


def parts(found: dict[str, Any], place: Place) -> list[Safe]:
    """All that a page tells of one comparison, from the verdict to what was run.

    Args:
        found: The content of `compare.json`.
        place: Where it goes; its figures are added to it.
    """
    variants = ordered(found)
    return [
        _verdict(found, variants),
        leaderboard(variants, place.prefix),
        _cost(variants, place),
        _accuracy(variants, place),
        _robustness(variants, place),
        _classes(variants, place),
        _curves(variants, place),
        _provenance(found, place),
    ]


def page(title: str, main: Sequence[object], charts: dict[str, Any]) -> str:
    """A page with its title, its one script and a policy that lets nothing else run.

    Args:
        title: Its heading.
        main: What is below it.
        charts: What the script draws, by the name of its place; without any, the page holds no Plotly.
    """
    script = _script(charts)
    body = [element("header", element("p", "poolzoo compare", class_="kind"), element("h1", title))]
    body += [element("main", *main), Safe(f"<script>{script}</script>")]
    # Even a name that got past the escaping could neither run nor fetch anything: only this one script may run.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:"
    return document(title, policy, HERE.with_name("compare_page.css"), body)


def csv(found: dict[str, Any]) -> str:
    """The leaderboard as a table of comma-separated values, one row a variant, shares as 0–1."""
    pairs = {"accuracy": ("mean", "sd", "n", "low", "high"), "f1": ("mean", "sd")}
    pairs |= {"delta": ("mean", "low", "high", "p", "p_adjusted", "better", "worse")}
    rows = []
    for v in ordered(found):
        row = {key: v.found.get(key) for key in ("rank", "pool", "local_pool", "backbone", "status", "error")}
        for name, keys in pairs.items():
            row |= {f"{name}_{key}": (v.found.get(name) or {}).get(key) for key in keys}
        for kind in plots.SHIFTS:
            row |= {f"shift_{kind}_{key}": v.number("shift", kind, key) for key in ("mean", "sd")}
        row["corruption_mean"] = v.number("corruption", "mean")
        of_severity = (v.found.get("corruption") or {}).get("by_severity") or [None] * 5
        row |= {f"corruption_severity_{severity}": share for severity, share in enumerate(of_severity, 1)}
        row |= {key: v.found.get(key) for key in ("params", "macs")}
        row |= {f"train_seconds_{key}": v.number("train_seconds", key) for key in ("mean", "sd")}
        row |= {key: v.found.get(key) for key in ("latency_ms", "latency_ms_32", "parity")}
        by_seed = {run.get("seed"): run.get("accuracy") for run in v.several("per_seed")}
        row |= {f"accuracy_seed_{seed}": by_seed.get(seed) for seed in found.get("seeds") or []}
        rows.append(row)
    text = io.StringIO()
    writer = DictWriter(text, rows[0] if rows else ["rank"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _script(charts: dict[str, Any]) -> str:
    """Plotly where there is a chart, the charts, and what makes the page move; nothing in it can end the script."""
    from plotly.offline import get_plotlyjs

    drawn = json_escaped(json_writer.dumps(charts, separators=(",", ":"))).replace("<", "\\u003c")
    own = HERE.with_name("compare_page.js").read_text(encoding="utf-8")
    return f"{get_plotlyjs() if charts else ''}\nconst charts = {drawn};\n{own}"


def _verdict(found: dict[str, Any], variants: Sequence[Variant]) -> Safe:
    done = [v for v in variants if v.done]
    said = found.get("verdict") or ["Every variant failed." if variants and not done else "Nothing was concluded."]
    lead = [element("p", said[0], class_="lead"), *(element("p", more) for more in said[1:])]
    tiles = [("best accuracy", *_tile(done[0]))] if done else []
    tiles += [("baseline", *_tile(v)) for v in done if v.baseline][:1]
    beside = [verdict(v) for v in variants]
    counts = [f"{beside.count(word)} {word}" for word in ("better", "within noise", "worse", "failed")]
    tiles.append(("variants", str(len(variants)), ", ".join(text for text in counts if text[0] != "0")))
    seeds = found.get("seeds") or []
    hours = finite(found.get("hours"))
    if hours is not None:
        took = f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.0f} min"
        tiles.append(("time", took, f"{len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'} each"))
    shown = [
        element("div", element("dt", name), element("dd", element("b", big), element("span", small)))
        for name, big, small in tiles
    ]
    return joined([element("div", *lead, class_="verdicts"), element("dl", *shown, class_="tiles")])


def _tile(v: Variant) -> tuple[str, str]:
    gain = v.percent("delta", "mean")
    return words.percent(v.number("accuracy", "mean")), v.name if gain is None else f"{v.name}, {signed(gain)} points"


def _cost(variants: Sequence[Variant], place: Place) -> Safe:
    figures = [(title, plots.cost(variants, key, title)) for key, title in COSTS]
    told = "Top left is best. On the dotted front nothing is both cheaper and more accurate."
    return place.section("cost", "Accuracy and cost", _chart("cost", told, figures, place, "Cost"))


def _accuracy(variants: Sequence[Variant], place: Place) -> Safe:
    told = "Dot: mean; whisker: its interval; ring: a seed; dotted line: the baseline."
    return place.section("accuracy", "Accuracy", _chart("accuracy", told, [("", plots.intervals(variants))], place))


def _robustness(variants: Sequence[Variant], place: Place) -> Safe:
    told = "Accuracy on corrupted test images; the mean over the seeds."
    lines = _chart("severity", told, plots.severities(variants), place, "Corruption", _lines(variants, "corruption"))
    told = "How often the prediction stays the same when the image moves a little."
    return place.section("robustness", "Robustness", lines, _chart("shift", told, [("", plots.shift(variants))], place))


def _curves(variants: Sequence[Variant], place: Place) -> Safe:
    figures = [(title, plots.curves(variants, key, title)) for key, title in CURVES]
    told = "Line: mean over the seeds; band: from the lowest seed to the highest."
    chart = _chart("curves", told, figures, place, "Curve", _lines(variants, "curves"))
    return place.section("curves", "Learning curves", chart)


def _chart(
    name: str,
    told: str,
    figures: Sequence[tuple[str, plots.Figure | None]],
    place: Place,
    choice: str = "",
    lines: object = "",
) -> Safe:
    """A place for a chart, with a choice where it has several figures; nothing where it has none.

    Args:
        name: What it is called in its comparison.
        told: How to read it.
        figures: What can be chosen, by its name.
        place: Where the figures are kept for the script.
        choice: What is chosen.
        lines: Which of its lines are drawn, to be chosen too.
    """
    kept = [(title, figure) for title, figure in figures if figure]
    if not kept:
        return Safe("")
    place.drawn[place.prefix + name] = [figure for _, figure in kept]
    controls: list[object] = []
    if len(kept) > 1:
        options = [element("option", title, value=number) for number, (title, _) in enumerate(kept)]
        controls = [element("label", choice, element("select", *options), class_="controls")]
    waiting = element("p", "This chart needs JavaScript; the leaderboard has the figures.", class_="note")
    chart = element("div", waiting, class_="chart", role="img", aria_label=told)
    return element("figure", element("figcaption", told), *controls, chart, lines, data_chart=place.prefix + name)


def _lines(variants: Sequence[Variant], key: str) -> Safe:
    """The legend of a chart of lines, a box a variant."""
    had = [v for v in variants if v.found.get(key)]
    first = [v for v in had if v.baseline][:1]
    first += [v for v in had if v not in first][: DRAWN - len(first)]
    boxes = []
    for v in had:
        ticked = " checked" if v in first else ""
        hue = "--ink" if v.baseline else v.color
        swatch = element("span", class_=f"swatch {v.dash}", style=f"--hue: var({hue})")
        boxes.append(element("label", Safe(f'<input type="checkbox" value="{v.place}"{ticked}>'), swatch, v.name))
    sets = [element("button", name, type="button", value=name) for name in ("all", "none")] if len(had) > 1 else []
    return element("fieldset", element("legend", "Variants", *sets), *boxes, class_="controls lines")


def _classes(variants: Sequence[Variant], place: Place) -> Safe:
    recalls = [(v, {row.get("class"): finite(row.get("recall")) for row in v.several("per_class")}) for v in variants]
    recalls = [(v, row) for v, row in recalls if row]
    names = list(dict.fromkeys(name for _, row in recalls for name in row))
    every = [recall for _, row in recalls for recall in row.values() if recall is not None]
    if not every:
        return Safe("")
    low, high = min(every), max(every)
    told = f"The lightest is {100 * low:.1f} %, the strongest {100 * high:.1f} %; the mean over the seeds."
    told = f"{told} {untested_note([n for n in names if all(row.get(n) is None for _, row in recalls)])}".strip()
    if len(names) > MOST_CLASSES:
        means = {name: mean(row.get(name) for _, row in recalls) for name in names}
        told += f" Shown are the {HARDEST} of {len(names)} classes with the lowest recall."
        names = sorted(names, key=lambda name: 1.0 if (recall := means[name]) is None else recall)[:HARDEST]
    headers = ["variant", *(element("span", name) for name in names)]
    rows = [[v.name, *(_shaded(row.get(name), low, high) for name in names)] for v, row in recalls]
    drawn = table("Recall of each class, %", headers, rows, "heat")
    return place.section("classes", "Classes", element("p", told, class_="note"), drawn)


def _shaded(recall: float | None, low: float, high: float) -> Safe:
    if recall is None:
        return element("td", "–")
    return element("td", f"{100 * recall:.1f}", style=f"--shade:{(recall - low) / ((high - low) or 1.0):.3f}")


def _provenance(found: dict[str, Any], place: Place) -> Safe:
    made: dict[str, Any] = {"data": (found.get("data") or {}).get("name")}
    made |= {f"{kind} images": (found.get("data") or {}).get(key) for kind, key in _COUNTS}
    made |= {"seeds": found.get("seeds"), "baseline": found.get("baseline"), "significance level": found.get("alpha")}
    made |= {"started": _when(found.get("started")), "hours": found.get("hours")}
    command, notes = found.get("command"), found.get("notes") or []
    runs = [
        (name, run.get("seed"), words.percent(finite(run.get("accuracy"))), words.percent(finite(run.get("f1"))), where)
        for v in ordered(found)
        for run in v.several("per_seed")
        for name, where in [(v.name, run.get("run") or "–")]
    ]
    every = table("Every run", ("variant", "seed", "accuracy", "F1", "folder"), runs, "runs") if runs else ""
    return place.section(
        "provenance", "What was run",
        element("ul", *(element("li", note) for note in notes), class_="note") if notes else "",
        element("pre", element("code", command), tabindex=0) if command else "",
        element("div", facts("The comparison", made), *_tables(found), class_="beside"),
        element("details", element("summary", f"Every run ({len(runs)})"), every) if runs else "",
    )  # fmt: skip


_COUNTS: Final = (("training", "n_train"), ("test", "n_test"))


def _tables(found: dict[str, Any]) -> list[Safe]:
    named = (("Settings", found.get("settings")), ("Measured on", found.get("environment")))
    return [facts(caption, of) for caption, of in named if of]


def _when(started: str | None) -> str | None:
    try:
        return f"{datetime.fromisoformat(started):%Y-%m-%d %H:%M %Z}".strip() if started else None
    except ValueError:
        return started
