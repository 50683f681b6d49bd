"""`poolzoo bench`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from poolzoo.cli import numbers, values
from poolzoo.cli.foreign import image_size_option, is_file, output_option, parse_size, require_of_file, require_onnx
from poolzoo.cli.groups import HARDWARE, GroupedCommand, ListOption, option
from poolzoo.cli.options import json_option, provider_option, runtime_timeout_option, split_names
from poolzoo.common import output

if TYPE_CHECKING:
    from poolzoo.runtime.bench import BenchReport
    from poolzoo.runtime.measurements import Measurement

MAX_BATCH: Final = 65_536
EXAMPLES: Final = (
    ("Measure a bundle under ONNX Runtime", "poolzoo bench bundle"),
    (
        "Measure it in all installed runtimes, at two batch sizes",
        "poolzoo bench bundle --runtime all --batch 1,32",
    ),
    ("Measure an ONNX file from elsewhere on one thread", "poolzoo bench model.onnx --threads 1"),
)


@click.command(cls=GroupedCommand, examples=EXAMPLES)
@click.argument(
    "bundle",
    shell_complete=values.files(".onnx", markers=(values.BUNDLE,)),
    metavar="BUNDLE|FILE.onnx",
    type=click.Path(path_type=Path),
)
@click.option(
    "--runtime",
    "runtimes",
    cls=ListOption,
    shell_complete=values.several(values.runtime_or("all")),
    default="onnxruntime",
    show_default=True,
    metavar="NAME,…",
    help="Runtimes to measure, separated by commas; all for every one that is installed.",
)
@click.option(
    "--batch",
    "batches",
    cls=ListOption,
    show_default="1,32, or the only size that a file takes",
    metavar="N,…",
    help="Batch sizes to measure, separated by commas.",
)
@option(
    "--threads",
    group=HARDWARE,
    metavar="N,…",
    show_default="1 and the number of cores",
    help="Numbers of CPU threads to measure, separated by commas.",
)
@output_option
@image_size_option("what FILE.onnx states, else 224")
@provider_option
@runtime_timeout_option
@json_option
def command(
    bundle: Path,
    runtimes: str,
    batches: str | None,
    threads: str | None,
    output_name: str | None,
    image_size: str | None,
    provider: str,
    runtime_timeout: float | None,
    as_json: bool,
) -> int:
    """Measure the speed of a bundle in one or more runtimes, without torch.

    A runtime that does not reproduce the outputs stored in the bundle is not measured. The exit code is 1 then.

    FILE.onnx may be any image classifier. A runtime must then give what ONNX Runtime gives for synthetic images.
    """
    from poolzoo.common.errors import CHECK_FAILED, OK

    names = split_names("--runtime", runtimes)
    sizes = _numbers("--batch", batches, MAX_BATCH) if batches is not None else None
    counts = _numbers("--threads", threads, numbers.MAX_THREADS) if threads is not None else None
    if is_file(bundle):
        require_onnx()
        from poolzoo.runtime.foreign.bench import bench_file

        report = bench_file(
            bundle,
            output=output_name,
            size=parse_size(image_size),
            runtimes=names,
            batches=sizes,
            threads=counts,
            provider=provider,
            timeout=runtime_timeout,
        )
    else:
        from poolzoo.runtime import speed
        from poolzoo.runtime.bench import bench

        require_of_file(bundle, {"--output": output_name, "--image-size": image_size})
        report = bench(
            bundle,
            runtimes=names,
            timeout=runtime_timeout,
            batches=sizes or speed.BATCHES,
            threads=counts,
            provider=provider,
        )
    if as_json:
        output.emit_json(report.to_json())
    else:
        _show(report)
    failed = [one for one in report.agreement if not one.passed and (one.wrong or "all" not in names)]
    for one in failed[:1]:
        output.error(f"{one.runtime} is not measured: {one.error}", "poolzoo verify checks the graph itself")
    return CHECK_FAILED if failed else OK


def _numbers(option: str, text: str, most: int) -> list[int]:
    """`1,32` as numbers from 1 to the most that is sensible, each once.

    Raises:
        UsageError: They are something else.
    """
    from poolzoo.common.errors import UsageError

    parts = dict.fromkeys(part.strip() for part in text.split(","))
    if not all(part.isdecimal() and len(part) <= len(str(most)) and 0 < int(part) <= most for part in parts):
        text = f"{option} {text!r:.100} is not a list of numbers from 1 to {most:,}"
        raise UsageError(text, f"write it as {option} 1,32")
    return [int(part) for part in parts]


def _show(report: BenchReport) -> None:
    titles = ("runtime", "batch", "threads", "median, ms", "p90", "p99", "speed-up (p10–p90)", "images/s")
    rows = [
        (
            row.measurement.runtime,
            row.batch,
            row.measurement.threads,
            f"{row.measurement.median_ms:.3f}",
            f"{row.measurement.p90_ms:.3f}",
            f"{row.measurement.p99_ms:.3f}",
            _speedup(row.measurement),
            f"{row.images_per_s:.0f}",
        )
        for row in report.results
    ]
    output.table(titles, rows, right=range(1, len(titles)))
    before, environment = report.preprocessing, report.environment
    if before is not None:
        output.data(
            f"preprocessing of one image, not included above: {before.median_ms:.3f} ms "
            f"(p90 {before.p90_ms:.3f}, p99 {before.p99_ms:.3f}), {before.what}"
        )
    versions = {"onnxruntime": environment.onnxruntime, "openvino": environment.openvino, "numpy": environment.numpy}
    output.data(
        f"on {environment.processor or environment.machine} ({' '.join(environment.cpu_flags)}), "
        f"{environment.provider}, {', '.join(f'{name} {of}' for name, of in versions.items() if of)}, "
        f"load {environment.load}"
    )


def _speedup(measurement: Measurement) -> str:
    """The speed-up with its spread, such as `2.51× (2.43–2.60)`; empty for the reference."""
    from poolzoo.report.bundle_words import Speedup

    return "" if measurement.speedup is None else str(Speedup(**measurement.speedup))
