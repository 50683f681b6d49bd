"""docs/results/runtimes.{md,json}: a row for each layer and bundle, and why cells do not agree."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from benchmarks.coverage.jobs import table
from benchmarks.runtimes import bundles, layers
from benchmarks.runtimes.cells import BUNDLE_LIMIT, LAYER_LIMIT, LOWER_LIMIT, CellResult
from poolzoo.common.json_writer import dumps
from poolzoo.common.text import one_line
from poolzoo.plugin import loader
from poolzoo.plugin.spec import Runtime
from poolzoo.runtime import runtimes
from poolzoo.runtime.environment import current_environment

DOCS: Final = Path(__file__).parents[2] / "docs" / "results"
DATA: Final = DOCS / "runtimes.json"
WORST: Final = ("wrong", "crashed", "refused", "too slow", "agrees")  # a layer is what the worst of its graphs is
MARKS: Final = {"agrees": "✓", "refused": "refused", "crashed": "crashed", "too slow": "too slow"}

Cells = dict[tuple[str, str], CellResult]  # by graph and runtime


def write(found: Sequence[CellResult]) -> None:
    """Writes the page and its data."""
    cells = {(one.graph, one.runtime): one for one in found}
    (DOCS / "runtimes.md").write_text(render(cells), encoding="utf-8")
    lines = ",\n".join(dumps(cells[key].to_json()) for key in sorted(cells))  # one a line: there are many
    DATA.write_text(f'{{"machine": {dumps(_machine())}, "cells": [\n{lines}\n]}}\n', encoding="utf-8")


def published() -> dict[str, Mapping[str, object]]:
    """The cells of `DATA`, by their keys in the journal."""
    return {cell["trial"]: cell for cell in json.loads(DATA.read_text(encoding="utf-8"))["cells"]}


def render(cells: Cells) -> str:
    """The page."""
    names = _runtimes(cells)
    merged = cells | _layers(cells, names)
    whole = [one.name for one in bundles.BUNDLES]
    kinds = {one.name: one.kind for one in bundles.BUNDLES}
    return "\n".join(
        [
            "# Bundles and layers in every runtime",
            "",
            "`python -m benchmarks.runtimes` runs the cells; `python -m benchmarks.runtimes --write` writes this page.",
            "",
            f"{datetime.now(UTC):%Y-%m-%d}, {_machine()}.",
            "One thread, float32 arithmetic, each runtime in a process of its own. `poolzoo list runtimes` shows how",
            "to get a runtime.",
            "",
            table(["runtime", "version", "what the graph is changed to"], _forms(cells, names)),
            "",
            "## Summary",
            "",
            table(["", *names], _summary(merged, names, whole)),
            "",
            "✓ agrees. A number is how far a wrong cell is off, as a fraction of the largest value that torch gives.",
            "A cell *crashed* where the runtime's process ended, and is *refused* where the runtime says why. It is",
            "*too slow* where opening, converting or a batch took longer than a limit.",
            "– is a cell that was not run. A runtime that was not installed, or not asked for, has no column.",
            "",
            "## Layers",
            "",
            "Each layer is exported by a plain `torch.onnx.export` with a dynamic batch and opset 18. It takes",
            "`float[N, 64, 8, 8]`, and all parameters have noise. A flattening and a softmax follow it. A local layer",
            "has three graphs: 2 × 2 windows, 3 × 3 windows with stride 2 and padding 1, and the same without padding",
            "and with ceil_mode; its cell is that of the worst. `wavelet` exists with 2 × 2 windows alone.",
            f"It agrees within {LAYER_LIMIT:g} of the largest value of torch, at batches 3, 3, 1, 7, 3 in one session.",
            "",
            table(["layer", *names], _rows(merged, names, layers.names())),
            "",
            "## Bundles",
            "",
            "Networks have random weights in which every part matters, and take `uint8[N, h, w, 3]`. Images are",
            "mirrored photographs that the bundle does not hold, and torch's logits are the reference; for graphs in",
            "fp16 or int8 those of onnx's own evaluator of the same graph. The limit is",
            f"{BUNDLE_LIMIT:g} of the largest logit; in fp16 or int8 {LOWER_LIMIT:g}, and what that precision",
            "itself costs.",
            "",
            table(["bundle", "kind", *names], _rows(cells, names, whole, kinds)),
            "",
            *_caught(cells, whole),
            "",
            "### Speed",
            "",
            "How many times as fast as ONNX Runtime each is, at batch 1 / 32. The numbers are rough: the machine was",
            "shared, and a cell is timed for a second.",
            "",
            table(["bundle", *names[1:]], _speeds(cells, names[1:], whole)),
            "",
            "## Cells that do not agree",
            "",
            *_causes(cells, names),
        ]
    )


def _runtimes(cells: Cells) -> list[str]:
    """The runtimes that there are cells of, in the catalog's order."""
    ran = {runtime for _, runtime in cells}
    return [entry.item.name for entry in loader.catalog().select(Runtime) if entry.item.name in ran]


