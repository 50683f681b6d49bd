"""How far planted faults are reduced: nodes before and after, bytes of input, seconds, and whether the cause is named.

    python -m benchmarks.parity.reduce [--kinds TEXT …] [--keep DIR] [--json FILE]

Each fault is planted in the graph of a whole network with random weights. The first image, or batch, that shows it is
reduced as by `poolzoo export --debug`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import torch

from benchmarks.parity import planted
from benchmarks.parity.planted import Fault
from poolzoo.common import files
from poolzoo.export import graph
from poolzoo.export.graph import ExportedGraph
from poolzoo.export.source import ExportSource
from poolzoo.parity.reduction import folder
from poolzoo.parity.reduction.reduce import NothingToReduce, reduce_failure
from poolzoo.parity.reduction.result import Reduction
from poolzoo.runtime import graph_input

MOST_NODES: Final = 5

Exported = tuple[ExportSource, ExportedGraph, onnx.ModelProto]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", metavar="TEXT", help="only faults whose kind contains one of these")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="write a folder for each fault there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the figures")
    given = parser.parse_args()
    torch.set_num_threads(1)
    exported: dict[str, Exported] = {}
    rows: list[dict[str, Any]] = []
    chosen = [one for one in planted.FAULTS if not given.kinds or any(text in one.kind for text in given.kinds)]
    print("kind\tnetwork\tnodes\tleft\tbytes\tseconds\tnamed\tculprit")
    for fault in chosen:
        if fault.network not in exported:
            exported[fault.network] = export(fault.network)
        found = reduce(fault, exported[fault.network])
        rows.append(row(fault, found))
        print("\t".join(map(str, rows[-1].values())), flush=True)
        if given.keep is not None and found is not None:
            folder.write(found, given.keep / files.slug(fault.kind))
        if given.json:
            given.json.write_text(json.dumps(rows, indent=1))
    small = [one for one in rows if isinstance(one["left"], int) and one["left"] <= MOST_NODES]
    print(f"{len(rows)} faults, {len(small)} reduced to {MOST_NODES} nodes or fewer, {named(rows)} causes named")


def named(rows: list[Mapping[str, Any]] | list[dict[str, Any]]) -> int:
    """How many faults have their cause named."""
    return sum(one["named"] == "yes" for one in rows)


def export(text: str) -> Exported:
    """A network with its graph."""
    source = planted.source(text)
    with tempfile.TemporaryDirectory() as work:
        file = Path(work) / "model.onnx"
        written = graph.export_graph(source, file)
        return source, written, onnx.load(file)


def reduce(fault: Fault, exported: Exported, budget: float = 120.0) -> Reduction | None:
    """Plants a fault and reduces it; None where no image shows it."""
    source, written, proto = exported
    faulty = onnx.ModelProto()
    faulty.CopyFrom(proto)
    fault.plant(faulty)
    for start in range(0, len(source.images) - fault.batch + 1, fault.batch):
        images = graph_input.as_input(source.images[start : start + fault.batch], "uint8")
        try:
            layers = written.layers.within(faulty).outputs
            return reduce_failure(faulty, {"images": np.asarray(images)}, source.model, layers=layers, budget=budget)
        except NothingToReduce:
            continue
    return None


def row(fault: Fault, found: Reduction | None) -> dict[str, Any]:
    """A row of the table."""
    if found is None:
        return {"kind": fault.kind, "network": fault.network, "left": "not shown by any image"}
    culprit = found.repair.describe() if found.repair is not None else "–"
    culprit = f"{found.optimizer}; {culprit}" if found.optimizer is not None else culprit
    return {
        "kind": fault.kind,
        "network": fault.network,
        "nodes": found.nodes_before,
        "left": found.nodes,
        "bytes": found.bytes,
        "seconds": round(found.seconds, 1),
        "named": "–" if not fault.named else "yes" if fault.named in culprit else "no",
        "culprit": culprit,
    }


if __name__ == "__main__":
    main()
