"""`poolzoo export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from poolzoo.cli.options import json_option, provider_option, threads_option
from poolzoo.common import output

if TYPE_CHECKING:
    from poolzoo.export.candidates import CandidateResult
    from poolzoo.export.export import ExportReport
    from poolzoo.export.source import ExportSource


@click.command()
@click.argument("what", metavar="RUN|BACKBONE")
@click.option(
    "--pretrained",
    is_flag=True,
    help="Export a backbone, by its name, as it was published: its weights, its own pooling and classifier.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The bundle; must not exist. [default: exports/ and the run's or backbone's name]",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "int8", "auto"]),
    default="fp32",
    show_default=True,
    help="auto measures all on this host and keeps the fastest one within the limits below.",
)
@click.option(
    "--min-agreement",
    type=click.FloatRange(0, 1),
    default=0.99,
    show_default=True,
    help="Of the images, the part on which fp16 or int8 must choose the network's own class.",
)
@click.option(
    "--max-accuracy-drop",
    type=click.FloatRange(0, 1),
    default=0.005,
    show_default=True,
    help="How much accuracy fp16 or int8 may cost.",
)
@click.option(
    "--input",
    "input_kind",
    type=click.Choice(["uint8", "float"]),
    default="uint8",
    show_default=True,
    help="Images as they are stored, [N, H, W, 3], or float32 [N, 3, H, W] in 0-1; normalization is inside anyway.",
)
@click.option("--opset", type=click.IntRange(18, 26), default=18, show_default=True, help="ONNX opset to ask for.")
@click.option("--no-bench", is_flag=True, help="Do not measure speed.")
@click.option(
    "--torch-compile", is_flag=True, help="Measure the network under torch.compile too (takes a minute or more)."
)
@provider_option
@threads_option
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
    no_bench: bool,
    torch_compile: bool,
    provider: str,
    threads: int | None,
    as_json: bool,
) -> int:
    """Turn a trained network into an ONNX bundle, check that it computes the same, and measure its speed.

    The network is that of a run, or with --pretrained that of a backbone such as timm/resnet18.

    Exit code 1 where the graph does not agree with the network; then nothing is written.
    """
    from poolzoo.common import files
    from poolzoo.common.errors import CHECK_FAILED, OK

    _check(what, pretrained)
    place = out or Path("exports") / (files.slug(what) if pretrained else Path(what).resolve().name)
    files.require_free(place)
    output.detail("loading torch")
    from poolzoo.export.export import ExportOptions, ParityFailed, export
    from poolzoo.parity.report import Limits

    options = ExportOptions(
        precision=precision,
        input_kind=input_kind,
        limits=Limits(agreement=min_agreement, accuracy_drop=max_accuracy_drop),
        opset=opset,
    )
    try:
        report = export(
            _source(what, pretrained),
            place,
            options=options,
            provider=provider,
            threads=threads,
            measure_speed=not no_bench,
            torch_compile=torch_compile,
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


def _show(report: ExportReport) -> None:
    parity = report.parity
    outputs = parity.outputs
    found = f"largest difference {outputs.max_abs:.2e}" if outputs.max_abs is not None else "not finite"
    if parity.noise is not None:  # another image may have a larger difference and a larger tolerance
        worst = parity.noise.worst
        found = f"difference {worst.max_abs:.2e} of {worst.allowed:.2e} allowed on {worst.input}, closest to its limit"
    output.data(f"parity      passed: {found}, batches {', '.join(map(str, outputs.batches))}")
    accuracy = f"accuracy {outputs.accuracy.onnxruntime:.4f}" if outputs.accuracy else "accuracy not measured"
    output.data(f"agreement   {outputs.top1_agreement:.4f} on {outputs.n} {outputs.images} images, {accuracy}")
    if (half := parity.half) is not None:
        float32 = len(parity.value_range.get("float32", ())) if parity.value_range else 0
        output.data(
            f"half        checked in half arithmetic on {half.images} images, since a CPU computes fp16 in float32: "
            f"difference {half.max_abs:.2e} of {half.allowed:.2e} allowed; {float32} nodes stay in float32"
        )
    if len(report.candidates) > 1:
        rows = [_candidate(one) for one in report.candidates]
        batches = [f"batch {size}, ms" for size in report.candidates[0].ort_ms]
        headers = ("precision", *batches, "agreement", "accuracy", "MB", "")
        output.table(headers, rows, right=range(1, len(headers) - 1))
    if report.speed:
        speeds = [
            (str(size), f"{one.torch_ms:.2f}", f"{one.ort_ms:.2f}", f"{one.speedup:.2f}×")
            for size, one in report.speed.items()
        ]
        output.table(("batch", "torch eager, ms", "ONNX Runtime, ms", "speed-up"), speeds, right=(0, 1, 2, 3))
    output.data(str(report.bundle))


def _candidate(one: CandidateResult) -> tuple[str, ...]:
    accuracy = "–" if one.accuracy is None else f"{one.accuracy.onnxruntime:.4f}"
    times = (f"{value:.2f}" for value in one.ort_ms.values())
    result = one.reason or "selected"
    return one.precision, *times, f"{one.agreement:.4f}", accuracy, f"{one.bytes / 1e6:.2f}", result


def _check(what: str, pretrained: bool) -> None:
    """Requires a finished run, or with --pretrained a name that is not the directory of a run or bundle."""
    from poolzoo.artifacts import manifest
    from poolzoo.common.errors import UsageError

    run = Path(what)
    if not pretrained and run.is_dir():
        manifest.check(run, "run")
    elif not pretrained:
        hint = "give the directory of a run, or a backbone's name with --pretrained"
        raise UsageError(f"run {what!r} does not exist", hint)
    elif any((run / name).is_file() for name in ("run.toml", manifest.MANIFEST)):
        text = f"{what} is a directory with a network, and --pretrained exports a backbone by its name"
        raise UsageError(text, "leave --pretrained out to export a run")


def _source(what: str, pretrained: bool) -> ExportSource:
    if pretrained:
        from poolzoo.export.published_network import from_backbone

        return from_backbone(what)
    from poolzoo.artifacts.run import load_run
    from poolzoo.export.source import from_run

    return from_run(load_run(Path(what)))
