"""The charts of a comparison's page, as figures that Plotly draws; colors are names of the style sheet."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final, TypeAlias

from poolzoo.report.results import EpochPoint, MeanSd
from poolzoo.report.variants import VariantView, mean, percent

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
Trace: TypeAlias = dict[str, Json]  # one layer of a figure, in Plotly's words

ROW: Final = 22  # CSS pixels of a variant in a chart that has a row for each
SHORT: Final = 20  # characters of a name beside an axis, so that a phone has room for the chart
MAX_EPOCHS: Final = 200  # points of a curve; more cannot be seen and make the page large
WIDE: Final = 20.0  # the ratio of largest to smallest cost from which on its axis is logarithmic
CLEAR: Final = "rgba(0,0,0,0)"
BAND: Final = ":2e"  # opacity of a band, as the last two digits of #rrggbbaa


@dataclass(frozen=True)
class Figure:
    """A chart: its traces and its layout, both as Plotly takes them."""

    traces: Sequence[Trace]
    layout: Trace

    def to_json(self) -> Trace:
        return {"data": self.traces, "layout": self.layout}


@dataclass(frozen=True)
class Cost:
    """A cost of a variant: its name with its unit, and its value."""

    title: str
    of: Callable[[VariantView], float | None]


@dataclass(frozen=True)
class Curve:
    """A learning curve: its name with its unit, its value in an epoch, and the factor to that unit."""

    title: str
    of: Callable[[EpochPoint], float | None]
    factor: float


@dataclass(frozen=True)
class Shift:
    """One way of moving images: its name, the consistency under it, and how it is drawn."""

    name: str
    of: Callable[[VariantView], MeanSd | None]
    color: str
    symbol: str


COSTS: Final = (
    Cost("latency of one image, ms", lambda v: v.result.latency_ms),
    Cost("latency of 32 images, ms", lambda v: v.result.latency_ms_32),
    Cost("parameters", lambda v: v.result.params),
    Cost("MACs", lambda v: v.result.macs),
)
CURVES: Final = (
    Curve("validation accuracy, %", lambda point: point.val_accuracy, 100),
    Curve("training accuracy, %", lambda point: point.train_accuracy, 100),
    Curve("training loss", lambda point: point.loss, 1),
)
SHIFTS: Final = (
    Shift("crops", lambda v: v.result.crop_consistency, "--accent", "circle"),
    Shift("circular shifts", lambda v: v.result.shift_consistency, "--pale", "diamond-open"),
)


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which points `(cost, accuracy)` no other beats in one without losing in the other, from cheap to expensive."""
    kept: list[int] = []
    for index in sorted(range(len(points)), key=lambda index: (points[index][0], -points[index][1])):
        if not kept or points[index][1] > points[kept[-1]][1]:
            kept.append(index)
    return kept


def cost(variants: Sequence[VariantView], measure: Cost) -> Figure | None:
    """Accuracy against a cost, with the Pareto front; None where nothing was measured."""
    placed = [v for v in variants if v.done and measure.of(v) is not None and v.accuracy is not None]
    if not placed:
        return None
    points = [(_six_digits(measure.of(v) or 0.0), _six_digits(v.accuracy or 0.0)) for v in placed]
    costs = [x for x, _ in points]
    best = front(points)
    wide = min(costs) > 0 and max(costs) / min(costs) > WIDE
    middle = math.sqrt(max(costs) * min(costs)) if wide else (max(costs) + min(costs)) / 2
    hover = [f"{_hover(v)}<br>{escape(measure.title)}: {measure.of(v):,}" for v in placed]
    marker: Trace = {
        "color": ["--accent" if i in best else "--ink" if v.baseline else "--other" for i, v in enumerate(placed)],
        "symbol": ["diamond" if v.baseline else "circle" for v in placed],
        "size": [11 if i in best or v.baseline else 8 for i, v in enumerate(placed)],
        "opacity": 1,
    }
    every: Trace = {
        **_points(costs, [y for _, y in points], hover),
        "mode": "markers+text",
        "marker": marker,
        "text": [short(v.name) if i in best or v.baseline else "" for i, v in enumerate(placed)],
        "textposition": ["top right" if x <= middle else "top left" for x in costs],
        "textfont": {"color": "--ink", "size": 11},
        "cliponaxis": False,
        "error_y": _whiskers(placed),
    }
    line: Trace = {
        "x": [points[i][0] for i in best],
        "y": [points[i][1] for i in best],
        "mode": "lines",
        "line": {"color": "--accent", "shape": "hv", "width": 1.5, "dash": "dot"},
        "hoverinfo": "skip",
    }
    single: Trace = {"range": [0, 2 * costs[0]]} if len(set(costs)) == 1 and costs[0] else {}
    axis = _axis(measure.title, type="log", dtick="D2") if wide else _axis(measure.title, **single)
    return _figure([line, every], 440, axis, _axis("accuracy, %"))


