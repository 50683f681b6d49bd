"""The table of a bundle in other runtimes, as plain text for its card, its page and the page of `verify --runtime`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from poolzoo.artifacts.schema import KeptRuntime, RuntimeRow, RuntimeTime
from poolzoo.report.bundle_words import milliseconds, size, small, times

ABSENT: Final = "not installed"  # the status of a runtime that says nothing of the bundle
NOTE: Final = (
    "In parentheses: the speed, where that of ONNX Runtime in the same rounds is 1. Start-up is imports, opening and "
    "the first image. Each runtime ran in a process of its own, on the stored images and on others."
)
POINTER: Final = "runs it in every runtime that is installed, and keeps the table"  # of the command


def headers(rows: Sequence[RuntimeRow]) -> tuple[str, ...]:
    """The headers of `cells`."""
    times = [f"batch {batch}, ms (speed)" for batch in _batches(rows)]
    return ("runtime", "version", "result", "off by", "allowed", *times, "start-up, ms", "size", "changed for it")


def cells(rows: Sequence[RuntimeRow]) -> list[tuple[str, ...]]:
    """A row for each runtime that is installed."""
    batches = _batches(rows)
    found = []
    for one in rows:
        if one["status"] == ABSENT:
            continue
        times = {time["batch"]: time for time in one["speed"]}
        agrees = one["status"] == "agrees"
        found.append(
            (
                one["runtime"],
                one["version"] or "–",
                "agrees" if agrees else f"{one['status']}: {one['detail']}",
                small(one["max_abs"]) if one["allowed"] is not None else "–",
                "–" if one["allowed"] is None else small(one["allowed"]),
                *(_time(times.get(batch)) for batch in batches),
                milliseconds(one["startup_ms"]),
                size(one["bytes"]),
                ", ".join(one["changes"]) or "nothing",
            )
        )
    return found


def kept_headers(rows: Sequence[KeptRuntime]) -> tuple[str, ...]:
    """The headers of `kept_cells`."""
    return headers(rows) if conditions(rows) else (*headers(rows), "measured")


def kept_cells(rows: Sequence[KeptRuntime]) -> list[tuple[str, ...]]:
    """The rows of `runtimes.json`, each with how it was measured unless that is the same for all."""
    shown = [one for one in rows if one["status"] != ABSENT]
    if conditions(rows):
        return cells(shown)
    return [(*row, _measured(one)) for row, one in zip(cells(shown), shown, strict=True)]


def conditions(rows: Sequence[KeptRuntime]) -> str:
    """How all rows were measured; "" where they differ."""
    found = {_measured(one) for one in rows}
    return found.pop() if len(found) == 1 else ""


def _batches(rows: Sequence[RuntimeRow]) -> list[int]:
    return sorted({time["batch"] for one in rows for time in one["speed"]})


def _time(time: RuntimeTime | None) -> str:
    if time is None:
        return "–"
    ratio = f" ({times(time['speedup']['median'])})" if time.get("speedup") else ""
    return f"{milliseconds(time['median_ms'])}{ratio}"


def _measured(one: KeptRuntime) -> str:
    threads = one["threads"]
    count = "" if threads is None else f", {threads} thread{'s' if threads != 1 else ''}"
    arithmetic = "" if one["precision"] == "fp32" else f", arithmetic {one['precision']}"
    return f"{one['date']} on {one['processor'] or 'an unknown processor'}{count}{arithmetic}"
