"""`poolzoo export`."""

from __future__ import annotations

from pathlib import Path

import click

from poolzoo import output
from poolzoo.cli.options import json_option, provider_option, threads_option


@click.command()
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The bundle; must not exist. [default: exports/ and the run's name]",
)
@click.option("--no-speed", is_flag=True, help="Do not measure speed.")
@provider_option
@threads_option
@json_option
def command(run: Path, out: Path | None, no_speed: bool, provider: str, threads: int | None, as_json: bool) -> int:
    """Turn a trained network into an ONNX bundle, check that it computes the same, and measure its speed.

    Exit code 1 where the graph does not agree with the network; then nothing is written.
    """
    from poolzoo import bundle
    from poolzoo.errors import CHECK_FAILED, OK

    place = out or Path("exports") / run.resolve().name
    bundle.check(run, "run")
    bundle.require_free(place)
    output.detail("loading torch")
    from poolzoo.deploy.export import ParityFailed, export
    from poolzoo.runs import load_run

    try:
        report = export(load_run(run), place, provider=provider, threads=threads, timed=not no_speed)
    except ParityFailed as failed:
        if as_json:
            output.emit_json(failed.report)
        output.error(failed.message, failed.hint)
        return CHECK_FAILED
    if as_json:
        output.emit_json(report)
        return OK
    parity = report["parity"]
    output.data(
        f"parity      passed: largest difference {parity['max_abs']:.2e} of {parity['tolerance']:.2e} allowed, "
        f"batches {', '.join(map(str, parity['batches']))}"
    )
    output.data(
        f"agreement   {parity['top1_agreement']:.4f} on {parity['n']} test images, "
        f"accuracy {parity['accuracy']['onnxruntime']:.4f}"
    )
    if report["speed"]:
        rows = [
            (size, f"{r['torch_ms']:.2f}", f"{r['ort_ms']:.2f}", f"{r['speedup']:.2f}×")
            for size, r in report["speed"].items()
        ]
        output.table(("batch", "torch eager, ms", "ONNX Runtime, ms", "speed-up"), rows, right=(0, 1, 2, 3))
    output.data(report["bundle"])
    return OK