def intervals(variants: Sequence[VariantView]) -> Figure | None:
    """A dot a variant with its interval, a ring a seed, and a line at the baseline where there is one."""
    rows = [v for v in variants if v.accuracy is not None]
    seeds = [(row, percent(run.accuracy)) for row, v in enumerate(rows) for run in v.result.per_seed]
    dots: Trace = {
        **_points([v.accuracy for v in rows], range(len(rows)), map(_hover, rows)),
        "mode": "markers",
        "error_x": _whiskers(rows),
        "marker": {"color": ["--ink" if v.baseline else "--accent" for v in rows], "size": 9, "opacity": 1},
    }
    rings: Trace = {
        "x": [accuracy for _, accuracy in seeds],
        "y": [row for row, _ in seeds],
        "mode": "markers",
        "marker": {"color": "--pale", "size": 6, "symbol": "circle-open", "opacity": 1},
        "hoverinfo": "skip",
    }
    more: Trace = {}
    baselines = [v.accuracy for v in rows if v.baseline]
    if len(baselines) == 1:
        line: Trace = {"color": "--pale", "width": 1, "dash": "dot"}
        at = baselines[0]
        shape: Trace = {"type": "line", "x0": at, "x1": at, "yref": "paper", "y0": 0, "y1": 1}
        more = {"shapes": [{**shape, "line": line, "layer": "below"}]}
    return _rows(rows, [rings, dots], "accuracy, %", more)


def shift(variants: Sequence[VariantView]) -> Figure | None:
    """How often the prediction stays when the image moves, a row a variant and a mark a way of moving."""
    rows = [v for v in variants if any(_mean(one.of(v)) is not None for one in SHIFTS)]
    traces: list[Trace] = []
    for one in SHIFTS:
        found = [one.of(v) or MeanSd() for v in rows]
        hover = [
            f"<b>{plain(v.name)}</b><br>{one.name}: {_mean_sd(figures)}" for v, figures in zip(rows, found, strict=True)
        ]
        error: Trace = {"type": "data", "array": [percent(figures.sd) for figures in found], "color": one.color}
        trace: Trace = {
            **_points([percent(figures.mean) for figures in found], range(len(rows)), hover),
            "mode": "markers",
            "marker": {"color": one.color, "symbol": one.symbol, "size": 9, "opacity": 1},
            "name": one.name,
            "error_x": {**error, "thickness": 1.25, "width": 3},
        }
        traces.append(trace)
    legend: Trace = {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "font": {"color": "--ink"}}
    return _rows(rows, traces, "same prediction, %", {"showlegend": True, "legend": legend})


def severities(variants: Sequence[VariantView]) -> list[tuple[str, Figure]]:
    """Accuracy against severity, 0 for clean images: a figure a corruption, the mean of all first."""
    lines: dict[str, list[Trace]] = {}
    for v in variants:
        for kind, of_severity in v.corruptions():
            accuracies = [v.accuracy, *of_severity]
            hover = [f"<b>{plain(v.name)}</b><br>severity {s}: {_two_digits(a)} %" for s, a in enumerate(accuracies)]
            line = {**_line(v, range(len(accuracies)), accuracies), "hovertext": hover, "mode": "lines+markers"}
            lines.setdefault(kind, []).append(line)
    severity = _axis("severity; 0: clean images", dtick=1, range=[-0.15, 5.15])
    return [(kind, _figure(traces, 400, severity, _axis("accuracy, %"))) for kind, traces in lines.items()]


def curves(variants: Sequence[VariantView], curve: Curve) -> Figure | None:
    """The mean over the seeds epoch by epoch, and a band from the lowest seed to the highest; None without any."""
    traces: list[Trace] = []
    for v in variants:
        epochs: dict[float, list[float]] = {}
        for run in v.result.curves:
            for point in run:
                value = curve.of(point)
                if point.epoch is not None and value is not None:
                    epochs.setdefault(point.epoch, []).append(value * curve.factor)
        x = sorted(epochs)[:: -max(1, math.ceil(len(epochs) / MAX_EPOCHS))][::-1]
        if not x:
            continue
        middle = [mean(epochs[epoch]) for epoch in x]
        if any(len(values) > 1 for values in epochs.values()):
            around = [max(epochs[epoch]) for epoch in x] + [min(epochs[epoch]) for epoch in reversed(x)]
            band: Trace = {
                "x": _rounded([*x, *reversed(x)]),
                "y": _rounded(around),
                "fill": "toself",
                "mode": "lines",
                "fillcolor": f"{_color(v)}{BAND}",
                "line": {"width": 0},
                "hoverinfo": "skip",
                "meta": v.place,
            }
            traces.append(band)
        hover = [f"<b>{plain(v.name)}</b><br>epoch {epoch:g}: {y:.4g}" for epoch, y in zip(x, middle, strict=True)]
        mode = "lines+markers" if len(x) == 1 else "lines"
        traces.append({**_line(v, x, middle), "hovertext": hover, "mode": mode})
    return _figure(traces, 400, _axis("epoch"), _axis(curve.title)) if traces else None


