"""The published leaderboard, docs/results/leaderboard.{md,html,json}: every pooling, on frozen and trained backbones.

python -m benchmarks.compare.leaderboard --images PATH [--out comparisons/leaderboard] [--only NAME …]
python -m benchmarks.compare.leaderboard --write [--out comparisons/leaderboard]
python -m benchmarks.compare.leaderboard --across

PATH holds CIFAR-10 as image files, PATH/train/<class>/* and PATH/test/<class>/*. Each section is one `poolzoo compare`,
which goes on where it was interrupted. The first runs alone, as its time is one of the figures; the others run in two
processes of one thread each. `--write` makes the documents from what is finished; what stands above the mark in
docs/results/leaderboard.md, the findings, is written by hand and kept. `--across` renews what the comparisons say
together, from docs/results/leaderboard.json alone. The backbone lite0 is plugins/poolzoo-lite0, installed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from benchmarks.compare import over_all
from benchmarks.compare.over_all import DOCS, MARK, TITLE, findings, gain
from poolzoo.common import files, markdown
from poolzoo.common.errors import UsageError
from poolzoo.report import comparisons_page
from poolzoo.report.results import ComparisonResult, CorruptionAccuracy, Delta, MeanSd, VariantResult
from poolzoo.runtime.environment import current_environment

CIFAR: Final = "CIFAR-10 (JPEG copy)"
DROPPED: Final = ("curves", "per_class")  # of a row in leaderboard.json
HEADERS: Final = (
    *("pooling", "rank", "accuracy, %", "over the baseline, points", "F1, %", "crop consistency, %"),
    *("shift consistency, %", "mean corruption accuracy, %", "parameters", "training, s", "ONNX Runtime, ms", ""),
)
COSTLY: Final = ("attention", "cbp", "cov", "map", "simpool")  # whose heads cost more than a millisecond, or nearly
COSTLY_LOCAL: Final = ("lip", "lps", "s2d")  # whose runs would take more than a minute
CHEAP: Final = (
    "adaptive,avg,avgmax,bilinear,catavgmax,depth,gated,gem,lp,lse,max,median,min,mixed,netvlad,prr,quantile,rmac,soft,"
    "spp,std,stochastic,strip,topk"
)
CHEAP_LOCAL: Final = (
    "none,adaptive,aps,avg,avgmax,blur,conv,depth,fractional,gated,gem,lp,lse,max,maxblur,median,min,mixed,s3,soft,"
    "spectral,stochastic,strip,subsample,topk,variable,wavelet"
)
FROZEN: Final = ("--freeze", "backbone", "--pretrained", "--baseline", "avg")
LITE0, NANO = ("--backbone", "lite0", *FROZEN), ("--backbone", "nano/resnet", *FROZEN)
LOCAL: Final = ("--backbone", "nano/resnet", "--pool", "avg", "--baseline", "none")
MORE: Final = ("--seeds", "3", "--robustness-samples", "250", "--export-top", "6")
LESS: Final = ("--seeds", "3", "--robustness-samples", "100", "--export-top", "4")
ONE: Final = ("--threads", "1")


@dataclass(frozen=True)
class Section:
    """One comparison: its directory, its heading, whether its data are the photographs, and what else is typed."""

    name: str
    heading: str
    photographs: bool
    typed: tuple[str, ...]
    alone: bool = False


SECTIONS: Final = (
    Section(
        name="cifar10-lite0",
        heading="CIFAR-10, heads on frozen EfficientNet-Lite0",
        photographs=True,
        typed=(*LITE0, "--pool", CHEAP, "--epochs", "5", *MORE),
        alone=True,
    ),
    Section(
        name="cifar10-local",
        heading="CIFAR-10, local poolings in a network trained from scratch",
        photographs=True,
        typed=(*LOCAL, "--local-pool", CHEAP_LOCAL, "--limit", "10000", "--epochs", "4", *ONE, *LESS),
    ),
    Section(
        name="cifar10-lite0-costly",
        heading="CIFAR-10, costly heads on frozen EfficientNet-Lite0, 5,000 images",
        photographs=True,
        typed=(*LITE0, "--pool", ",".join(("avg", *COSTLY)), "--limit", "5000", "--epochs", "5", *ONE, *MORE),
    ),
    Section(
        name="cifar10-nano",
        heading="CIFAR-10, heads on the frozen backbone of nano/resnet",
        photographs=True,
        typed=(*NANO, "--pool", f"{CHEAP},attention,map,simpool", "--epochs", "3", *ONE, *LESS),
    ),
    Section(
        name="digits-lite0",
        heading="Digits, heads on frozen EfficientNet-Lite0",
        photographs=False,
        typed=(*LITE0, "--pool", "all", "--epochs", "5", *ONE, *LESS),
    ),
    Section(
        name="digits-nano",
        heading="Digits, heads on the frozen backbone of nano/resnet",
        photographs=False,
        typed=(*NANO, "--pool", "all", "--epochs", "5", *ONE, *LESS),
    ),
    Section(
        name="digits-local",
        heading="Digits, local poolings in a network trained from scratch",
        photographs=False,
        typed=(*LOCAL, "--local-pool", CHEAP_LOCAL, "--epochs", "2", *ONE, *LESS),
    ),
    Section(
        name="cifar10-local-costly",
        heading="CIFAR-10, costly local poolings in a network trained from scratch, 2,500 images",
        photographs=True,
        typed=(
            *LOCAL,
            "--local-pool",
            ",".join(("none", *COSTLY_LOCAL)),
            "--limit",
            "2500",
            "--epochs",
            "6",
            *ONE,
            *LESS,
        ),
    ),
)


def main() -> int:
    """Runs what is asked for, then writes the documents."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare.leaderboard", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--images", metavar="PATH", help="CIFAR-10 as image files")
    parser.add_argument("--out", type=Path, default=Path("comparisons/leaderboard"), metavar="DIR")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=[one.name for one in SECTIONS])
    parser.add_argument("--write", action="store_true", help="run nothing, write the documents")
    parser.add_argument("--across", action="store_true", help="run nothing, renew what all comparisons say together")
    given = parser.parse_args()
    if given.across:
        over_all.write()
        return 0
    wanted = [one for one in SECTIONS if not given.only or one.name in given.only]
    failed: list[str] = []
    if not given.write:
        if given.images is None and any(one.photographs for one in wanted):
            parser.error("--images PATH is missing: CIFAR-10 as PATH/train/<class>/* and PATH/test/<class>/*")
        failed = [one.name for one in wanted if one.alone and not _run(one, given.images, given.out)]
        with ThreadPoolExecutor(2) as pool:
            rest = [one for one in wanted if not one.alone]
            ended = pool.map(lambda one: _run(one, given.images, given.out), rest)
            failed += [one.name for one, well in zip(rest, ended, strict=True) if not well]
    write(given.out)
    if failed:
        print(f"not finished: {', '.join(failed)}; the same command goes on", file=sys.stderr)
    return 1 if failed else 0


