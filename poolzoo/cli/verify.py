"""`poolzoo verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from poolzoo.cli.options import json_option, provider_option, runtime_timeout_option, split_names, threads_option
from poolzoo.common import output

if TYPE_CHECKING:
    from poolzoo.runtime.measurements import BenchRow
    from poolzoo.runtime.runtimes import RuntimesReport


@click.command()
@click.argument("bundle", metavar="BUNDLE", type=click.Path(path_type=Path))
@click.option("--no-bench", is_flag=True, help="Skip the measurement of speed.")
@click.option(
    "--runtime",
    "runtimes",
    metavar="NAME,…",
    help="Also check the bundle in these runtimes, separated by commas; all for every one that is installed.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "auto"]),
    default="fp32",
    show_default=True,
    help="Arithmetic of these runtimes: float32, or what each prefers, which has a wider tolerance.",
)
@provider_option
@threads_option
@runtime_timeout_option
@json_option
def command(
    bundle: Path,
    no_bench: bool,
    runtimes: str | None,
    precision: str,
    provider: str,
    threads: int | None,
    runtime_timeout: float | None,
    as_json: bool,
) -> int:
    """Check a bundle on this machine, without torch.

    The files must match their checksums, the graph must load, and its outputs must match the stored ones.

    With --runtime, each runtime must give these outputs too, and those of ONNX Runtime for images that the bundle does
    not store. Each runs in a process of its own, with limits of time and memory. The exit code is 1 if one of them is
    wrong, or if one that was named refuses the graph.
    """
    from poolzoo.common.errors import CHECK_FAILED, OK
    from poolzoo.runtime.verify import verify

    names = split_names("--runtime", runtimes) if runtimes is not None else []
    if names:
        from poolzoo.runtime.runtimes import check_runtimes, select

        select(names)  # a name that does not exist fails before the work
    report = verify(bundle, provider=provider, threads=threads, measure_speed=not no_bench and not names)
    compared: RuntimesReport | None = None
    if names and report.passed:
        compared = check_runtimes(
            bundle,
            names,
            threads=threads,
            precision=precision,
            timeout=runtime_timeout,
            measure_speed=not no_bench,
        )
    if as_json:
        rows = {} if compared is None else {"runtimes": compared.to_json()}
        output.emit_json({**report.to_json(), **rows})
    else:
        output.table(
            ("check", "", "detail"),
            [(check.id, "ok" if check.passed else "FAILED", check.detail) for check in report.checks],
        )
        for size, one in report.speed.items():
            output.data(f"batch {size}: {one.ort_ms:.2f} ms")
        if compared is not None:
            output.data("")
            show_runtimes(compared)
    if (failure := report.first_failure) is not None:
        output.error(f"bundle {bundle} is not as it was exported: {failure.detail}", "export the run again")
    failures = compared.failures if compared is not None else []
    for result in failures:
        output.error(f"runtime {result.runtime} {_STATUS[result.status]}: {result.detail}", _HINTS[result.status])
    return OK if report.passed and not failures else CHECK_FAILED


_STATUS = {
    "wrong": "is WRONG",
    "refused": "refuses the bundle",
    "cannot run here": "cannot run here",
    "not installed": "is not installed",
}
_HINTS = {
    "wrong": "do not use it for this bundle; poolzoo verify --json shows every check",
    "refused": "poolzoo verify --runtime all shows which runtimes take the bundle",
    "cannot run here": "verify the bundle where it can",
    "not installed": "poolzoo list runtimes shows how to get it",
}


def show_runtimes(report: RuntimesReport) -> None:
    """Prints the table of runtimes: what each gives, its speed against ONNX Runtime, start-up, size and changes."""
    sizes = sorted({row.batch for one in report.results for row in one.speed})
    titles = ("runtime", "version", "result", "off by", "allowed", *(f"batch {size}, ms" for size in sizes))
    rows = []
    for one in report.results:
        times = {row.batch: row for row in one.speed}
        judgment = one.judgment
        shown = one.status if one.status == "agrees" else f"{one.status.replace('wrong', 'WRONG')}: {one.detail}"
        rows.append(
            (
                one.runtime,
                one.version,
                shown,
                "" if judgment is None or judgment.max_abs is None else f"{judgment.max_abs:.1e}",
                "" if judgment is None or judgment.allowed is None else f"{judgment.allowed:.1e}",
                *(_time(times.get(size)) for size in sizes),
                "" if one.startup_ms is None else f"{one.startup_ms:.0f}",
                "" if one.bytes is None else f"{one.bytes / 1e6:.2f}",
                ", ".join(one.changes),
            )
        )
    titles = (*titles, "start-up, ms", "MB", "changed for it")
    output.table(titles, rows, right=range(3, len(titles) - 1))
    environment = report.environment
    output.data(
        f"on {environment.processor or environment.machine}, {environment.threads} threads; × is the speed of ONNX "
        f"Runtime = 1 in the same rounds"
    )


def _time(row: BenchRow | None) -> str:
    if row is None:
        return ""
    spread = row.measurement.speedup
    return f"{row.measurement.median_ms:.2f}" + (f" ({spread['median']:.2f}×)" if spread else "")
