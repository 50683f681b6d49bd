"""The section of docs/results/matrix.md on every pooling in backbones of every kind, from the records of its cells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from benchmarks.coverage import jobs
from benchmarks.coverage.cells import BACKBONES, STRENGTHS, Cell, cells

WHAT: Final = """
A cell is a backbone with one pooling. The input is the smallest on which the backbone's feature map is 2 × 2 or more.
A cell passes if all of these hold:

* The network is assembled.
* After one training step, every parameter has a gradient, and all gradients are finite.
* The exporter writes the whole network.
* ONNX Runtime agrees with torch by the rule of `poolzoo export`: within the noise floor on synthetic edge cases and
  natural images, in batches of 1, 2 and 7, and layer by layer on probes.

Weights are random. Parameters that start at zero or one are perturbed, so that every branch matters. If rounding alone
moves the logits, or the logits are equal for all images, the perturbation is a fifth (cells here: {weaker}). A
refusal by contract has a message and is no pass.
"""


def render(records: Sequence[dict[str, Any]]) -> str:
    """The section of the page."""
    by = {status: [one for one in records if one["status"] == status] for status in ("passed", "refused", "failed")}
    left = len(set(cells()) - {record["trial"] for record in records})
    done = f"{len(records):,} cells" + (f" done, {left:,} left" if left else "")
    summary = (
        f"**{done}: {len(by['passed']):,} passed, {len(by['refused'])} refused by contract, "
        f"{len(by['failed'])} failed.** {jobs.circumstances(records)}"
    )
    weaker = sum(record.get("strength", STRENGTHS[0]) < STRENGTHS[0] for record in by["passed"])
    parts = [WHAT.strip().format(weaker=weaker), summary, _grid(records), "### Failed"]
    parts.append(
        jobs.table(("cell", "why"), [(f"`{r['trial']}`", r["reason"]) for r in by["failed"]])
        if by["failed"]
        else "None."
    )
    parts += ["### Refused", _refusals(by["refused"]), "### Zero gradients", _zeros(by["passed"])]
    return "\n\n".join(parts)


def _grid(records: Sequence[dict[str, Any]]) -> str:
    rows = []
    for backbone, words in BACKBONES.items():
        mine = [record for record in records if Cell.of(record["trial"]).backbone == backbone]
        shape = next(("×".join(map(str, record["map"])) for record in mine if "map" in record), "–")
        pixels = next((record["pixels"] for record in mine if "pixels" in record), "–")
        rows.append((f"`{backbone}`", words, pixels, shape, *(_score(mine, kind) for kind in ("global", "local"))))
    return jobs.table(("backbone", "kind", "pixels", "feature map", "global", "local"), rows)


def _score(records: Sequence[dict[str, Any]], kind: str) -> str:
    """Passed of all, and what was refused."""
    counts = Counter(record["status"] for record in records if Cell.of(record["trial"]).kind == kind)
    refused = f", {counts['refused']} refused" if counts["refused"] else ""
    return f"{counts['passed']}/{counts.total()}{refused}" if counts else "–"


def _refusals(records: Sequence[dict[str, Any]]) -> str:
    rows = []
    for why in sorted({record["contract"] for record in records}):
        mine = [record for record in records if record["contract"] == why]
        poolings = sorted({f"`{Cell.of(record['trial']).pool}`" for record in mine})
        rows.append((why, len(mine), ", ".join(poolings), mine[0]["reason"]))
    return jobs.table(("why", "cells", "poolings", "the message of the first"), rows) if rows else "None."


def _zeros(records: Sequence[dict[str, Any]]) -> str:
    """Which parameters learn nothing from the step, and in how many cells."""
    counts = Counter(
        (Cell.of(record["trial"]).backbone, name) for record in records for name in record["zero_gradients"]
    )
    rows = [(f"`{backbone}`", f"`{name}`", count) for (backbone, name), count in sorted(counts.items())]
    return jobs.table(("backbone", "parameter", "cells"), rows) if rows else "None."


def summary(records: Sequence[dict[str, Any]]) -> str:
    """How many of each status."""
    return ", ".join(f"{count} {status}" for status, count in Counter(one["status"] for one in records).items())