def _run(section: Section, images: str | None, out: Path) -> bool:
    """Runs a comparison, or what is left of it; what it says goes to a file beside it."""
    place = out / section.name
    if (place / "compare.json").is_file():
        return True
    data = f"folder:{images}" if section.photographs else "digits"
    new = ("--data", data, *section.typed, "--out", str(place))
    typed = ("--resume", str(place)) if (place / "plan.json").is_file() else new
    out.mkdir(parents=True, exist_ok=True)
    threads = {"OMP_NUM_THREADS": "1"} if "--threads" in section.typed else {}
    print(f"poolzoo compare {' '.join(typed)}", file=sys.stderr, flush=True)
    with open(out / f"{section.name}.log", "a") as log:
        command = [sys.executable, "-m", "poolzoo", "compare", *typed]
        return subprocess.run(command, stdout=log, stderr=log, env={**os.environ, **threads}).returncode == 0


def write(out: Path) -> None:
    """Writes docs/results/leaderboard.md, .html and .json from the comparisons that are finished."""
    found = [(section, _read(section, out)) for section in SECTIONS if _finished(out / section.name)]
    if not found:
        sys.exit(f"{out} has no finished comparison; the documents stay as they are")
    text = (DOCS / "leaderboard.md").read_text(encoding="utf-8") if (DOCS / "leaderboard.md").is_file() else ""
    above = text.partition(MARK)[0] if MARK in text else f"# {TITLE}\n\n"
    parts = [above.rstrip(), "", MARK, "", *_provenance([result for _, result in found])]
    for section, result in found:
        parts += _section(section, result)
    files.write_atomically(DOCS / "leaderboard.md", "\n".join(parts).rstrip() + "\n")
    files.write_json(DOCS / "leaderboard.json", {section.name: _digest(result) for section, result in found})
    page = comparisons_page.html(TITLE, findings(above), [(section.heading, result) for section, result in found])
    files.write_atomically(DOCS / "leaderboard.html", page)
    with suppress(UsageError):  # too few have finished
        over_all.write()


