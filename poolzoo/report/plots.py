"""The charts of a comparison's page, as the JSON that Plotly draws; colors are names of the style sheet."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, Final

from poolzoo.report.variants import Variant, finite, mean, scaled

Figure = dict[str, Any]

ROW: Final = 22  # CSS pixels of a variant in a chart that has a row for each
SHORT: Final = 20  # characters of a name beside an axis, so that a phone has room for the chart
MOST_EPOCHS: Final = 200  # of a curve; more would not be seen and would make the page large
WIDE: Final = 20.0  # the ratio of largest to smallest cost from which on its axis is logarithmic
CLEAR: Final = "rgba(0,0,0,0)"
BAND: Final = ":2e"  # opacity of a band, as the last two digits of #rrggbbaa


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which points `(cost, accuracy)` no other beats in one without losing in the other, from cheap to dear."""
    kept: list[int] = []
    for index in sorted(range(len(points)), key=lambda index: (points[index][0], -points[index][1])):
        if not kept or points[index][1] > points[kept[-1]][1]:
            kept.append(index)
    return kept


def cost(variants: Sequence[Variant], key: str, title: str) -> Figure | None:
    """Accuracy against what it costs, with the Pareto front; None where nothing was measured.

    Args:
        variants: What was compared.
        key: The cost in `compare.json`: `latency_ms`, `params` or another number of a variant.
        title: Its name and unit.
    """
    placed = [v for v in variants if v.done and v.number(key) is not None and v.number("accuracy", "mean") is not None]
    if not placed:
        return None
    points = [(_six(v.number(key) or 0.0), _six(v.percent("accuracy", "mean") or 0.0)) for v in placed]
    costs = [x for x, _ in points]
    best = front(points)
    wide = min(costs) > 0 and max(costs) / min(costs) > WIDE
    middle = math.sqrt(max(costs) * min(costs)) if wide else (max(costs) + min(costs)) / 2
    marks = {
        "color": ["--accent" if i in best else "--ink" if v.baseline else "--other" for i, v in enumerate(placed)],
        "symbol": ["diamond" if v.baseline else "circle" for v in placed],
        "size": [11 if i in best or v.baseline else 8 for i, v in enumerate(placed)],
        "opacity": 1,
    }
    labeled = [short(v.name) if i in best or v.baseline else "" for i, v in enumerate(placed)]
    every = {
        **_points(costs, [y for _, y in points], [f"{_told(v)}<br>{escape(title)}: {v.number(key):,}" for v in placed]),
        "mode": "markers+text",
        "marker": marks,
        "text": labeled,
        "textposition": ["top right" if x <= middle else "top left" for x in costs],
        "textfont": {"color": "--ink", "size": 11},
        "cliponaxis": False,
        "error_y": _whiskers(placed),
    }
    line = {
        "x": [points[i][0] for i in best],
        "y": [points[i][1] for i in best],
        "mode": "lines",
        "line": {"color": "--accent", "shape": "hv", "width": 1.5, "dash": "dot"},
        "hoverinfo": "skip",
    }
    one = {"range": [0, 2 * costs[0]]} if len(set(costs)) == 1 and costs[0] else {}
    axis = _axis(title, type="log", dtick="D2") if wide else _axis(title, **one)
    return _figure([line, every], 440, axis, _axis("accuracy, %"))


