"""Exports a network to a bundle: graph, parity, precision, speed, card. The bundle appears only if parity passes."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import torch

from poolzoo.artifacts import manifest, schema
from poolzoo.common import allocator, files, output
from poolzoo.common.errors import CheckFailed
from poolzoo.explain import head
from poolzoo.export import card, graph, rule_outputs, script
from poolzoo.export.precision import candidates, layer_search
from poolzoo.export.precision.candidate import Candidate, CandidateResult
from poolzoo.export.source import ExportSource
from poolzoo.export.targets import TargetOptions, choose_runtime, write_targets
from poolzoo.metrics.output_rules import OutputRules
from poolzoo.metrics.rules_report import RuleOptions, RulesReport, measure_rules
from poolzoo.model import inference
from poolzoo.model.inference import batch_of
from poolzoo.parity import check, photographs
from poolzoo.parity.reference import Reference
from poolzoo.parity.report import Limits, ParityReport
from poolzoo.plugin import loader
from poolzoo.runtime import graph_input, onnx_file, ort_session, photo_graph, speed
from poolzoo.runtime.environment import current_environment
from poolzoo.runtime.measurements import BatchSpeed, SpeedReport, speeds_to_json
from poolzoo.runtime.runtimes import RuntimesReport


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """The form of the graph.

    Attributes:
        precision: A key of `candidates.PRECISIONS`.
        input_kind: "uint8" for stored images, "float" for images scaled to 0–1 (`graph.INPUTS`), "photo" for one
            photograph of any size, which the graph resizes.
        limits: What lower precision may cost.
        opset: The opset to ask the exporter for.
        rules: Outputs beside logits and probabilities.
    """

    precision: str = "fp32"
    input_kind: str = "uint8"
    limits: Limits = field(default_factory=Limits)
    opset: int = inference.OPSET
    rules: RuleOptions = field(default_factory=RuleOptions)


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What an export found.

    Attributes:
        bundle: The bundle's directory; None where parity failed and nothing was written.
        parity: The parity report of the selected graph.
        candidates: The results of all precisions that were tried; empty where fp32 failed parity.
        input_kind: "uint8", "float" or "photo".
        precision: "fp32", "fp16" or "int8".
        provider: ONNX Runtime's execution provider.
        opset: The opset of the file.
        onnxruntime: The oldest release of ONNX Runtime that reads the file; None where nothing was selected.
        speed: The speed by batch size; empty where it was not measured.
        files: The sizes of the bundle's files in bytes, by name.
        targets: What was made for other runtimes, by name.
        skipped: Why targets that "all" means were left out, by name.
        runtime: The runtime that `predict` uses; None where none was asked for.
        runtimes: What was found of the runtimes then; None likewise.
        rules: What makes outputs beside logits and probabilities, and what it does to test images.
    """

    bundle: str | None
    parity: ParityReport
    candidates: tuple[CandidateResult, ...] = ()
    input_kind: str
    precision: str
    provider: str
    opset: int
    onnxruntime: str | None = None
    speed: Mapping[int, BatchSpeed] = field(default_factory=dict)
    files: Mapping[str, int] = field(default_factory=dict)
    targets: Mapping[str, schema.TargetConfig] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    runtime: str | None = None
    runtimes: RuntimesReport | None = None
    rules: RulesReport = field(default_factory=RulesReport)

    def to_json(self) -> schema.Export:
        """What `export --json` prints."""
        report: dict[str, object] = {
            "bundle": self.bundle,
            "parity": self.parity.to_json(),
            "speed": speeds_to_json(self.speed),
            "input": self.input_kind,
            "provider": self.provider,
            "opset": self.opset,
            "precision": self.precision,
            "candidates": [one.to_json() for one in self.candidates],
            **self.rules.to_json(),
        }
        if self.onnxruntime is not None:
            report["onnxruntime"] = self.onnxruntime
        if self.files:
            report["files"] = dict(self.files)
        if self.targets:
            report["targets"] = dict(self.targets)
        if self.skipped:
            report["skipped_targets"] = dict(self.skipped)
        if self.runtime is not None and self.runtimes is not None:
            report |= {"runtime": self.runtime, "runtimes": self.runtimes.to_json()}
        return cast(schema.Export, report)


class ParityFailed(CheckFailed):
    """The graph does not compute what the network computes, or exceeds its limits; `report` says where."""

    def __init__(self, report: ExportReport, hint: str) -> None:
        text = f"no bundle was written; {hint}, or report it as a bug"
        super().__init__(report.parity.describe_failure(), text)
        self.report = report


