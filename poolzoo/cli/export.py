"""`poolzoo export`. It is long because it has many options, and prints what was measured."""

from __future__ import annotations

import gc
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from poolzoo.cli import numbers, values
from poolzoo.cli.groups import GRAPH, MODEL, OUTPUT, GroupedCommand, option
from poolzoo.cli.options import (
    json_option,
    out_option,
    provider_option,
    runtime_timeout_option,
    split_names,
    threads_option,
)
from poolzoo.common import output

if TYPE_CHECKING:
    from poolzoo.export.export import ExportReport
    from poolzoo.export.precision.candidate import CandidateResult
    from poolzoo.export.source import ExportSource
    from poolzoo.metrics.rules_report import RuleOptions


EXAMPLES: Final = (
    ("Export a run to ONNX and check it", "poolzoo export run --out bundle"),
    ("Export the fastest precision that keeps the accuracy", "poolzoo export run --precision auto"),
    ("Export a graph that resizes photographs of any size itself", "poolzoo export run --input photo"),
    ("Add a form for OpenVINO, and record the fastest runtime", "poolzoo export run --target openvino --runtime auto"),
    ("Export a graph that says which images it accepts", "poolzoo export run --abstain-at accuracy=0.99"),
    ("Export a published network with its own classifier", "poolzoo export timm/resnet18 --pretrained"),
)


@click.command(cls=GroupedCommand, examples=EXAMPLES)
@click.argument("what", shell_complete=values.run_or_backbone, metavar="RUN|BACKBONE")
@option(
    "--pretrained",
    group=MODEL,
    is_flag=True,
    help="Export a published backbone by its name, with its own weights, pooling and classifier.",
)
@option(
    "--precision",
    group=GRAPH,
    type=click.Choice(["fp32", "fp16", "int8", "auto"]),
    default="fp32",
    show_default=True,
    help="Precision of the graph. auto measures all of them on this machine and keeps the fastest within the limits.",
)
@option(
    "--min-agreement",
    group=GRAPH,
    type=numbers.FloatRange(0, 1),
    default=0.99,
    show_default=True,
    help="Limit for fp16 and int8: minimum fraction of images with the same top-1 class as the network.",
)
@option(
    "--max-accuracy-drop",
    group=GRAPH,
    type=numbers.FloatRange(0, 1),
    default=0.005,
    show_default=True,
    help="Limit for fp16 and int8: maximum loss of accuracy, as a fraction.",
)
@option(
    "--input",
    "input_kind",
    group=GRAPH,
    type=click.Choice(["uint8", "float", "photo"]),
    default="uint8",
    show_default=True,
    help="Input of the graph: uint8[N, H, W, 3], float32[N, 3, H, W] in 0-1, or with photo one photograph of any size, "
    "uint8[1, height, width, 3], which the graph resizes and crops as in training. The graph normalizes all of them.",
)
@option(
    "--opset",
    group=GRAPH,
    type=numbers.IntRange(18, 26),
    default=18,
    show_default=True,
    help="ONNX opset of the graph.",
)
@option(
    "--calibration/--no-calibration",
    group=GRAPH,
    default=True,
    show_default=True,
    help="Give probabilities of the calibrated logits of the run, or of its plain logits.",
)
@option(
    "--abstain-at",
    shell_complete=values.fixed("accuracy=", "coverage="),
    group=GRAPH,
    metavar="accuracy=VALUE|coverage=VALUE",
    help="Add the output accepted, bool[N]: whether the largest probability reaches a threshold. It is chosen on the "
    "run's validation images, so that accepted images have this accuracy, or are this fraction of all.",
)
@option(
    "--confidence",
    group=GRAPH,
    type=numbers.FloatRange(0, 1, min_open=True, max_open=True),
    show_default="0.95",
    help="Confidence that the accepted images reach the accuracy of --abstain-at.",
)
@option(
    "--prediction-sets",
    group=GRAPH,
    metavar="COVERAGE",
    type=numbers.FloatRange(0, 1, min_open=True, max_open=True),
    help="Add the output prediction_set, bool[N, C]: a set of classes that holds the true one with this probability.",
)
@option(
    "--target",
    "targets",
    shell_complete=values.several(values.runtime_or("all")),
    group=GRAPH,
    metavar="NAME,…",
    help="Runtimes to make a form of the graph for, in targets/NAME of the bundle. Each must agree with the graph. "
    "all means those that do, and says why others are skipped.",
)
@option(
    "--runtime",
    shell_complete=values.runtime_or("auto"),
    group=GRAPH,
    metavar="auto|NAME",
    show_default="onnxruntime",
    help="Runtime that predict uses for the bundle. auto measures all that are installed, and records the fastest "
    "that agrees.",
)
@provider_option
@threads_option
@runtime_timeout_option
@option("--no-bench", group=OUTPUT, is_flag=True, help="Skip the measurement of speed.")
@option(
    "--torch-compile",
    group=OUTPUT,
    is_flag=True,
    help="Measure the network under torch.compile too. This takes a minute or more.",
)
@option(
    "--debug",
    group=OUTPUT,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="If parity fails, or lower precision exceeds its limits, write a directory with the smallest graph and input "
    "that still show it, a script, and a report that names the node. This takes up to two minutes.",
)
@out_option("Directory of the bundle", "exports/ and the name of the run or backbone")
@json_option
def command(
    what: str,
    pretrained: bool,
    out: Path | None,
    precision: str,
    min_agreement: float,
    max_accuracy_drop: float,
    input_kind: str,
    opset: int,
    calibration: bool,
    abstain_at: str | None,
    confidence: float | None,
    prediction_sets: float | None,
    targets: str | None,
    runtime: str | None,
    runtime_timeout: float | None,
    no_bench: bool,
    torch_compile: bool,
    debug: Path | None,
    provider: str,
    threads: int | None,
    as_json: bool,
) -> int:
    """Export a trained network to an ONNX bundle, check its parity with the network, and measure its speed.

    The network is that of a run, or with --pretrained that of a backbone such as timm/resnet18.

    The exit code is 1 if the graph does not agree with the network. Nothing is written then.
    """
    from poolzoo.common import allocator, files
    from poolzoo.common.errors import CHECK_FAILED, OK

    click.get_current_context().with_resource(allocator.rare_collections())
    rules = _rules(abstain_at, confidence, prediction_sets, pretrained)
    _check(what, pretrained)
    if debug is not None:
        files.require_free(debug)
    place = out or Path("exports") / (files.slug(what) if pretrained else Path(what).resolve().name)
    files.require_free(place)
    output.detail("loading torch")
    from poolzoo.export.export import ExportOptions, ParityFailed, export
    from poolzoo.export.targets import TargetOptions
    from poolzoo.parity.report import Limits

    gc.freeze()  # the modules of torch: collections after the exporter need not look at them
    options = ExportOptions(
        precision=precision,
        input_kind=input_kind,
        limits=Limits(agreement=min_agreement, accuracy_drop=max_accuracy_drop),
        opset=opset,
        rules=rules,
    )
    try:
        report = export(
            _source(what, pretrained, calibrated=calibration),
            place,
            options=options,
            provider=provider,
            threads=threads,
            measure_speed=not no_bench,
            torch_compile=torch_compile,
            debug=debug,
            targets=TargetOptions(
                targets=tuple(split_names("--target", targets)) if targets is not None else (),
                runtime=runtime,
                timeout=runtime_timeout,
            ),
        )
    except ParityFailed as failed:
        if as_json:
            output.emit_json(failed.report.to_json())
        output.error(failed.message, failed.hint)
        return CHECK_FAILED
    if as_json:
        output.emit_json(report.to_json())
    else:
        _show(report)
    return OK