def _layers(cells: Cells, names: Sequence[str]) -> Cells:
    """A cell for each layer: the worst of those of its graphs."""
    found: Cells = {}
    for layer in layers.names():
        for name in names:
            own = [cells[graph, name] for graph in layers.graphs_of(layer) if (graph, name) in cells]
            if own:
                worst = min(own, key=lambda one: (WORST.index(one.status), -(one.off or 0)))
                found[layer, name] = replace(worst, graph=layer)
    return found


def _machine() -> str:
    machine = current_environment(1)
    return f"{machine.processor} ({', '.join(machine.cpu_flags) or machine.machine})"


def _forms(cells: Cells, names: Sequence[str]) -> list[list[str]]:
    rows = []
    for name in names:
        runtime = runtimes.runtime_of(loader.catalog().runtime(name))
        form = runtime.form
        changes = [f"{form.input} input"] if form.input else []
        changes += [f"batch {form.batch}"] if form.batch else []
        changes += [f"opset {form.opset}"] if form.opset else []
        changes += ["a file of its own"] if runtime.convert else []
        versions = sorted({one.version for one in cells.values() if one.runtime == name})
        rows.append([name, " and ".join(versions), ", ".join(changes) or "nothing"])
    return rows


def _summary(cells: Cells, names: Sequence[str], whole: Sequence[str]) -> list[list[str]]:
    rows = []
    for title, prefix in (("global layers", "global "), ("local layers", "local ")):
        graphs = [name for name in layers.names() if name.startswith(prefix)]
        rows.append([title, *(_count(cells, name, graphs) for name in names)])
    rows.append(["**all layers**", *(_count(cells, name, layers.names()) for name in names)])
    rows.append(["**bundles**", *(_count(cells, name, whole) for name in names)])
    return rows


def _count(cells: Cells, runtime: str, graphs: Sequence[str]) -> str:
    found = [cells[graph, runtime] for graph in graphs if (graph, runtime) in cells]
    if not found:
        return "–"
    wrong = sum(one.status == "wrong" for one in found)
    agree = sum(one.status == "agrees" for one in found)
    return f"{agree} of {len(found)}" + (f", {wrong} wrong" if wrong else "")


def _rows(
    cells: Cells, names: Sequence[str], graphs: Sequence[str], kinds: dict[str, str] | None = None
) -> list[list[str]]:
    found = [graph for graph in graphs if any((graph, name) in cells for name in names)]
    return [
        [f"`{graph}`", *([kinds[graph]] if kinds else []), *(_mark(cells.get((graph, name))) for name in names)]
        for graph in found
    ]


def _mark(cell: CellResult | None) -> str:
    if cell is None:
        return "–"
    if cell.status != "wrong":
        return MARKS[cell.status]
    return f"**{_number(cell.off)}**" if cell.off is not None else "**wrong**"


def _number(off: float) -> str:
    return f"{off:.2g}" if off < 100 else "> 100"


def _speeds(cells: Cells, names: Sequence[str], whole: Sequence[str]) -> list[list[str]]:
    rows = []
    for graph in whole:
        row = []
        for name in names:
            cell = cells.get((graph, name))
            speed = (cell.speed if cell else None) or {}
            row.append(" / ".join(f"{speed[size]:.2g}" if size in speed else "–" for size in ("1", "32")))
        if set(row) != {"– / –"}:
            rows.append([f"`{graph}`", *row])
    return rows


def _caught(cells: Cells, whole: Sequence[str]) -> list[str]:
    """Whether `poolzoo verify --runtime` finds every bundle that is wrong."""
    wrong = [one for one in cells.values() if one.graph in whole and one.status == "wrong"]
    missed = [one for one in wrong if one.verify == "agrees"]
    found = len(wrong) - len(missed)
    text = f"{len(wrong)} cells of bundles are wrong; `verify` with `--runtime` finds {found} of them wrong too."
    return [text, *(f"* missed: `{one.graph}` in {one.runtime}" for one in missed)]


def _causes(cells: Cells, names: Sequence[str]) -> list[str]:
    """For each runtime, the cells that do not agree by cause."""
    lines: list[str] = []
    for name in names:
        groups: dict[tuple[str, str], list[str]] = defaultdict(list)
        for cell in (cells[key] for key in sorted(cells) if key[1] == name):
            if cell.status != "agrees":
                groups[cell.status, _cause(cell)].append(f"`{cell.graph}`")
        if groups:
            lines += [f"### {name}", ""]
            lines += [f"* {', '.join(graphs)}: {status}. {cause}" for (status, cause), graphs in groups.items()]
            lines.append("")
    return lines or ["None."]


def _cause(cell: CellResult) -> str:
    """The cause by the rules, else what was seen; numbers of a wrong cell are in its table."""
    if cell.causes and cell.status != "too slow":
        return f"{cell.runtime} {'; it '.join(cell.causes)}."
    return f"{one_line(cell.detail, 240)}."
