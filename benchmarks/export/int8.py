"""Layers that lower precision returns to float32: agreement, speed and time with and without them, and peak memory.

python -m benchmarks.export.int8 [--models NAME@PIXELS|NAME|RUN …] [--precision int8|fp16|auto] [--min-agreement X]
                                 [--images FOLDER] [--count N] [--threads N] [--no-memory | --memory-alone]
                                 [--json FILE]

A network is a run, a published backbone with its own classifier, or with @PIXELS a backbone with random weights
(`cases.perturb`); the last two on crops of photographs. Random weights have small margins, so that they lose more than
trained ones. `export` measures agreement with the network, and milliseconds
before and after layers return, in the same rounds. `× fp32` and `× all` say how many times as fast the graph is as the
one in float32, and as the one with all layers in lower precision: the geometric mean over both batch sizes.

`MB` is the peak memory of a process that calibrates and converts the graph to static int8, with 16 images and with
`--count`; `--memory-alone` measures nothing else. Seconds are those of the process's CPU time for the whole export, and
within it for the search.
"""

from __future__ import annotations

import argparse
import io
import json
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.export import cases
from poolzoo.artifacts.run import load_run
from poolzoo.common import output
from poolzoo.data import images
from poolzoo.export import graph
from poolzoo.export.export import ExportOptions, ExportReport, ParityFailed, export
from poolzoo.export.precision.candidate import CandidateResult
from poolzoo.export.precision.convert import convert
from poolzoo.export.precision.layer_search import describe
from poolzoo.export.published_network import from_backbone
from poolzoo.export.source import ExportSource, from_run
from poolzoo.parity.report import Limits

MODELS: Final = (
    "timm/mobilenetv3_small_050@32",
    "timm/tf_efficientnet_lite0@64",
    "timm/test_vit@160",
    "timm/vit_tiny_patch16_224@224",
    "timm/convnext_atto@224",
)
FEW: Final = 16  # calibration images, beside --count
MOST: Final = 1.2  # peak memory with `--count` images, over that with few
TESTED: Final = 128  # images on which agreement is measured


@dataclass(frozen=True, kw_only=True)
class Row:
    """What was found of one network; agreements are 0–1, times ratios or seconds, memory in MB."""

    network: str
    precision: str
    before: float
    after: float
    returned: int
    layers: int
    named: str
    against_fp32: float
    against_all: float
    peak_few: float
    peak_many: float
    seconds: float
    search_seconds: float


def source_of(text: str, folder: Path | None, count: int) -> ExportSource:
    """The network of a run, a backbone or a case; the last two with `TESTED` images, and `count` to calibrate with."""
    if Path(text).is_dir():
        return from_run(load_run(Path(text)))
    source = cases.make(text, folder).source() if "@" in text else from_backbone(text)
    photos = [cases.jpeg(photo) for photo in cases.photographs(folder, source.size, TESTED + count)]
    pixels = np.stack([images.read(io.BytesIO(one)) for one in photos])  # type: ignore[arg-type]
    return replace(source, images=pixels[:TESTED], calibration=pixels[TESTED:])


def measure(text: str, source: ExportSource, arguments: argparse.Namespace) -> Row:
    """Exports a network, and calibrates it in processes of its own."""
    options = ExportOptions(precision=arguments.precision, limits=Limits(agreement=arguments.min_agreement))
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        out = Path(folder) / "bundle"
        try:
            report = export(source, out, options=options, threads=arguments.threads, measure_speed=False)
        except ParityFailed as failed:
            report = failed.report
        seconds = time.process_time() - started
        few, many = 0.0, 0.0
        if not arguments.no_memory:
            few, many = (peak(source, Path(folder), count) for count in (FEW, arguments.count))
    shown = shown_candidate(report)
    search = shown.search
    return Row(
        network=text,
        precision=shown.precision if shown.selected and report.bundle else f"({shown.precision})",
        before=search.before.parity.outputs.top1_agreement if search else shown.agreement,
        after=shown.agreement,
        returned=len(search.layers) if search else 0,
        layers=search.total if search else 0,
        named=describe(search.layers, 3) if search else shown.reason or "",
        against_fp32=statistics.geometric_mean(shown.speedup.values()),
        against_all=statistics.geometric_mean(search_ratios(shown)) if search else 1.0,
        peak_few=few,
        peak_many=many,
        seconds=seconds,
        search_seconds=search.seconds if search else 0.0,
    )


