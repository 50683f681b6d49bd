"""ONNX Runtime's time for the graph of every pooling layer, this tree's against that of another checkout.

python -m benchmarks.poolings.portable --base PATH [NAME ...] [--kind global|local] [--json FILE]

The graphs are plain exports of float[N, 64, 8, 8] with a dynamic batch; local layers have windows of 2 × 2 and stride
2. Both run in one process on one thread, interleaved in shuffled order; CPU time, medians of per-round ratios (below 1:
this tree is faster). `noise` is the ratio of the base to a second session of its own graph. Graphs of the same bytes
are not timed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

SHAPE = (64, 8, 8)  # channels, height and width
BATCHES = (1, 32)
SECONDS = 1.0  # for each layer and batch
ROUND = 3e-4  # seconds that one side takes in a round, at least: the clock is no finer than a microsecond
ROOT = Path(__file__).parents[2]


def export_layers(folder: Path, kind: str | None, names: list[str]) -> None:
    """Writes `<kind>-<name>.onnx` of each built-in pooling of the tree that `poolzoo` is imported from."""
    import torch

    from poolzoo.model.cost import build_layer
    from poolzoo.model.inference import OPSET, quiet_exporter
    from poolzoo.plugin import loader
    from poolzoo.plugin.spec import Pooling

    catalog = loader.load_plugins(installed=False)
    for entry in catalog.select(Pooling):
        item = entry.item
        if kind not in (None, item.kind) or (names and item.name not in names):
            continue
        torch.manual_seed(0)
        layer = build_layer(catalog.pooling(item.name, item.kind), SHAPE[0], SHAPE[1:]).eval()
        with quiet_exporter():
            torch.onnx.export(
                layer,
                (torch.randn(2, *SHAPE),),
                folder / f"{item.kind}-{item.name}.onnx",
                input_names=["x"],
                output_names=["y"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )


def exported_by(tree: Path, folder: Path, kind: str | None, names: list[str]) -> dict[str, Path]:
    """The graphs of a checkout by kind and name, exported in a process that imports `poolzoo` from there."""
    folder.mkdir()
    script = (
        "import sys, pathlib, runpy, poolzoo; "
        "assert pathlib.Path(poolzoo.__file__).is_relative_to(sys.argv[1]), poolzoo.__file__; "
        "runpy.run_path(sys.argv[2])['export_layers'](pathlib.Path(sys.argv[3]), sys.argv[4] or None, sys.argv[5:])"
    )
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    subprocess.run(
        [sys.executable, "-c", script, str(tree), __file__, str(folder), kind or "", *names],
        check=True,
        cwd=tree,
        env=environment,
    )
    return {path.stem: path for path in sorted(folder.glob("*.onnx"))}


def stripped(path: Path) -> bytes:
    """The graph's bytes without metadata, which has the paths and lines of its source."""
    import onnx

    from poolzoo.export.graph import strip_exporter_metadata

    proto = onnx.load(path)
    strip_exporter_metadata(proto)
    return proto.SerializeToString(deterministic=True)


def session_call(path: Path, batch: int) -> Callable[[], Any]:
    """One pass of a graph under ONNX Runtime on one thread."""
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).standard_normal((batch, *SHAPE), dtype=np.float32)
    return partial(session.run, None, {"x": x})


def repeated(call: Callable[[], Any], times: int) -> Callable[[], None]:
    """A call that makes `times` calls."""

    def run() -> None:
        for _ in range(times):
            call()

    return run


def measure(ours: Path, base: Path, batch: int) -> dict[str, float]:
    """Microseconds of both graphs, the ratio of ours to the base, and of the base to itself."""
    from poolzoo.common import timing

    calls = {"ours": session_call(ours, batch), "base": session_call(base, batch), "again": session_call(base, batch)}
    for call in calls.values():
        call()
    started = time.process_time()
    calls["base"]()
    repeats = max(1, round(ROUND / max(time.process_time() - started, 1e-6)))
    rounds = {name: repeated(call, repeats) for name, call in calls.items()}
    times = timing.interleaved(rounds, SECONDS, time.process_time, rounds=10_000)
    return {
        "us": round(statistics.median(times["ours"]) / repeats * 1e3, 1),
        "base_us": round(statistics.median(times["base"]) / repeats * 1e3, 1),
        "ratio": round(timing.ratio(times["ours"], times["base"]), 3),
        "noise": round(timing.ratio(times["again"], times["base"]), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="strategies to measure; all of the built-in ones by default")
    parser.add_argument("--base", type=Path, required=True, help="another checkout, to compare with")
    parser.add_argument("--kind", choices=["global", "local"], help="only layers of this kind")
    parser.add_argument("--json", type=Path, help="a file to write the measurements to")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        sides = [
            exported_by(tree, Path(work) / side, arguments.kind, arguments.names)
            for side, tree in (("ours", ROOT), ("base", arguments.base.resolve()))
        ]
        rows = []
        print("layer", *(f"batch {b}, µs\tbase\tratio\tnoise" for b in BATCHES), sep="\t")
        for name in sorted(sides[0].keys() & sides[1].keys()):
            ours, base = (side[name] for side in sides)
            row: dict[str, Any] = {"layer": name, "same": stripped(ours) == stripped(base)}
            if not row["same"]:
                row["batches"] = {str(batch): measure(ours, base, batch) for batch in BATCHES}
            rows.append(row)
            found = [value for batch in row.get("batches", {}).values() for value in batch.values()]
            print(name, *(found or ["the same graph"]), sep="\t", flush=True)
    for batch in BATCHES:
        ratios = {row["layer"]: 1.0 if row["same"] else row["batches"][str(batch)]["ratio"] for row in rows}
        worst = max(ratios, key=lambda name: ratios[name])
        median = statistics.median(ratios.values())
        print(f"batch {batch}: median {median:.3f}, worst {ratios[worst]:.3f} ({worst}), {len(rows)} layers")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