def intervals(variants: Sequence[Variant]) -> Figure | None:
    """A dot a variant with its interval, a ring a seed, and a line at the baseline where there is one."""
    rows = [v for v in variants if v.number("accuracy", "mean") is not None]
    seeds = [(row, scaled(run.get("accuracy"))) for row, v in enumerate(rows) for run in v.several("per_seed")]
    dots = _points([v.percent("accuracy", "mean") for v in rows], range(len(rows)), map(_told, rows))
    dots |= {"mode": "markers", "error_x": _whiskers(rows)}
    dots["marker"] = {"color": ["--ink" if v.baseline else "--accent" for v in rows], "size": 9, "opacity": 1}
    rings = {
        "x": [accuracy for _, accuracy in seeds],
        "y": [row for row, _ in seeds],
        "mode": "markers",
        "marker": {"color": "--pale", "size": 6, "symbol": "circle-open", "opacity": 1},
        "hoverinfo": "skip",
    }
    figure = _rows(rows, [rings, dots], "accuracy, %")
    baselines = [v.percent("accuracy", "mean") for v in rows if v.baseline]
    if figure and len(baselines) == 1:
        at = {"type": "line", "x0": baselines[0], "x1": baselines[0], "yref": "paper", "y0": 0, "y1": 1}
        figure["layout"]["shapes"] = [{**at, "line": {"color": "--pale", "width": 1, "dash": "dot"}, "layer": "below"}]
    return figure


def shift(variants: Sequence[Variant]) -> Figure | None:
    """How often the prediction stays when the image moves, a row a variant and a mark a way of moving."""
    rows = [v for v in variants if any(v.number("shift", kind, "mean") is not None for kind in SHIFTS)]
    traces = []
    for kind, (name, color, symbol) in SHIFTS.items():
        shares = [v.percent("shift", kind, "mean") for v in rows]
        told = [f"<b>{plain(v.name)}</b><br>{name}: {_figures(v, 'shift', kind)}" for v in rows]
        spread = {"type": "data", "array": [v.percent("shift", kind, "sd") for v in rows], "color": color}
        marker = {"color": color, "symbol": symbol, "size": 9, "opacity": 1}
        traces.append({**_points(shares, range(len(rows)), told), "mode": "markers", "marker": marker, "name": name})
        traces[-1]["error_x"] = {**spread, "thickness": 1.25, "width": 3}
    figure = _rows(rows, traces, "same prediction, %")
    if figure:
        above = {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "font": {"color": "--ink"}}
        figure["layout"] |= {"showlegend": True, "legend": above}
    return figure


SHIFTS: Final = {"zhang": ("crops", "--accent", "circle"), "circular": ("circular shifts", "--pale", "diamond-open")}


def severities(variants: Sequence[Variant]) -> list[tuple[str, Figure]]:
    """Accuracy against severity, 0 for clean images: a figure a corruption, the mean of all first."""
    lines: dict[str, list[Figure]] = {}
    for v in variants:
        for kind, accuracies in v.corruptions():
            accuracies = [v.percent("accuracy", "mean"), *accuracies]
            told = [f"<b>{plain(v.name)}</b><br>severity {s}: {_two(a)} %" for s, a in enumerate(accuracies)]
            line = {**_line(v, range(len(accuracies)), accuracies), "hovertext": told, "mode": "lines+markers"}
            lines.setdefault(kind, []).append(line)
    axes = _axis("severity; 0: clean images", dtick=1, range=[-0.15, 5.15]), _axis("accuracy, %")
    return [(kind, _figure(traces, 400, *axes)) for kind, traces in lines.items()]


def curves(variants: Sequence[Variant], key: str, title: str) -> Figure | None:
    """The mean over the seeds epoch by epoch, and a band from the lowest seed to the highest; None without any.

    Args:
        variants: What was compared.
        key: `loss`, `train_accuracy` or `val_accuracy`.
        title: Its name and unit.
    """
    traces = []
    for v in variants:
        epochs: dict[float, list[float]] = {}
        for run in v.found.get("curves") or []:
            for row in run or []:
                epoch, value = finite(row.get("epoch")), finite(row.get(key))
                if epoch is not None and value is not None:
                    epochs.setdefault(epoch, []).append(value * (1 if key == "loss" else 100))
        x = sorted(epochs)[:: -max(1, math.ceil(len(epochs) / MOST_EPOCHS))][::-1]
        if not x:
            continue
        middle = [mean(epochs[epoch]) for epoch in x]
        if any(len(values) > 1 for values in epochs.values()):
            around = [max(epochs[epoch]) for epoch in x] + [min(epochs[epoch]) for epoch in reversed(x)]
            band = {"x": _rounded([*x, *reversed(x)]), "y": _rounded(around), "fill": "toself", "mode": "lines"}
            shade = {"fillcolor": f"{_color(v)}{BAND}", "line": {"width": 0}, "hoverinfo": "skip"}
            traces.append({**band, **shade, "meta": v.place})
        told = [f"<b>{plain(v.name)}</b><br>epoch {epoch:g}: {y:.4g}" for epoch, y in zip(x, middle, strict=True)]
        traces.append({**_line(v, x, middle), "hovertext": told, "mode": "lines+markers" if len(x) == 1 else "lines"})
    return _figure(traces, 400, _axis("epoch"), _axis(title)) if traces else None


