"""Summaries of the measurements of a network: ratios, goals, tables."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks.export import cases, runtimes
from poolzoo.common import output, timing

NOT_PEERS: Final = (runtimes.OURS, runtimes.PART, runtimes.DECODING)
GOALS: Final = {"graph": 1.0, "label": 1.0, "light": 1.5, "eager": 5.0}  # minimum speed-up
LIGHT: Final = ("nano/resnet", "timm/mobilenetv3_small_050")  # networks beside which preprocessing is much of the time


@dataclass
class Found:
    """What was measured of one network.

    Attributes:
        case: The network, its sizes, and how many images and labels were compared.
        files: A row a file: nodes, MB, seconds of exporting.
        missing: Why a way is not there.
        opened: Milliseconds to make a session, by threads and way.
        times: A row for every number of threads and batch size: `label` and `graph`, milliseconds by way.
        wrong: The ways that gave other labels.
        peers_versions: What optimum-onnx's environment holds.
    """

    case: dict[str, Any]
    files: dict[str, dict[str, float]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    opened: dict[int, dict[str, list[float]]] = field(default_factory=dict)
    times: list[dict[str, Any]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    peers_versions: dict[str, str] = field(default_factory=dict)


def ratios(times: dict[str, list[float]], ours: str = runtimes.OURS) -> dict[str, dict[str, float]]:
    """How many times as fast ours, or a part of it, is as every other way: the median over rounds, p10 and p90."""
    if ours not in times:
        return {}
    others = {name: found for name, found in times.items() if name not in NOT_PEERS}
    return {name: timing.ratio_spread(found, times[ours]) for name, found in others.items()}


def best_peer(times: dict[str, list[float]]) -> str | None:
    """The fastest of the other exports, options and all."""
    exports = [name for name in times if name not in (*NOT_PEERS, runtimes.EAGER)]
    return min(exports, key=lambda name: statistics.median(times[name]), default=None)


def goals(found: Found) -> list[dict[str, Any]]:
    """The goals that concern a network: the measured and the minimum speed-up of each."""
    small, rows = found.case["data_size"][0] <= cases.SMALL, []
    for row in found.times:
        where = {"network": found.case["network"], "threads": row["threads"], "batch": row["batch"]}
        graph, label = row["graph"], row["label"]
        asked = [
            ("graph, with preprocessing", graph, runtimes.OURS, best_peer(graph), GOALS["graph"]),
            ("graph, the network's part", graph, runtimes.PART, best_peer(graph), GOALS["graph"]),
        ]
        least = GOALS["light" if found.case["network"] in LIGHT else "label"]
        asked.append(("bytes to label", label, runtimes.OURS, best_peer(label), least))
        if small and row["batch"] == 1 and found.case["convolutional"]:
            asked.append(("bytes to label", label, runtimes.OURS, runtimes.EAGER, GOALS["eager"]))
        for what, times, ours, peer, least in asked:
            if (ratio := ratios(times, ours).get(peer or "")) is not None:
                met = ratio["median"] >= least
                rows.append({**where, "what": what, "peer": peer, "least": least, "ratio": ratio, "met": met})
    return rows


def show(everything: list[Found]) -> None:
    """The tables: times, files, goals."""
    rows: list[tuple[object, ...]] = []
    for found in everything:
        for row in found.times:
            speeds = {kind: ratios(row[kind]) for kind in ("label", "graph")}
            for name in dict.fromkeys((*row["label"], *row["graph"])):
                cells = [
                    cell
                    for kind, speed in speeds.items()
                    for cell in (_ms(row[kind].get(name)), _ratio(speed.get(name)))
                ]
                rows.append((title(found), row["threads"], row["batch"], name, *cells))
    faster = "ours is … times as fast"
    headers = ("network", "threads", "batch", "way", "label, ms", faster, "graph, ms", faster)
    output.table(headers, rows, right=(1, 2, 4, 5, 6, 7))
    rows = []
    for found in everything:
        for name, file in found.files.items():
            opened = (f"{count}: {_ms(by[name])}" for count, by in found.opened.items() if name in by)
            rows.append((title(found), name, file["nodes"], file["mb"], file["export_s"], ", ".join(opened)))
        rows += [(title(found), name, "–", "–", "–", why) for name, why in found.missing.items()]
    headers = ("network", "way", "nodes", "MB", "export, s", "opened in ms by threads, or why it is missing")
    output.table(headers, rows, right=(2, 3, 4))
    checked = [goal for found in everything for goal in goals(found)]
    rows = [
        (goal["network"], goal["threads"], goal["batch"], f"{goal['what']}, against {goal['peer']}",
         f"≥ {goal['least']}", _ratio(goal["ratio"]), "met" if goal["met"] else "missed")
        for goal in checked
    ]  # fmt: skip
    output.table(("network", "threads", "batch", "goal", "times as fast", "found", ""), rows, right=(1, 2, 5))
    print(f"{sum(goal['met'] for goal in checked)} of {len(checked)} goals met")


def title(found: Found) -> str:
    """A network with the size of its images, and that of its input where it differs."""
    data, image = found.case["data_size"][0], found.case["image_size"][0]
    return f"{found.case['network']}@{data}" + (f"→{image}" if image != data else "")


def _ms(times: Sequence[float] | None) -> str:
    return f"{statistics.median(times):.3f}" if times else "–"


def _ratio(found: dict[str, float] | None) -> str:
    return f"{found['median']:.2f} ({found['p10']:.2f}–{found['p90']:.2f})" if found else "–"