def measure_memory(models: Sequence[str], arguments: argparse.Namespace) -> int:
    """Prints a table of peak memory alone; the exit code is that of `main`."""
    rows = []
    for text in models:
        source = source_of(text, arguments.images, arguments.count)
        with tempfile.TemporaryDirectory() as folder:
            rows.append((text, *(peak(source, Path(folder), count) for count in (FEW, arguments.count))))
    cells = [(text, f"{few:.0f}", f"{many:.0f}", f"{many / few:.3f}") for text, few, many in rows]
    output.table(("network", f"MB, {FEW}", f"MB, {arguments.count}", "ratio"), cells, right=(1, 2, 3))
    return int(any(many > MOST * few for _, few, many in rows))


def shown_candidate(report: ExportReport) -> CandidateResult:
    """The selected candidate, or the one that was searched if fp32 was selected."""
    searched = [one for one in report.candidates if one.search is not None]
    selected = next(one for one in report.candidates if one.selected)
    return searched[0] if searched and selected.precision == "fp32" else selected


def search_ratios(one: CandidateResult) -> list[float]:
    """How many times as fast a candidate is as before its search, by batch size."""
    return [one.search_ms[size] / milliseconds for size, milliseconds in one.ort_ms.items()]


def peak(source: ExportSource, folder: Path, count: int) -> float:
    """Peak memory in MB of a process that calibrates and converts the graph with `count` images."""
    written = graph.export_graph(source, folder / "fp32.onnx")
    (folder / "layers.pickle").write_bytes(pickle.dumps(written.layers))
    np.save(folder / "images.npy", source.calibration[np.arange(count) % len(source.calibration)])
    command = [sys.executable, "-m", "benchmarks.export.int8", "--calibrate", str(folder)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def calibrate(folder: Path) -> None:
    """Calibrates and converts the graph in a folder, and prints the peak memory of this process in MB."""
    layers = pickle.loads((folder / "layers.pickle").read_bytes())
    pixels = np.load(folder / "images.npy", mmap_mode="r")
    convert("int8-static", folder / "fp32.onnx", folder / "int8.onnx", layers, pixels)
    status = Path("/proc/self/status").read_text(encoding="ascii")  # `ru_maxrss` would be that of the parent
    print(next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")))


def main(given: Sequence[str] | None = None) -> int:
    """Prints a table. The exit code is 1 if memory grows by a fifth from 16 images to `--count`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--precision", choices=("fp16", "int8", "auto"), default="int8")
    parser.add_argument("--min-agreement", type=float, default=0.99)
    parser.add_argument("--count", type=int, default=256)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--memory-alone", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--calibrate", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(given)
    if arguments.calibrate is not None:
        calibrate(arguments.calibrate)
        return 0
    if arguments.memory_alone:
        return measure_memory(arguments.models, arguments)
    rows = []
    for text in arguments.models:
        rows.append(measure(text, source_of(text, arguments.images, arguments.count), arguments))
        output.say(f"{text}: {rows[-1].named}")
    headers = (
        "network",
        "exported",
        "agreement",
        "after",
        "float32",
        "× fp32",
        "× all",
        "MB, 16",
        "MB, more",
        "s",
        "search",
    )
    cells = [
        (
            row.network,
            row.precision,
            f"{row.before:.4f}",
            f"{row.after:.4f}",
            f"{row.returned} of {row.layers}" if row.layers else "–",
            f"{row.against_fp32:.2f}",
            f"{row.against_all:.2f}",
            f"{row.peak_few:.0f}",
            f"{row.peak_many:.0f}",
            f"{row.seconds:.0f}",
            f"{row.search_seconds:.0f}",
        )
        for row in rows
    ]
    output.table(headers, cells, right=range(2, len(headers)))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    return int(any(row.peak_many > MOST * row.peak_few for row in rows))


if __name__ == "__main__":
    sys.exit(main())
