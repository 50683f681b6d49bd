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

    result = verify(bundle, provider=provider, threads=threads, timed=not no_bench)
    if as_json:
        output.emit_json(result)
    else:
        output.table(
            ("check", "", "detail"),
            [(c["id"], "ok" if c["passed"] else "FAILED", c["detail"]) for c in result["checks"]],
        )
        for size, row in result["speed"].items():
            output.data(f"batch {size}: {row['ort_ms']:.2f} ms")
    if not result["passed"]:
        first = next(check for check in result["checks"] if not check["passed"])
        output.error(f"bundle {bundle} is not as it was exported: {first['detail']}", "export the run again")
    return OK if result["passed"] else CHECK_FAILED