def export(
    source: ExportSource,
    out: Path,
    *,
    options: ExportOptions | None = None,
    provider: str = "auto",
    threads: int | None = None,
    measure_speed: bool = True,
    torch_compile: bool = False,
    targets: TargetOptions | None = None,
    debug: Path | None = None,
) -> ExportReport:
    """Exports a network, checks the graph and measures it.

    Args:
        source: The network.
        out: The bundle's directory, which must not exist.
        options: The form of the graph; None for fp32 and uint8.
        provider: `auto`, `cpu`, `cuda` or `tensorrt`.
        threads: Threads of torch and of ONNX Runtime; None for torch's own choice.
        measure_speed: Whether to measure speed.
        torch_compile: Whether to measure the network under torch.compile too.
        targets: What to make for other runtimes; None for nothing.
        debug: A directory, which must not exist, for the smallest graph and input that show it where parity fails, or
            where lower precision exceeds the limits; None for none.

    Raises:
        ParityFailed: The graph is not the network's, or exceeds its limits; there is no bundle.
        CheckFailed: The network cannot be exported, or gives NaN or infinity; or validation images do not reach what
            the rules are to reach.
        UsageError: `out` exists, or the resize of training cannot be computed in a graph that takes photographs.
        EnvironmentProblem: There is no device for the provider.
    """
    options, targets = options or ExportOptions(), targets or TargetOptions()
    files.require_free(out)
    if debug is not None:
        files.require_free(debug)
    if options.input_kind == graph_input.PHOTO:
        photo_graph.require_filter(source.fit)
    targets.require(options.input_kind)
    ort_session.choose_provider(provider)  # a provider without a device fails before the work, not after it
    rules = rule_outputs.choose(source, options.rules)
    with _torch_threads(threads) as count, files.appearing(out) as directory:
        with tempfile.TemporaryDirectory(dir=directory) as work:
            best, report = _export_graphs(source, Path(work) / "fp32.onnx", provider, count, options, debug)
            if rules.names:
                best, found = _with_rules(best, rules, source, provider, count)
                report = replace(report, rules=found)
            os.replace(best.file, directory / "model.onnx")
        measured = SpeedReport(environment=current_environment(count), batches={})
        if measure_speed:
            output.say("measuring speed")
            measured = speed.compare_with_torch(
                source.model,
                directory / "model.onnx",
                source.images,
                provider=provider,
                threads=threads,
                torch_compile=torch_compile,
            )
        report = replace(report, bundle=str(out), speed=measured.batches)
        speeds: schema.Speed = {"provider": report.provider, **measured.to_json()}
        _write_files(directory, source, report, best, speeds)
        written = write_targets(directory, targets)
        chosen, compared = choose_runtime(directory, targets, count)
        report = replace(report, targets=written.made, skipped=written.skipped, runtime=chosen, runtimes=compared)
        shown = replace(report, files=_sizes(directory)).to_json()
        tested = rule_outputs.tested(source, best.parity, best.precision, rules)
        card.write(directory, source, shown, speeds, best.parity.logits, tested)
        manifest.write_manifest(directory, "bundle")
        report = replace(report, files=_sizes(directory))
    loader.catalog().emit("poolzoo_exported", bundle=str(out), report=report.to_json())
    return report


