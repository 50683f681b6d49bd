"""`poolzoo export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from poolzoo.cli.groups import GRAPH, MODEL, OUTPUT, GroupedCommand, option
from poolzoo.cli.options import json_option, provider_option, threads_option
from poolzoo.common import output

if TYPE_CHECKING:
    from poolzoo.export.source import ExportSource


EXAMPLES: Final = (
    ("Export a run to ONNX and check it", "poolzoo export run --out bundle"),
    ("Export the fastest precision that keeps the accuracy", "poolzoo export run --precision auto"),
    ("Export a published network with its own classifier", "poolzoo export timm/resnet18 --pretrained"),
)


@click.command(cls=GroupedCommand, examples=EXAMPLES)
@click.argument("what", metavar="RUN|BACKBONE")
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
    type=click.FloatRange(0, 1),
    default=0.99,
    show_default=True,
    help="Limit for fp16 and int8: minimum fraction of images with the same top-1 class as the network.",
)
@option(
    "--max-accuracy-drop",
    group=GRAPH,
    type=click.FloatRange(0, 1),
    default=0.005,
    show_default=True,
    help="Limit for fp16 and int8: maximum loss of accuracy, as a fraction.",
)
@option(
    "--input",
    "kind",
    group=GRAPH,
    type=click.Choice(["uint8", "float"]),
    default="uint8",
    show_default=True,
    help="Input of the graph: uint8[N, H, W, 3], or float32[N, 3, H, W] in 0-1. The graph normalizes either.",
)
@option(
    "--opset", group=GRAPH, type=click.IntRange(18, 26), default=18, show_default=True, help="ONNX opset of the graph."
)
@provider_option
@threads_option
@option("--no-bench", group=OUTPUT, is_flag=True, help="Skip the measurement of speed.")
@option(
    "--torch-compile",
    group=OUTPUT,
    is_flag=True,
    help="Measure the network under torch.compile too. This takes a minute or more.",
)
@option(
    "--out",
    group=OUTPUT,
    type=click.Path(path_type=Path),
    metavar="DIR",
    show_default="exports/ and the name of the run or backbone",
    help="Directory of the bundle; it must not exist.",
)
@json_option
def command(
    what: str,
    pretrained: bool,
    out: Path | None,
    precision: str,
    min_agreement: float,
    max_accuracy_drop: float,
    kind: str,
    opset: int,
    no_bench: bool,
    torch_compile: bool,
    provider: str,
    threads: int | None,
    as_json: bool,
) -> int:
    """Export a trained network to an ONNX bundle, check its parity with the network, and measure its speed.

    The network is that of a run, or with --pretrained that of a backbone such as timm/resnet18.

    The exit code is 1 if the graph does not agree with the network. Nothing is written then.
    """
    from poolzoo.common import files
    from poolzoo.common.errors import CHECK_FAILED, OK

    _check(what, pretrained)
    place = out or Path("exports") / (files.slug(what) if pretrained else Path(what).resolve().name)
    files.require_free(place)
    output.detail("loading torch")
    from poolzoo.export.export import ExportOptions, ParityFailed, export
    from poolzoo.parity.parity import Limits

    wishes = ExportOptions(precision, kind, Limits(min_agreement, max_accuracy_drop), opset)
    try:
        report = export(
            _subject(what, pretrained),
            place,
            provider=provider,
            threads=threads,
            timed=not no_bench,
            compiled=torch_compile,
            wishes=wishes,
        )
    except ParityFailed as failed:
        if as_json:
            output.emit_json(failed.report)
        output.error(failed.message, failed.hint)
        return CHECK_FAILED
    if as_json:
        output.emit_json(report)
        return OK
    _show(report)
    return OK


def _show(report: dict[str, Any]) -> None:
    parity = report["parity"]
    found = f"largest difference {parity['max_abs']:.2e}"
    if parity["gate"] == "noise":  # the largest difference of all may be allowed more than this one
        worst = parity["worst"]
        found = f"difference {worst['max_abs']:.2e} of {worst['allowed']:.2e} allowed on {worst['input']}, the nearest"
    output.data(f"parity      passed: {found}, batches {', '.join(map(str, parity['batches']))}")
    accuracy = f"accuracy {parity['accuracy']['onnxruntime']:.4f}" if "accuracy" in parity else "accuracy not measured"
    output.data(f"agreement   {parity['top1_agreement']:.4f} on {parity['n']} {parity['images']} images, {accuracy}")
    if half := parity.get("half"):
        kept = len(parity.get("inside", {}).get("float32", ()))
        output.data(
            f"half        judged in half arithmetic on {half['images']} images, since a CPU computes fp16 in float32: "
            f"difference {half['max_abs']:.2e} of {half['allowed']:.2e} allowed; {kept} nodes stay in float32"
        )
    if len(report["candidates"]) > 1:
        rows = [_candidate(one) for one in report["candidates"]]
        batches = [f"batch {size}, ms" for size in report["candidates"][0]["ort_ms"]]
        headers = ("precision", *batches, "agreement", "accuracy", "MB", "")
        output.table(headers, rows, right=range(1, len(headers) - 1))
    if report["speed"]:
        rows = [
            (size, f"{r['torch_ms']:.2f}", f"{r['ort_ms']:.2f}", f"{r['speedup']:.2f}×")
            for size, r in report["speed"].items()
        ]
        output.table(("batch", "torch eager, ms", "ONNX Runtime, ms", "speed-up"), rows, right=(0, 1, 2, 3))
    output.data(report["bundle"])


def _candidate(one: dict[str, Any]) -> tuple[str, ...]:
    accuracy = "–" if one["accuracy"] is None else f"{one['accuracy']:.4f}"
    times = (f"{taken:.2f}" for taken in one["ort_ms"].values())
    verdict = "kept" if one["chosen"] else one["lost"]
    return one["precision"], *times, f"{one['agreement']:.4f}", accuracy, f"{one['bytes'] / 1e6:.2f}", verdict


def _check(what: str, pretrained: bool) -> None:
    """Makes sure that there is such a run, or that a backbone's name does not mean one."""
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


def _subject(what: str, pretrained: bool) -> ExportSource:
    if pretrained:
        from poolzoo.export.published_network import of_backbone

        return of_backbone(what)
    from poolzoo.artifacts.run import load_run
    from poolzoo.export.source import of_run

    return of_run(load_run(Path(what)))
