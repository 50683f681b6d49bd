"""`poolzoo bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from poolzoo.cli.options import json_option, provider_option
from poolzoo.common import output


@click.command()
@click.argument("bundle", metavar="BUNDLE", type=click.Path(path_type=Path))
@click.option(
    "--runtime",
    "runtimes",
    default="onnxruntime",
    show_default=True,
    metavar="NAME,…",
    help="Runtimes to measure, separated by commas: onnxruntime, openvino.",
)
@click.option(
    "--batch",
    "batches",
    default="1,32",
    show_default=True,
    metavar="N,…",
    help="Batch sizes to measure, separated by commas.",
)
@click.option(
    "--threads",
    metavar="N,…",
    show_default="1 and the number of cores",
    help="Numbers of CPU threads to measure, separated by commas.",
)
@provider_option
@json_option
def command(bundle: Path, runtimes: str, batches: str, threads: str | None, provider: str, as_json: bool) -> int:
    """Measure the speed of a bundle in one or more runtimes, without torch.

    A runtime that does not reproduce the outputs stored in the bundle is not measured. The exit code is 1 then.
    """
    from poolzoo.common.errors import CHECK_FAILED, OK
    from poolzoo.runtime.bench import bench

    result = bench(
        bundle,
        runtimes=list(dict.fromkeys(runtimes.split(","))),
        batches=_numbers("--batch", batches),
        threads=_numbers("--threads", threads) if threads is not None else None,
        provider=provider,
    )
    if as_json:
        output.emit_json(result)
    else:
        _show(result)
    wrong = [one for one in result["agreement"] if not one["passed"]]
    for one in wrong[:1]:
        output.error(
            f"{one['runtime']} is not measured: {one['error']}", "poolzoo verify tells whether the bundle is wrong"
        )
    return CHECK_FAILED if wrong else OK


def _numbers(option: str, text: str) -> list[int]:
    """`1,32` as numbers above zero, each once.

    Raises:
        UsageError: They are something else.
    """
    from poolzoo.common.errors import UsageError

    parts = dict.fromkeys(part.strip() for part in text.split(","))
    if not all(part.isdecimal() and int(part) for part in parts):
        raise UsageError(f"{option} {text!r} is not a list of numbers above zero", f"write it as {option} 1,32")
    return [int(part) for part in parts]


def _show(result: dict[str, Any]) -> None:
    titles = ("runtime", "batch", "threads", "median, ms", "p90", "p99", "speed-up (p10–p90)", "images/s")
    rows = [
        (
            *(row["runtime"], row["batch"], row["threads"]),
            *(f"{row[key]:.3f}" for key in ("median_ms", "p90_ms", "p99_ms")),
            "{median:.2f}× ({p10:.2f}–{p90:.2f})".format(**row["speedup"]) if "speedup" in row else "",
            f"{row['images_per_s']:.0f}",
        )
        for row in result["results"]
    ]
    output.table(titles, rows, right=range(1, len(titles)))
    before, machine = result["preprocessing"], result["environment"]
    output.data(
        f"preprocessing of one image, not in the above: {before['median_ms']:.3f} ms "
        f"(p90 {before['p90_ms']:.3f}, p99 {before['p99_ms']:.3f}), {before['what']}"
    )
    versions = ", ".join(f"{name} {machine[name]}" for name in ("onnxruntime", "openvino", "numpy") if name in machine)
    output.data(
        f"on {machine['processor'] or machine['machine']} ({' '.join(machine['cpu_flags'])}), "
        f"{machine['provider']}, {versions}, load {machine['load']}"
    )