def plain(text: str) -> str:
    """Text for Plotly, which reads a little HTML in whatever it writes."""
    return escape(text, quote=False)


def short(name: str) -> str:
    """A name that fits beside an axis, for Plotly."""
    return plain(name if len(name) <= SHORT else name[: SHORT - 1] + "…")


def _figure(traces: Sequence[Trace], height: int, x: Trace, y: Trace, more: Trace | None = None) -> Figure:
    layout: Trace = {
        "height": height,
        "margin": {"l": 4, "r": 20, "t": 28, "b": 4},
        "paper_bgcolor": CLEAR,
        "plot_bgcolor": CLEAR,
        "font": {"color": "--pale", "size": 12, "family": "system-ui, -apple-system, Segoe UI, Roboto, sans-serif"},
        "hoverlabel": {"bgcolor": "--raised", "bordercolor": "--rule", "align": "left", "font": {"color": "--ink"}},
        "hovermode": "closest",
        "showlegend": False,
        "xaxis": x,
        "yaxis": y,
        **(more or {}),
    }
    return Figure([{"type": "scatter", **trace} for trace in traces], layout)


def _rows(rows: Sequence[VariantView], traces: Sequence[Trace], title: str, more: Trace) -> Figure | None:
    """A chart with a row for each variant, the first at the top; None without any."""
    if not rows:
        return None
    down = _axis(
        "",
        tickvals=list(range(len(rows))),
        ticktext=[short(v.name) for v in rows],
        range=[len(rows) - 0.4, -0.6],
        tickfont={"color": "--ink", "size": 11},
    )
    return _figure(traces, 110 + ROW * len(rows), _axis(title), down, more)


def _axis(title: str, **more: Json) -> Trace:
    colors: Trace = {"gridcolor": "--rule", "linecolor": "--rule", "zeroline": False}
    return {**colors, "automargin": True, "title": {"text": title, "standoff": 10}, **more}


def _points(x: Iterable[float | None], y: Iterable[float | None], hover: Iterable[str]) -> Trace:
    return {"x": _rounded(x), "y": _rounded(y), "hovertext": list(hover), "hoverinfo": "text"}


def _line(v: VariantView, x: Iterable[float], y: Iterable[float | None]) -> Trace:
    return {
        "x": _rounded(x),
        "y": _rounded(y),
        "line": {"color": _color(v), "dash": v.dash, "width": 3 if v.baseline else 2},
        "marker": {"color": _color(v), "size": 6, "opacity": 1},
        "hoverinfo": "text",
        "meta": v.place,
    }


def _color(v: VariantView) -> str:
    return "--ink" if v.baseline else v.color


def _whiskers(rows: Sequence[VariantView]) -> Trace:
    """The intervals of the accuracies, in points from their means."""
    up: list[float | None] = []
    down: list[float | None] = []
    for v in rows:
        low, high = v.interval or (None, None)
        up.append(None if high is None or v.accuracy is None else abs(high - v.accuracy))
        down.append(None if low is None or v.accuracy is None else abs(low - v.accuracy))
    sizes: Trace = {"array": _rounded(up), "arrayminus": _rounded(down)}
    return {"type": "data", "symmetric": False, **sizes, "color": "--pale", "thickness": 1.25, "width": 3}


def _hover(v: VariantView) -> str:
    """The name and the accuracy of a variant, as a point shows them."""
    interval = "" if v.interval is None else f"<br>interval {v.interval[0]:.2f} to {v.interval[1]:.2f} %"
    return f"<b>{plain(v.name)}</b><br>accuracy {_mean_sd(v.result.accuracy or MeanSd())}{interval}"


def _mean(figures: MeanSd | None) -> float | None:
    return None if figures is None else figures.mean


def _mean_sd(figures: MeanSd) -> str:
    sd = "" if figures.sd is None else f" ± {_two_digits(percent(figures.sd))}"
    return f"{_two_digits(percent(figures.mean))}{sd} %"


def _two_digits(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _rounded(values: Iterable[float | None]) -> list[float | None]:
    return [None if value is None else _six_digits(value) for value in values]


def _six_digits(value: float) -> float:
    """Six digits are more than a screen shows, and keep the page small."""
    return float(f"{value:.6g}")
