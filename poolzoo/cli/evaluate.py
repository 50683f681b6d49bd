"""`poolzoo evaluate`."""

from __future__ import annotations

import click

from poolzoo.cli.options import json_option, provider_option, skip_broken_option
from poolzoo.common import output


@click.command()
@click.argument("run", metavar="RUN")
@click.option("--data", help="A data set's name or folder:PATH (test/ or val/ is enough); by default the run's own.")
@click.option("--onnx", is_flag=True, help="Measure its graph under ONNX Runtime; RUN may be a bundle then.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--threads", type=click.IntRange(1), help="Of the CPU.")
@skip_broken_option
@provider_option
@json_option
def command(
    run: str,
    data: str | None,
    onnx: bool,
    device: str,
    threads: int | None,
    skip: str | None,
    provider: str,
    as_json: bool,
) -> None:
    """Measure a trained network on the test images of its own data set or of another with the same classes."""
    from poolzoo.export.evaluate import evaluate_graph
    from poolzoo.train.evaluate import evaluate_run

    if onnx:
        evaluation = evaluate_graph(run, data=data, provider=provider, threads=threads, skip=skip)
    else:
        evaluation = evaluate_run(run, data=data, device=device, threads=threads, skip=skip)
    if as_json:
        output.emit_json(evaluation.to_json())
        return
    from poolzoo.metrics import classification

    classification.show(evaluation.metrics)