def _rules(abstain_at: str | None, confidence: float | None, coverage: float | None, pretrained: bool) -> RuleOptions:
    from poolzoo.common.errors import UsageError
    from poolzoo.metrics.abstention import ACCURACY, Target
    from poolzoo.metrics.rules_report import RuleOptions

    target = None if abstain_at is None else Target.parse(abstain_at)
    if confidence is not None and (target is None or target.kind != ACCURACY):
        hint = "--abstain-at accuracy=0.99" if target is None else "a coverage holds on average: leave it out"
        raise UsageError("--confidence is for --abstain-at accuracy=VALUE", hint)
    rules = RuleOptions(abstain_at=target, confidence=confidence, set_coverage=coverage)
    if pretrained and rules.flag is not None:
        text = f"{rules.flag} needs validation images, and a published network comes without"
        raise UsageError(text, "fine-tune it, and export the run")
    return rules


def _show(report: ExportReport) -> None:
    from poolzoo.report import bundle_words

    parity = report.parity
    outputs = parity.outputs
    found = f"largest difference {outputs.max_abs:.2e}" if outputs.max_abs is not None else "not finite"
    if parity.noise is not None:  # another image may have a larger difference and a larger tolerance
        worst = parity.noise.worst
        found = f"difference {worst.max_abs:.2e} of {worst.allowed:.2e} allowed on {worst.input}, closest to its limit"
    output.data(f"parity      passed: {found}, batches {', '.join(map(str, outputs.batches))}")
    score = outputs.accuracy
    accuracy = f"{score.task.val_score} {score.onnxruntime:.4f}" if score else "accuracy not measured"
    output.data(f"agreement   {outputs.top1_agreement:.4f} on {outputs.n} {outputs.images} images, {accuracy}")
    if (half := parity.half) is not None:
        float32 = len(parity.value_range.get("float32", ())) if parity.value_range else 0
        output.data(
            f"half        checked in half arithmetic on {half.images} images, since a CPU computes fp16 in float32: "
            f"difference {half.max_abs:.2e} of {half.allowed:.2e} allowed; {float32} nodes stay in float32"
        )
    if parity.photographs is not None:
        output.data(f"photographs {parity.photographs.describe()}")
    if len(report.candidates) > 1:
        rows = [_candidate(one) for one in report.candidates]
        batches = [f"batch {size}, ms" for size in report.candidates[0].ort_ms]
        headers = ("precision", *batches, "agreement", score.task.val_score if score else "accuracy", "MB", "")
        output.table(headers, rows, right=range(1, len(headers) - 1))
        for one in report.candidates:
            if one.search is not None:
                output.data(f"limits kept {_search(one)}")
    for name, sentences in bundle_words.rules(report.rules).items():
        for title, sentence in zip_longest([name.removeprefix("prediction_")], sentences, fillvalue=""):
            output.data(f"{title:11} {sentence}")
    if report.speed:
        speeds = [
            (str(size), f"{one.torch_ms:.2f}", f"{one.ort_ms:.2f}", bundle_words.times(one.speedup))
            for size, one in report.speed.items()
        ]
        output.table(("batch", "torch eager, ms", "ONNX Runtime, ms", "speed-up"), speeds, right=(0, 1, 2, 3))
    for name, target in report.targets.items():
        changes = ", ".join(target["changes"]) or "the graph as it is"
        result = "agrees" if target["checked"] else "not checked here"
        output.data(f"target      {name}: {result}, {target['bytes'] / 1e6:.2f} MB, {changes}")
    for name, why in report.skipped.items():
        output.data(f"target      {name}: skipped, {why}")
    if report.runtimes is not None:
        from poolzoo.cli.verify import show_runtimes

        show_runtimes(report.runtimes)
        output.data(f"runtime     {report.runtime}, which predict uses")
    output.data(str(report.bundle))


