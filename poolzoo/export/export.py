"""A network to a bundle: graph, parity, precision, speed, card; it appears whole, and only where the graph is right."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

from poolzoo.artifacts import manifest
from poolzoo.common import allocator, files, output
from poolzoo.common.errors import CheckFailed
from poolzoo.explain import head
from poolzoo.export import candidates, card, graph, script
from poolzoo.export.candidates import Candidate
from poolzoo.export.source import ExportSource
from poolzoo.model import inference
from poolzoo.model.inference import batch_of
from poolzoo.parity import bisect, parity, probes
from poolzoo.parity.parity import Limits
from poolzoo.parity.reference import Reference
from poolzoo.plugin import loader
from poolzoo.runtime import onnx_file, ort_session, speed


@dataclass(frozen=True)
class ExportOptions:
    """What the graph shall be like.

    Attributes:
        precision: A key of `candidates.CHOICES`.
        kind: "uint8" for images as they are stored, "float" for such as are scaled to 0–1 (`graph.INPUTS`).
        limits: What lower precision may cost.
        opset: What the exporter is asked for.
    """

    precision: str = "fp32"
    kind: str = "uint8"
    limits: Limits = field(default_factory=Limits)
    opset: int = inference.OPSET


@contextmanager
def _torch_threads(count: int | None) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def export(
    subject: ExportSource,
    out: Path,
    *,
    provider: str = "auto",
    threads: int | None = None,
    timed: bool = True,
    compiled: bool = False,
    wishes: ExportOptions | None = None,
) -> dict[str, Any]:
    """Exports a network, checks the graph and measures it.

    Args:
        subject: The network.
        out: The bundle's directory, which must not exist.
        provider: `auto`, `cpu`, `cuda` or `tensorrt`.
        threads: Threads of torch and of ONNX Runtime alike; None for torch's own choice.
        timed: Whether to measure speed.
        compiled: Whether to measure the network under torch.compile too.
        wishes: What the graph shall be like; None for fp32 and uint8.

    Returns:
        The report that `export --json` prints. Where parity failed, its `bundle` is None and nothing was left at `out`.
    """
    wishes = wishes or ExportOptions()
    files.require_free(out)
    ort_session.choose_provider(provider)  # a provider without a device fails before the work, not after it
    with _torch_threads(threads) as count, files.appearing(out) as place:
        report: dict[str, Any] = {"bundle": str(out), "parity": {}, "speed": {}, "input": wishes.kind}
        with tempfile.TemporaryDirectory(dir=place) as work:
            best = _best(subject, Path(work) / "fp32.onnx", provider, count, wishes, report)
            os.replace(best.file, place / "model.onnx")
        measured: dict[str, Any] = {"environment": speed.environment(count)}
        if timed:
            output.say("measuring speed")
            measured = speed.against_torch(
                subject.model,
                place / "model.onnx",
                subject.images,
                provider=provider,
                threads=threads,
                compiled=compiled,
            )
            report["speed"] = measured["speed"]
        _write(place, subject, report, best, {"speed": {}, "provider": report["provider"], **measured})
        manifest.seal(place, "bundle")
        report["files"] = _sizes(place)
    loader.catalog().emit("poolzoo_exported", bundle=str(out), report=report)
    return report


def _best(
    subject: ExportSource, file: Path, provider: str, threads: int, wishes: ExportOptions, report: dict[str, Any]
) -> Candidate:
    """Makes the graph in every precision that is wished for, checks them, and fills in the report.

    Raises:
        ParityFailed: The graph is not the network's, or no lower precision is within the limits.
    """
    output.say("exporting")
    written = graph.export_graph(subject, file, kind=wishes.kind, opset=wishes.opset)
    allocator.release()
    fp32 = ort_session.open_model(file, provider, threads)
    report |= {"provider": fp32.provider, "opset": graph.opset_of(onnx.load(file)), "precision": "fp32"}
    output.say("checking parity")
    reference = Reference.of(subject.model, subject.images, subject.image_labels)
    verdict = judge(subject, reference, file, written, fp32, threads)
    found = [Candidate("fp32", file, fp32, verdict)]
    allocator.release()
    if not verdict.passed:
        raise ParityFailed({**report, "parity": verdict.report, "candidates": [], "bundle": None}, subject.remedy)

    def open_(path: Path) -> ort_session.Model:
        return ort_session.open_model(path, provider, threads)

    found += candidates.lowered(
        wishes.precision, found[0], written.layers, subject, wishes.kind, reference, wishes.limits, open_
    )
    batch = min(candidates.TIMED, batch_of(subject.model, subject.size))
    best, rows = candidates.choose(wishes.precision, found, subject.images, batch)
    candidates.say_what_ships(wishes.precision, rows)
    report["onnxruntime"] = json.loads(best.opened.metadata["onnxruntime"])
    report |= {"candidates": rows, "parity": best.parity.report, "precision": best.precision.partition("-")[0]}
    if best is not found[0]:
        report["parity"] = {**best.parity.report, "fp32": verdict.report}
    if not best.parity.passed:
        hint = "allow more with --min-agreement and --max-accuracy-drop, or take --precision auto"
        raise ParityFailed({**report, "bundle": None}, hint)
    return best


def judge(
    subject: ExportSource,
    reference: Reference,
    file: Path,
    written: graph.Graph,
    opened: ort_session.Model,
    threads: int,
) -> parity.Parity:
    """The verdict on a graph in fp32: on images, on parts of it, and where it fails, which layer is the first to.

    Args:
        subject: The network.
        reference: What it answers.
        file: The graph.
        written: What was written there.
        opened: The same, opened.
        threads: To open parts of it with.
    """
    verdict, proto = parity.by_noise(reference, opened), onnx.load(file)
    report = verdict.report

    def open_(part: bytes) -> onnxruntime.InferenceSession:
        return ort_session.open_session(part, opened.provider, threads)

    report["probes"] = probes.run(subject.model, proto, written.layers, subject.size, open_)
    report["passed"] = report["passed"] and all(probe["passed"] for probe in report["probes"])
    if not report["passed"]:
        image = reference.images[reference.names.index(report["worst"]["input"])]
        names, feed = written.layers.within(proto), opened.feed(image[None])
        report["diverges"] = bisect.first_difference(subject.model, proto, names, open_, image, feed)
    return verdict


def _write(
    place: Path, subject: ExportSource, report: dict[str, Any], best: Candidate, measured: dict[str, Any]
) -> None:
    """Writes all files but the graph and the manifest."""
    written = onnx_file.read(place / "model.onnx")
    facts = {
        "opset": report["opset"],
        "onnxruntime": report["onnxruntime"],
        "input": report["input"],
        "precision": best.precision,
        **subject.origin,
        "compared_on": {key: report["parity"][key] for key in ("images", "n")},
        "map": head.locate(written, subject.model, best.opened, subject.images),
    }
    files.write_json(place / "config.json", {**subject.config, "export": facts})
    files.write_json(place / "parity.json", {**report["parity"], "candidates": report["candidates"]})
    files.write_json(place / "speed.json", measured)
    with (place / "golden.npz").open("wb") as golden:
        np.savez_compressed(golden, **best.parity.golden, **head.folded(subject.model.network, written))
    files.write_atomically(place / "predict.py", script.source())
    card.write(place, subject, {**report, "files": _sizes(place)}, measured, best.parity.logits)


def _sizes(place: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in sorted(place.iterdir()) if path.is_file()}


class ParityFailed(CheckFailed):
    """The graph does not compute what the network computes; `report` says where."""

    def __init__(self, report: dict[str, Any], remedy: str) -> None:
        super().__init__(parity.explain(report["parity"]), f"nothing was written; {remedy}, or report it as a bug")
        self.report = report
