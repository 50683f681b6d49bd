"""`poolzoo export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from poolzoo.cli.options import json_option, provider_option, threads_option
from poolzoo.common import output

if TYPE_CHECKING:
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
    "kind",
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
    kind: str,
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
    from poolzoo.parity.parity import Limits

    options = ExportOptions(precision, kind, Limits(min_agreement, max_accuracy_drop), opset)
    try:
        report = export(
            _subject(what, pretrained),
            place,
            provider=provider,
            threads=threads,
            timed=not no_bench,
            compiled=torch_compile,
            options=options,
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
        from poolzoo.export.published_network import from_backbone

        return from_backbone(what)
    from poolzoo.artifacts.run import load_run
    from poolzoo.export.source import from_run

    return from_run(load_run(Path(what)))