def _candidate(one: CandidateResult) -> tuple[str, ...]:
    accuracy = "–" if one.accuracy is None else f"{one.accuracy.onnxruntime:.4f}"
    times = (f"{value:.2f}" for value in one.ort_ms.values())
    result = one.reason or "selected"
    return one.precision, *times, f"{one.agreement:.4f}", accuracy, f"{one.bytes / 1e6:.2f}", result


def _search(one: CandidateResult) -> str:
    """What lets a candidate keep the limits, and what that costs, in one line."""
    from poolzoo.export.precision.layer_search import describe

    assert one.search is not None
    size, after = list(one.ort_ms.items())[-1]
    before = one.search.before.parity.outputs.top1_agreement
    means = ["corrected biases"] if one.search.corrected else []
    if layers := one.search.layers:
        named = describe(layers, times=one.search.times)
        means.append(f"{len(layers)} of {one.search.total} layers in float32: {named}")
    return (
        f"{one.precision} with {' and '.join(means)}; agreement {one.agreement:.4f} instead of {before:.4f}, "
        f"{after:.2f} ms instead of {one.search_ms[size]:.2f} ms at batch {size}"
    )


def _check(what: str, pretrained: bool) -> None:
    """Requires a finished run, or with --pretrained a name that is not the directory of a run or bundle."""
    from poolzoo.artifacts import manifest
    from poolzoo.common import files
    from poolzoo.common.errors import UsageError

    run = Path(what)
    if not pretrained and run.is_dir():
        manifest.check(run, "run")
    elif not pretrained:
        hint = "give the directory of a run, or a backbone's name with --pretrained"
        raise UsageError(f"run {what!r} {files.absence(run, 'directory')}", hint)
    elif any((run / name).is_file() for name in ("run.toml", manifest.MANIFEST)):
        text = f"{what} is a directory with a network, and --pretrained exports a backbone by its name"
        raise UsageError(text, "leave --pretrained out to export a run")


def _source(what: str, pretrained: bool, *, calibrated: bool) -> ExportSource:
    if pretrained:
        from poolzoo.export.published_network import from_backbone

        return from_backbone(what)
    from poolzoo.artifacts.run import load_run
    from poolzoo.artifacts.samples import VALIDATION
    from poolzoo.export.source import from_run

    run = load_run(Path(what))
    if calibrated and "calibration" not in run.config and not (run.path / VALIDATION).is_file():
        text = f"probabilities are not calibrated: {what} is a run of an earlier version"
        output.warn(text, f"poolzoo evaluate {what} --calibrate adds a calibration to it")
    return from_run(run, calibrated=calibrated)
