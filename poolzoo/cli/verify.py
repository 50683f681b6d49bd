"""`poolzoo verify`."""

from __future__ import annotations

from pathlib import Path

import click

from poolzoo.cli.options import json_option, provider_option, threads_option
from poolzoo.common import output


@click.command()
@click.argument("bundle", metavar="BUNDLE", type=click.Path(path_type=Path))
@click.option("--no-bench", is_flag=True, help="Skip the measurement of speed.")
@provider_option
@threads_option
@json_option
def command(bundle: Path, no_bench: bool, provider: str, threads: int | None, as_json: bool) -> int:
    """Check a bundle on this machine, without torch.

    The files must match their checksums, the graph must load, and its outputs must match the stored ones.
    """
    from poolzoo.common.errors import CHECK_FAILED, OK
    from poolzoo.runtime.verify import verify

    report = verify(bundle, provider=provider, threads=threads, measure_speed=not no_bench)
    if as_json:
        output.emit_json(report.to_json())
    else:
        output.table(
            ("check", "", "detail"),
            [(check.id, "ok" if check.passed else "FAILED", check.detail) for check in report.checks],
        )
        for size, one in report.speed.items():
            output.data(f"batch {size}: {one.ort_ms:.2f} ms")
    if (failure := report.first_failure) is not None:
        output.error(f"bundle {bundle} is not as it was exported: {failure.detail}", "export the run again")
    return OK if report.passed else CHECK_FAILED
