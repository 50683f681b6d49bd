"""`poolzoo compare`. It is long because it has many options, and prints a preview and a table."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource

from poolzoo.cli import finetune, numbers, values
from poolzoo.cli.groups import COMPARISON, HARDWARE, MODEL, OUTPUT, GroupedCommand, option
from poolzoo.cli.options import budget_seconds, json_option, out_option, resume_option
from poolzoo.common import output
from poolzoo.common.errors import UsageError
from poolzoo.plugin import loader

if TYPE_CHECKING:
    from poolzoo.compare.board.protocol import Protocol
    from poolzoo.compare.config import ComparisonConfig
    from poolzoo.compare.training import Runner
    from poolzoo.compare.writing import Summary
    from poolzoo.report.results import Delta, MeanSd, VariantResult

# Those of `finetune` that mean one run alone, or that mean something else here.
OTHERS: Final = (
    "pool",
    "local_pool",
    "backbone",
    "seed",
    "split_seed",
    "time_budget",
    "out",
    "resumed",
    "check_export",
    "find_lr",
    "dry_run",
    "show_batch",
    "as_json",
)
NOT_OF_CONFIG: Final = ("pool", "local_pool", "backbone", "protocol")  # of a file of settings
OWN: Final = (
    "pools",
    "local_pools",
    "backbones",
    "seeds",
    "baseline",
    "robustness_samples",
    "export_top",
    "alpha",
    "race",
    "time_budget",
    "executor",
    "ray_address",
)


def _settings_of_finetune(command: click.Command) -> click.Command:
    """Adds what decides a run, as `finetune` has it."""
    known = {parameter.name for parameter in command.params}
    command.params += [one for one in finetune.command.params if one.name not in (*OTHERS, *known)]
    return command


EXAMPLES: Final = (
    (
        "Compare three poolings, one of them at three exponents",
        "poolzoo compare --data digits --pool 'avg,max,gem:p=2|3|4'",
    ),
    (
        "Compare every head on one frozen backbone",
        "poolzoo compare --data folder:photos --backbone timm/resnet18 --pretrained --freeze backbone --pool all",
    ),
    (
        "Compare poolings inside the backbone with its own pooling",
        "poolzoo compare --data digits --local-pool none,max,blur --baseline none",
    ),
    (
        "Stop poolings that are worse than the best beyond chance",
        "poolzoo compare --data digits --pool all --freeze backbone --pretrained --race",
    ),
    ("Give the best answer within ten minutes", "poolzoo compare --data digits --pool avg,max --time-budget 10m"),
    ("Show the trials and their cost, and train nothing", "poolzoo compare --data digits --pool avg,max --dry-run"),
    (
        "Measure a pooling of your own under a protocol, as others do",
        "poolzoo compare --protocol digits-heads --plugin mine.py --pool mine",
    ),
    (
        "Say how many seeds show a difference of half a point",
        "poolzoo compare --data digits --pool avg,max --resolution 0.5 --dry-run",
    ),
    ("Resume an interrupted comparison", "poolzoo compare --resume comparisons/NAME"),
)


@_settings_of_finetune
@click.command(cls=GroupedCommand, examples=EXAMPLES)
@option(
    "--backbone",
    "backbones",
    shell_complete=values.several(values.backbone),
    group=MODEL,
    default="nano/resnet",
    show_default=True,
    metavar="NAME,…",
    help="Backbones, such as nano/plain or timm/resnet18, separated by commas.",
)
@option(
    "--pool",
    "pools",
    shell_complete=values.poolings("global", "all"),
    group=MODEL,
    default="avg",
    show_default=True,
    metavar="NAME,…",
    help="Global poolings separated by commas, or all. gem:p=2|3|4 is a sweep over three values.",
)
@option(
    "--local-pool",
    "local_pools",
    shell_complete=values.poolings("local", "none", "all"),
    group=MODEL,
    metavar="NAME,…",
    help="Local poolings separated by commas. none is the backbone's own; subsample and conv are controls.",
)
@option(
    "--protocol",
    shell_complete=values.protocol,
    group=COMPARISON,
    metavar="NAME|FILE",
    help="Pin everything but one pooling, as `poolzoo show NAME` prints it, so that the row can go on a board.",
)
@option(
    "--protocol-versions",
    group=COMPARISON,
    type=click.Choice(["pinned", "any"]),
    default="pinned",
    show_default=True,
    help="With any, run under versions that the protocol does not allow. The result is marked as unofficial.",
)
@option(
    "--baseline",
    shell_complete=values.poolings("global"),
    group=COMPARISON,
    metavar="NAME",
    show_default="the first pooling",
    help="Pooling that all others are compared with.",
)
@option(
    "--seeds",
    group=COMPARISON,
    type=numbers.IntRange(1, 1000),
    default=3,
    show_default=True,
    help="Number of trials of each variant. Their seeds count up from --seed.",
)
@option(
    "--resolution",
    group=COMPARISON,
    type=numbers.FloatRange(0, 100, min_open=True),
    metavar="POINTS",
    help="Difference in accuracy, in points, that the comparison is to show. It decides the number of seeds; with "
    "--dry-run it says what that costs.",
)
@option(
    "--seeds-max",
    group=COMPARISON,
    type=numbers.IntRange(2, 1000),
    default=20,
    show_default=True,
    help="The largest number of seeds that --resolution may choose.",
)
@option(
    "--pilot",
    group=COMPARISON,
    is_flag=True,
    help="First train the baseline and up to two variants from two other seeds, to learn how much accuracies vary. "
    "--resolution and --dry-run then predict from them.",
)
@option(
    "--seed",
    group=COMPARISON,
    default=0,
    show_default=True,
    help="Seed of the first trial and of the validation split, which all trials share.",
)
@option(
    "--alpha",
    group=COMPARISON,
    type=numbers.FloatRange(0.0001, 0.5),
    default=0.05,
    show_default=True,
    help="Significance level of the tests.",
)
@option(
    "--race",
    group=COMPARISON,
    is_flag=True,
    help="Stop variants that are worse than the best beyond chance. Stops and tests together keep to --alpha. Stopped "
    "variants get no robustness and no export.",
)
@option(
    "--time-budget",
    group=COMPARISON,
    metavar="25m|1h30m|90s",
    show_default="no limit",
    help="Time of the whole comparison, measuring included. What has no room is left out, and is said.",
)
@option(
    "--robustness-samples",
    group=COMPARISON,
    type=numbers.IntRange(0),
    default=500,
    show_default=True,
    metavar="N",
    help="Number of test images on which robustness to corruptions and shifts is measured. 0 skips it.",
)
@option(
    "--export-top",
    group=COMPARISON,
    type=numbers.IntRange(0),
    default=10,
    show_default=True,
    metavar="N",
    help="Number of best variants that are exported and timed under ONNX Runtime. 0 skips it.",
)
@option(
    "--executor",
    group=HARDWARE,
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Where the trials run: in this process, or on a Ray cluster.",
)
@option("--ray-address", group=HARDWARE, metavar="ADDRESS", help="Address of an existing Ray cluster.")
@out_option("Directory of the comparison", "a new one in comparisons/")
@resume_option(
    values.COMPARISON, "Resume the interrupted comparison in DIR. Of other settings, only --time-budget may be given."
)
@option(
    "--dry-run",
    group=OUTPUT,
    is_flag=True,
    help="Show the trials, their size, an estimate of the time, and the smallest difference that they can show. "
    "Without --pilot, nothing is trained.",
)
@json_option
@click.pass_context
def command(
    context: click.Context,
    /,
    out: Path | None,
    resumed: Path | None,
    dry_run: bool,
    as_json: bool,
    resolution: float | None,
    seeds_max: int,
    pilot: bool,
    **given: Any,
) -> int:
    """Train poolings on the same data with several seeds, and test which differ significantly.

    Every trial is a run of its own. A trial that fails becomes a row with its error. The directory of the comparison
    holds compare.json, compare.csv and report.html.
    """
    from poolzoo.common.errors import CHECK_FAILED, OK
    from poolzoo.compare import comparison, writing

    typed = {name for name in context.params if context.get_parameter_source(name) is not ParameterSource.DEFAULT}
    executor, address = given.pop("executor"), given.pop("ray_address")
    given["time_budget"] = budget_seconds(given["time_budget"])
    if executor == "local" and address is not None:
        raise UsageError("--ray-address is for --executor ray", "add --executor ray")
    if resumed is not None:
        if typed - {"executor", "ray_address", "time_budget", "resumed", "as_json"}:
            raise UsageError("--resume takes no other settings", f"poolzoo compare --resume {resumed}")
        place = resumed
        result = comparison.resume(place, _runner(executor, address), given["time_budget"])
    else:
        pinned = _protocol(given.pop("protocol"), typed)
        allowed = given.pop("protocol_versions") == "pinned"
        if resolution is not None and ("seeds" in typed or pinned is not None) and not dry_run:
            other = "--protocol" if pinned is not None else "--seeds"
            raise UsageError("--resolution chooses the number of seeds", f"leave {other} out, or add --dry-run")
        if pilot and resolution is None and not dry_run:
            raise UsageError("--pilot is for --resolution or --dry-run", "add one of them")
        config = _config(given, typed, pinned, versions_pinned=allowed)
        wanted = None if resolution is None else resolution / 100
        if pilot:
            _pilot(config)
        if dry_run:
            show_preview(config, as_json, wanted, seeds_max)
            return OK
        if wanted is not None:
            from poolzoo.compare import pilot as pilots

            config = pilots.choose_seeds(config, wanted, seeds_max)
        place = out or writing.new_path()
        command_line = shlex.join(["poolzoo", *sys.argv[1:]])
        result = comparison.run(config, place, command_line, _runner(executor, address), pinned=pinned)
    show(writing.Summary(result, place), as_json)
    return OK if any(row.done for row in result.results) else CHECK_FAILED


def _protocol(text: str | None, typed: set[str]) -> Protocol | None:
    """The protocol that was typed; the names of its two options leave `typed`."""
    if text is None and "protocol_versions" in typed:
        raise UsageError("--protocol-versions is for --protocol NAME", "add --protocol NAME")
    typed -= {"protocol", "protocol_versions"}
    if text is None:
        return None
    from poolzoo.compare.board import protocol

    return protocol.find(text)


def _config(
    given: dict[str, Any], typed: set[str], pinned: Protocol | None, *, versions_pinned: bool
) -> ComparisonConfig:
    """The config of a comparison from what was typed, a recipe and a config file, in this order; or by a protocol."""
    from poolzoo.compare.config import ComparisonConfig
    from poolzoo.train.recipes import recipe_settings
    from poolzoo.train.settings import Settings, with_one_end
    from poolzoo.train.settings_file import read_toml, with_absolute_paths

    recipe, config = given.pop("recipe"), given.pop("config")
    unofficial = None
    if pinned is not None:
        from poolzoo.compare.board import pinning

        arguments = {**given, "recipe": recipe, "config": config}
        given = pinning.pin(pinned, arguments, typed & set(arguments))
        del given["recipe"], given["config"]
        unofficial = _versions(pinned, versions_pinned=versions_pinned)
    own = {name: given.pop(name) for name in OWN if name in given}
    for source in (recipe_settings(recipe) if recipe else {}, read_toml(config) if config else {}):
        given.update({key: value for key, value in source.items() if key not in (*typed, *NOT_OF_CONFIG)})
    if (budget := given.pop("time_budget", None)) is not None and own["time_budget"] is None:  # that of a config file
        own["time_budget"] = budget_seconds(budget)
    files = [str(path.resolve()) for path in loader.settings.files]
    settings = with_absolute_paths(
        Settings(**{**with_one_end(given, typed), "plugins": tuple(dict.fromkeys([*given.get("plugins", ()), *files]))})
    )
    loader.settings.files = [Path(file) for file in settings.plugins]
    return ComparisonConfig(**own, settings=settings, unofficial=unofficial)


def _versions(pinned: Protocol, *, versions_pinned: bool) -> str | None:
    """Why a result under the versions that are installed does not count; None where it does."""
    from poolzoo.compare.board import pinning

    if versions_pinned:
        pinning.require_versions(pinned)
    refused, noted = pinning.installed_problems(pinned)
    if noted and not refused:
        output.say(f"{'; '.join(noted)}: the result equals that of the protocol's versions within chance, not bitwise")
    if refused:
        output.warn(f"the result is unofficial: {'; '.join(refused)}")
    return "; ".join(refused) or None


def _runner(executor: str, address: str | None) -> Runner:
    if executor == "local":
        from poolzoo.compare.training import run_local

        return run_local
    from poolzoo.compare import cluster

    return cluster.runner(address)


def _pilot(config: ComparisonConfig) -> None:
    from poolzoo.compare.pilot import run_pilot

    run_pilot(config)


def show_preview(config: ComparisonConfig, as_json: bool, wanted: float | None, most_seeds: int) -> None:
    """Prints what a comparison would train, and what it can show.

    Args:
        config: The comparison.
        as_json: Whether to print JSON.
        wanted: The difference that it is to show, a fraction, 0–1.
        most_seeds: The largest number of seeds for that.
    """
    from poolzoo.compare.pilot import duration, sentences
    from poolzoo.compare.preview import preview
    from poolzoo.compare.schedule import fewest_trials

    found = preview(config, wanted, most_seeds)
    if as_json:
        output.emit_json(found.to_json())
        return
    rows = []
    for row in found.rows:
        cells = [row.backbone, row.pool, row.local_pool or "its own"]
        if row.error is None:
            cells += [f"{row.parameters:,}", f"{(row.macs or 0) / 1e6:.1f}", f"{row.seconds:.0f}"]
        else:
            cells += ["", "", row.error]
        rows.append(cells)
    headers = ("backbone", "pool", "local pool", "parameters", "million MACs", "s a trial")
    output.table(headers, rows, right=(3, 4, 5))
    output.data(f"{found.trials} trials, {found.seeds} seeds each; training takes about {duration(found.seconds)} here")
    if config.race:
        output.data(f"A race trains between {fewest_trials(config)} and {found.trials} of them.")
    if config.time_budget is not None and found.seconds > config.time_budget:
        share = config.time_budget / found.seconds
        room = f"has room for about {100 * share:.0f} % of that"
        output.data(f"The time budget of {duration(config.time_budget)} {room}.")
    for one in found.resolutions:
        prefix = f"{one.backbone}: " if len(found.resolutions) > 1 else ""
        for line in sentences(one, found):
            output.data(prefix + line)


HEADERS: Final = (
    "pooling",
    "rank",
    "accuracy",
    "gain over the baseline, points",
    "F1",
    "mean corruption accuracy",
    "latency, ms",
    "significance",
)


def show(summary: Summary, as_json: bool) -> None:
    """Prints the table, the conclusions, and where the page is."""
    if as_json:
        output.emit_json(summary.to_json())
        return
    results = summary.result.results
    several = len({row.backbone for row in results}) > 1
    seeds = len(summary.result.seeds)
    output.table(HEADERS, [_cells(row, several, seeds) for row in results], right=(1, 2, 3, 4, 5, 6))
    for sentence in (*summary.result.conclusions, *summary.result.left_out):
        output.data(sentence)
    if (reference := summary.result.protocol) is not None:
        from poolzoo.compare.board.protocol import short

        why = summary.result.unofficial
        output.data(f"protocol {short(reference)}" + (f"; unofficial: {why}" if why else ""))
    output.data(str(summary.page))


def _cells(row: VariantResult, several: bool, seeds: int) -> tuple[str, ...]:
    """A row of the table of a comparison with so many seeds; with the backbone where there are several."""
    name = f"{row.pool} + {row.local_pool}" if row.local_pool else str(row.pool)
    name = f"{row.backbone}  {name}" if several else name
    if not row.done:
        return (name, row.status or "failed", "", "", "", "", "", row.error or "")
    return (
        name,
        "" if row.rank is None else str(row.rank),
        _mean_sd(row.accuracy),
        difference(row.delta),
        _mean_sd(row.f1),
        _number(row.corruption_accuracy.mean if row.corruption_accuracy else None, 4),
        _number(row.latency_ms, 2),
        _significance(row.delta) + (f"; {row.stop.reason(seeds)}" if row.stop else ""),
    )


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _mean_sd(figures: MeanSd | None) -> str:
    if figures is None:
        return ""
    return _number(figures.mean, 4) + ("" if figures.sd is None else f" ± {figures.sd:.4f}")


def difference(delta: Delta | None) -> str:
    """A gain in points with its interval; empty where it was not tested."""
    if delta is None or delta.mean is None or delta.low is None or delta.high is None:
        return ""
    return f"{100 * delta.mean:+.2f} ({100 * delta.low:+.2f} to {100 * delta.high:+.2f})"


def _significance(delta: Delta | None) -> str:
    if delta is None:
        return "baseline"
    return "better" if delta.better else "worse" if delta.worse else "not significant"
