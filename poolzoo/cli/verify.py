"""`poolzoo verify`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from poolzoo.cli import values
from poolzoo.cli.foreign import (
    image_size_option,
    is_file,
    output_option,
    parse_scaling,
    parse_size,
    require_of_file,
    require_onnx,
)
from poolzoo.cli.groups import OUTPUT, GroupedCommand, ListOption, option
from poolzoo.cli.options import json_option, provider_option, runtime_timeout_option, split_names, threads_option
from poolzoo.common import output

if TYPE_CHECKING:
    from poolzoo.parity.foreign.report import AgainstReport
    from poolzoo.runtime.measurements import BenchRow
    from poolzoo.runtime.runtimes import RuntimesReport
    from poolzoo.runtime.verify import Check


EXAMPLES: Final = (
    ("Check that a bundle is as it was exported", "poolzoo verify bundle"),
    ("Check it in every runtime that is installed", "poolzoo verify bundle --runtime all"),
    (
        "Compare an ONNX file with its torch module",
        "poolzoo verify model.onnx --against model.py:build",
    ),
)


@click.command(cls=GroupedCommand, examples=EXAMPLES)
@click.argument(
    "bundle",
    shell_complete=values.files(".onnx", markers=(values.BUNDLE,)),
    metavar="BUNDLE|FILE.onnx",
    type=click.Path(path_type=Path),
)
@click.option(
    "--against",
    metavar="MODULE:FUNCTION",
    help="Compare FILE.onnx with the torch module that this function returns. MODULE is a module that Python finds, or "
    "the path of a Python file: model.py:build.",
)
@click.option(
    "--images",
    shell_complete=values.files(),
    type=click.Path(path_type=Path),
    metavar="DIR|FILE",
    show_default="photographs of scikit-learn",
    help="Natural images for --against: a folder of them, or one.",
)
@click.option(
    "--input-range",
    metavar="LOW,HIGH",
    show_default="0,1",
    help="What black and white become in the float input of FILE.onnx and its module.",
)
@click.option(
    "--mean",
    metavar="R,G,B",
    show_default="what the module states, else 0",
    help="Mean of each channel, subtracted from that input.",
)
@click.option(
    "--std",
    metavar="R,G,B",
    show_default="what the module states, else 1",
    help="Standard deviation of each channel, by which it is divided then.",
)
@option(
    "--debug",
    group=OUTPUT,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write the smallest graph and input that show a difference from --against, with a script that runs them.",
)
@output_option
@image_size_option("what FILE.onnx or the module states, else 224")
@option("--no-bench", group=OUTPUT, is_flag=True, help="Skip the measurement of speed.")
@click.option(
    "--runtime",
    "runtimes",
    cls=ListOption,
    shell_complete=values.several(values.runtime_or("all")),
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
@click.option(
    "--arithmetic",
    "arithmetics",
    type=click.Choice(["fp16", "bf16"]),
    multiple=True,
    help="Also compute with every value rounded to this type, as some devices do with a graph in float32. May be "
    "repeated.",
)
@provider_option
@threads_option
@runtime_timeout_option
@json_option
def command(
    bundle: Path,
    against: str | None,
    images: Path | None,
    input_range: str | None,
    mean: str | None,
    std: str | None,
    debug: Path | None,
    output_name: str | None,
    image_size: str | None,
    no_bench: bool,
    runtimes: str | None,
    precision: str,
    arithmetics: tuple[str, ...],
    provider: str,
    threads: int | None,
    runtime_timeout: float | None,
    as_json: bool,
) -> int:
    """Check a bundle on this machine, without torch.

    The files must match their checksums, the graph must load, and its outputs must match the stored ones.

    With --runtime, each runtime must give these outputs too, and those of ONNX Runtime for images that the bundle does
    not store. Each runs in a process of its own, with limits of time and memory. The bundle keeps the results, in
    runtimes.json and runtimes.html. The exit code is 1 if one of them is wrong, or if one that was named refuses the
    graph.

    With --against, FILE.onnx may be any image classifier. It must give what a torch module gives, for natural and
    synthetic images, in batches of several sizes, and for extreme inputs. This needs torch. The exit code is 1 if it
    does not; a known mistake in its input is named, such as channels in the order BGR.
    """
    from poolzoo.common import files
    from poolzoo.common.errors import CHECK_FAILED, OK, UsageError
    from poolzoo.runtime.verify import verify

    names = split_names("--runtime", runtimes) if runtimes is not None else []
    of_file = {"--input-range": input_range, "--mean": mean, "--std": std, "--images": images, "--debug": debug}
    if is_file(bundle):
        if against is None:
            if not bundle.is_file():
                raise UsageError(f"{bundle} {files.absence(bundle)}", "give an ONNX file, or the directory of a bundle")
            text = f"{bundle} is a file, and there is nothing to compare it with"
            raise UsageError(text, "--against model.py:build names its torch module; poolzoo bench measures it alone")
        if provider not in ("auto", "cpu"):
            raise UsageError(f"--provider {provider} is for bundles", "--against compares on the CPU")
        require_onnx()
        from poolzoo.parity.foreign.verify import AgainstOptions, verify_against

        options = AgainstOptions(
            output=output_name,
            size=parse_size(image_size),
            images=images,
            scaling=parse_scaling(input_range, mean, std),
            runtimes=names,
            precision=precision,
            threads=threads,
            timeout=runtime_timeout,
            measure_speed=not no_bench,
            arithmetics=tuple(dict.fromkeys(arithmetics)),
            debug=debug,
        )
        return _show_against(verify_against(bundle, against, options), as_json=as_json)
    require_of_file(bundle, {"--against": against, "--output": output_name, "--image-size": image_size, **of_file})
    if names:
        from poolzoo.runtime.runtimes import check_runtimes, select

        select(names)  # a name that does not exist fails before the work
    report = verify(
        bundle,
        provider=provider,
        threads=threads,
        measure_speed=not no_bench and not names,
        arithmetics=tuple(dict.fromkeys(arithmetics)),
    )
    compared: RuntimesReport | None = None
    if names and report.passed:
        from poolzoo.runtime import kept_results

        compared = check_runtimes(
            bundle,
            names,
            threads=threads,
            precision=precision,
            timeout=runtime_timeout,
            measure_speed=not no_bench,
        )
        kept_results.keep(bundle, compared, precision)
    if as_json:
        rows = {} if compared is None else {"runtimes": compared.to_json()}
        output.emit_json({**report.to_json(), **rows})
    else:
        _show_checks(report.checks)
        for size, one in report.speed.items():
            output.data(f"batch {size}: {one.ort_ms:.2f} ms")
        if compared is not None:
            output.data("")
            show_runtimes(compared)
    if (failure := report.first_failure) is not None:
        text, hint = f"bundle {bundle} is not as it was exported: {failure.detail}", "export the run again"
        if failure.id.startswith("arithmetic-"):
            text, hint = f"bundle {bundle} needs float32: {failure.detail}", "let no device compute it otherwise"
        output.error(text, hint)
    return OK if _report_failures(compared, "bundle") and report.passed else CHECK_FAILED


def _show_against(report: AgainstReport, *, as_json: bool) -> int:
    from poolzoo.common.errors import CHECK_FAILED, OK

    if as_json:
        output.emit_json(report.to_json())
    else:
        _show_checks(report.checks)
        for remark in report.remarks:
            output.say(remark)
        if report.runtimes is not None:
            output.data("")
            show_runtimes(report.runtimes)
    if not all(check.passed for check in report.checks):
        output.error(report.describe_failure(), report.hint)
    return OK if _report_failures(report.runtimes, "file") and report.passed else CHECK_FAILED


def _show_checks(checks: Sequence[Check]) -> None:
    rows = [(check.id, "ok" if check.passed else "FAILED", check.detail) for check in checks]
    output.table(("check", "", "detail"), rows)


def _report_failures(compared: RuntimesReport | None, what: str) -> bool:
    """Reports the runtimes that are wrong; returns whether there are none."""
    failures = compared.failures if compared is not None else []
    for result in failures:
        status, hint = (texts[result.status].format(what=what) for texts in (_STATUS, _HINTS))
        output.error(f"runtime {result.runtime} {status}: {result.detail}", hint)
    return not failures


_STATUS = {
    "wrong": "is WRONG",
    "refused": "refuses the {what}",
    "cannot run here": "cannot run here",
    "not installed": "is not installed",
}
_HINTS = {
    "wrong": "do not use it for this {what}; poolzoo verify --json shows every check",
    "refused": "poolzoo verify --runtime all shows which runtimes take the {what}",
    "cannot run here": "verify the {what} where it can",
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