def plain(text: str) -> str:
    """Text for Plotly, which reads a little HTML in whatever it writes."""
    return escape(text, quote=False)


def short(name: str) -> str:
    """A name that fits beside an axis, for Plotly."""
    return plain(name if len(name) <= SHORT else name[: SHORT - 1] + "…")


def _figure(traces: list[Figure], height: int, x: Figure, y: Figure) -> Figure:
    layout = {
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
    }
    return {"data": [{"type": "scatter", **trace} for trace in traces], "layout": layout}


def _rows(rows: Sequence[Variant], traces: list[Figure], title: str) -> Figure | None:
    """A chart with a row for each variant, the first at the top; None without any."""
    if not rows:
        return None
    names = {"tickvals": list(range(len(rows))), "ticktext": [short(v.name) for v in rows]}
    down = _axis("", **names, range=[len(rows) - 0.4, -0.6], tickfont={"color": "--ink", "size": 11})
    return _figure(traces, 110 + ROW * len(rows), _axis(title), down)


def _axis(title: str, **more: Any) -> Figure:
    colors = {"gridcolor": "--rule", "linecolor": "--rule", "zeroline": False}
    return {**colors, "automargin": True, "title": {"text": title, "standoff": 10}, **more}


def _points(x: Iterable[float | None], y: Iterable[float | None], told: Iterable[str]) -> Figure:
    return {"x": _rounded(x), "y": _rounded(y), "hovertext": list(told), "hoverinfo": "text"}


def _line(v: Variant, x: Iterable[float], y: Iterable[float | None]) -> Figure:
    drawn = {"color": _color(v), "dash": v.dash, "width": 3 if v.baseline else 2}
    marks = {"color": _color(v), "size": 6, "opacity": 1}
    return {"x": _rounded(x), "y": _rounded(y), "line": drawn, "marker": marks, "hoverinfo": "text", "meta": v.place}


def _color(v: Variant) -> str:
    return "--ink" if v.baseline else v.color


def _whiskers(rows: Sequence[Variant]) -> Figure:
    """The intervals of the accuracies, in points from their means."""
    ends: dict[str, list[float | None]] = {"high": [], "low": []}
    for v in rows:
        middle = v.percent("accuracy", "mean")
        for key, found in ends.items():
            end = v.percent("accuracy", key)
            found.append(None if end is None or middle is None else abs(end - middle))
    sizes = {"array": _rounded(ends["high"]), "arrayminus": _rounded(ends["low"])}
    return {"type": "data", "symmetric": False, **sizes, "color": "--pale", "thickness": 1.25, "width": 3}


def _told(v: Variant) -> str:
    low, high = v.percent("accuracy", "low"), v.percent("accuracy", "high")
    interval = f"<br>interval {_two(low)} to {_two(high)} %" if low is not None and high is not None else ""
    return f"<b>{plain(v.name)}</b><br>accuracy {_figures(v, 'accuracy')}{interval}"


def _figures(v: Variant, *keys: str) -> str:
    spread = v.percent(*keys, "sd")
    return f"{_two(v.percent(*keys, 'mean'))}{'' if spread is None else f' ± {_two(spread)}'} %"


def _two(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _rounded(values: Iterable[float | None]) -> list[float | None]:
    return [None if value is None else _six(value) for value in values]


def _six(value: float) -> float:
    """Six digits, which are more than a screen shows and keep the page small."""
    return float(f"{value:.6g}")
