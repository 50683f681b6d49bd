"""`poolzoo evaluate`."""

from __future__ import annotations

from typing import Final

import click

from poolzoo.cli import numbers, values
from poolzoo.cli.groups import DATA, HARDWARE, GroupedCommand, option
from poolzoo.cli.options import json_option, provider_option, skip_broken_option, threads_option
from poolzoo.common import output

EXAMPLES: Final = (
    ("Evaluate a run on the test images of its data set", "poolzoo evaluate run"),
    ("Evaluate it on other images with the same classes", "poolzoo evaluate run --data folder:photos"),
    ("Evaluate an exported graph under ONNX Runtime", "poolzoo evaluate bundle --onnx"),
    ("Add a calibration to a run of an earlier version", "poolzoo evaluate run --calibrate"),
)


@click.command(cls=GroupedCommand, examples=EXAMPLES)
@click.argument("run", shell_complete=values.directory(values.RUN, values.BUNDLE), metavar="RUN")
@option(
    "--data",
    group=DATA,
    shell_complete=values.data,
    metavar="NAME",
    show_default="the data set of the run",
    help="Data set: a name from `poolzoo list datasets`, or one of its sources such as folder:PATH.",
)
@option(
    "--test-fraction",
    group=DATA,
    type=numbers.Float(),
    metavar="F",
    help="Test on a share of the images of --data, chosen by class, where it has no test part.",
)
@click.option("--onnx", is_flag=True, help="Evaluate the exported graph under ONNX Runtime. RUN may be a bundle then.")
@click.option(
    "--calibrate",
    is_flag=True,
    help="First fit a temperature on the validation images and keep it in RUN, which then exports with it. For runs of "
    "earlier versions, and those trained with --no-calibration.",
)
@option(
    "--device",
    group=HARDWARE,
    shell_complete=values.fixed("auto", "cpu", "cuda"),
    default="auto",
    show_default=True,
    metavar="NAME",
    help="Device: auto, cpu, cuda or cuda:N.",
)
@threads_option
@skip_broken_option
@provider_option
@json_option
def command(
    run: str,
    data: str | None,
    test_fraction: float | None,
    onnx: bool,
    calibrate: bool,
    device: str,
    threads: int | None,
    skip: str | None,
    provider: str,
    as_json: bool,
) -> None:
    """Evaluate a trained network on the test images of its own data set, or of another one with the same classes."""
    from poolzoo.export.evaluate import evaluate_graph
    from poolzoo.train.evaluate import evaluate_run

    if calibrate:
        from poolzoo.train.calibrate import calibrate_run

        output.say(calibrate_run(run, device=device, threads=threads).describe())
    if onnx:
        evaluation = evaluate_graph(
            run, data=data, provider=provider, threads=threads, skip=skip, test_fraction=test_fraction
        )
    else:
        evaluation = evaluate_run(
            run, data=data, device=device, threads=threads, skip=skip, test_fraction=test_fraction
        )
    if as_json:
        output.emit_json(evaluation.to_json())
        return
    from poolzoo.metrics import evaluation as scores
    from poolzoo.metrics import reliability

    scores.show(evaluation.metrics)
    if evaluation.reliability is not None:
        reliability.show(evaluation.reliability)