def _read(section: Section, out: Path) -> ComparisonResult:
    """A finished comparison; its data by name, where its path is this machine's own."""
    result = ComparisonResult.from_json(files.read_json(out / section.name / "compare.json"))
    return replace(result, data=replace(result.data, name=CIFAR)) if section.photographs else result


def _finished(place: Path) -> bool:
    return (place / "compare.json").is_file()


def _digest(result: ComparisonResult) -> dict[str, Any]:
    """A comparison without learning curves and figures of single classes, which only the page holds."""
    content = result.to_json()
    rows = [{key: value for key, value in row.items() if key not in DROPPED} for row in content["results"]]
    for row in rows:
        (row["corruption_accuracy"] or {}).pop("by_kind", None)
        row["per_seed"] = [{"seed": run["seed"], "accuracy": run["accuracy"]} for run in row["per_seed"]]
    kept = ("command", "started", "hours", "baseline", "seeds", "alpha", "data", "conclusions")
    return {**{key: content.get(key) for key in kept}, "results": rows}


def _provenance(results: Sequence[ComparisonResult]) -> list[str]:
    if not results:
        return []
    seen = results[0].environment
    versions = ", ".join(f"{name} {seen[name]}" for name in ("poolzoo", "torch", "timm", "numpy") if name in seen)
    dates = sorted((result.started or "")[:10] for result in results)
    hours = sum(result.hours or 0 for result in results)
    return [
        "## How it was made",
        "",
        f"{' to '.join(dict.fromkeys((dates[0], dates[-1])))}, {hours:.1f} hours of computing; {versions};",
        f"{current_environment(None).processor}, {seen['cpus']} cores.",
        "The same tables, sortable and with charts, are in [leaderboard.html](leaderboard.html); the figures in",
        "[leaderboard.json](leaderboard.json). To run everything again:",
        "`python -m benchmarks.compare.leaderboard --images PATH`.",
        "",
    ]


def _section(section: Section, result: ComparisonResult) -> list[str]:
    lines = [f"## {section.heading}", "", "```console", f"$ {result.command}", "```", ""]
    lines += [f"{result.hours:.2f} hours, {result.data.n_test:,} test images. {' '.join(result.conclusions)}", ""]
    lines += ["| " + " | ".join(HEADERS) + " |", "|---|" + "---:|" * (len(HEADERS) - 2) + "---|"]
    lines += [f"| {' | '.join(_cells(row, '--local-pool' in section.typed))} |" for row in result.results]
    return [*lines, ""]


def _cells(row: VariantResult, local: bool) -> list[str]:
    name = row.local_pool or "its own" if local else str(row.pool)
    if not row.done:
        return [name, *[""] * (len(HEADERS) - 2), f"failed: {markdown.text(str(row.error))}"]
    return [
        name,
        _number(row.rank, 0),
        _mean_sd(row.accuracy),
        gain(row.delta),
        _mean_sd(row.f1),
        _percent(row.crop_consistency),
        _percent(row.shift_consistency),
        _percent(row.corruption_accuracy),
        f"{row.params:,}",
        _number(row.train_seconds.mean if row.train_seconds else None, 0),
        _number(row.latency_ms, 2),
        _significance(row.delta),
    ]


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _percent(figures: MeanSd | CorruptionAccuracy | None) -> str:
    return "" if figures is None or figures.mean is None else f"{100 * figures.mean:.1f}"


def _mean_sd(figures: MeanSd | None) -> str:
    if figures is None or figures.mean is None:
        return ""
    return f"{100 * figures.mean:.2f}" + ("" if figures.sd is None else f" ± {100 * figures.sd:.2f}")


def _significance(delta: Delta | None) -> str:
    if delta is None:
        return "baseline"
    return "better" if delta.better else "worse" if delta.worse else "≈"


if __name__ == "__main__":
    sys.exit(main())