@contextmanager
def _torch_threads(count: int | None) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def _export_graphs(
    source: ExportSource,
    file: Path,
    provider: str,
    threads: int,
    options: ExportOptions,
    debug: Path | None,
) -> tuple[Candidate, ExportReport]:
    """Makes the graph in fp32 and in every requested precision beside `file`, checks them, and selects one.

    Raises:
        ParityFailed: The graph is not the network's, or no lower precision is within the limits.
    """
    output.say("exporting")
    of_one_size = "uint8" if options.input_kind == graph_input.PHOTO else options.input_kind
    written = graph.export_graph(source, file, input_kind=of_one_size, opset=options.opset)
    allocator.release()
    model = ort_session.open_model(file, provider, threads)
    output.say("checking parity")
    reference = Reference.compute(source.model, source.images, source.image_labels, source.decision)
    parity = check.check_parity(reference, file, written.layers, model, threads)
    fp32 = Candidate("fp32", file, model, parity)
    allocator.release(generation=1)
    report = ExportReport(
        bundle=None,
        parity=parity,
        input_kind=options.input_kind,
        precision="fp32",
        provider=model.provider,
        opset=graph.opset_of(onnx.load(file)),
    )
    if not parity.passed:
        hint = source.hint
        if debug is not None:
            from poolzoo.parity.reduction import from_parity

            if from_parity.debug(parity, reference, file, written.layers, model, debug) is not None:
                hint = f"{debug / 'report.md'} names the node: fix that"
        raise ParityFailed(report, hint)

    conversion = candidates.Conversion(
        fp32=fp32,
        layers=written.layers,
        source=source,
        input_kind=of_one_size,
        reference=reference,
        limits=options.limits,
        open_model=lambda path: ort_session.open_model(path, provider, threads),
    )
    batch = min(candidates.TIMED_BATCH, batch_of(source.model, source.size))
    converted = candidates.convert_candidates(options.precision, conversion)
    found = [fp32, *layer_search.return_layers(options.precision, conversion, converted, batch)]
    times = candidates.measure_candidates(found, source.images, batch)
    best, results = candidates.select(options.precision, found, times)
    candidates.report_selection(options.precision, results)
    if options.input_kind == graph_input.PHOTO:
        best = _with_photo_input(best, source, provider, threads)
    report = replace(
        report,
        parity=best.parity if best.precision == "fp32" else replace(best.parity, fp32=parity),
        candidates=tuple(results),
        precision=best.precision.partition("-")[0],
        onnxruntime=json.loads(best.model.metadata["onnxruntime"]),
    )
    if best.parity.photographs is not None and not best.parity.photographs.passed:
        raise ParityFailed(report, "export it with --input uint8")
    if not best.parity.passed:
        hint = "allow more with --min-agreement and --max-accuracy-drop, or take --precision auto"
        hint = f"{best.remark}; {hint}" if best.remark else hint
        if debug is not None:
            from poolzoo.parity.reduction import from_parity

            reduced = from_parity.debug_lowered(
                best.precision, fp32.file, best.file, reference, written.layers, best.model, debug
            )
            hint = f"{debug / 'report.md'} names the node; {hint}" if reduced is not None else hint
        raise ParityFailed(report, hint)
    return best, report


def _with_photo_input(best: Candidate, source: ExportSource, provider: str, threads: int) -> Candidate:
    """The selected graph as one that takes photographs, beside the other's file, with the check of its resize."""
    file = best.file.with_name("photo.onnx")
    onnx.save(photo_graph.with_photo_input(onnx.load(best.file)), file)
    model = ort_session.open_model(file, provider, threads)
    found, golden = photographs.check(model, file, best.model, source.images)
    return Candidate(best.precision, file, model, best.parity.with_photographs(found, golden))


def _with_rules(
    best: Candidate, rules: OutputRules, source: ExportSource, provider: str, threads: int
) -> tuple[Candidate, RulesReport]:
    """The selected graph with the outputs of rules, beside the other's file, and what they do to the test images."""
    tested = rule_outputs.tested(source, best.parity, best.precision, rules)
    assert tested is not None  # a run has test images
    found = measure_rules(rules, *tested)
    rule_outputs.warn(found)
    proto, file = onnx.load(best.file), best.file.with_name("rules.onnx")
    rule_outputs.add_outputs(proto, found)
    onnx.save(proto, file)
    model = ort_session.open_model(file, provider, threads)
    rule_outputs.require_right(file, model, best.parity.golden["images"])
    return replace(best, file=file, model=model), found


def _write_files(
    directory: Path, source: ExportSource, report: ExportReport, best: Candidate, speeds: schema.Speed
) -> None:
    """Writes all files but the graph, the card and the manifest."""
    written = onnx_file.read(directory / "model.onnx")
    facts: dict[str, object] = {
        "opset": report.opset,
        "onnxruntime": str(report.onnxruntime),
        "input": report.input_kind,
        "precision": best.precision,
        **source.origin,
        "compared_on": {"images": report.parity.outputs.images, "n": report.parity.outputs.n},
        "map": head.find_feature_map(written, source.model, best.model, source.images),
        **report.rules.to_json(),
    }
    results = [one.to_json() for one in report.candidates]
    files.write_json(directory / "config.json", {**source.config, "export": facts})
    files.write_json(directory / "parity.json", {**report.parity.to_json(), "candidates": results})
    files.write_json(directory / "speed.json", speeds)
    arrays: dict[str, Any] = {**best.parity.golden, **head.weights_not_in_graph(source.model.network, written)}
    with (directory / "golden.npz").open("wb") as golden:
        np.savez_compressed(golden, **arrays)
    files.write_atomically(directory / "predict.py", script.render())


def _sizes(directory: Path) -> dict[str, int]:
    found = sorted(path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.stat().st_size for path in found}
