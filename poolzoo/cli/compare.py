"""`poolzoo compare`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any, Final

import click
from click.core import ParameterSource

from poolzoo.cli import finetune
from poolzoo.common import output
from poolzoo.common.errors import UsageError
from poolzoo.plugin import loader

# Those of `finetune` that mean one run alone, or that mean something else here.
OTHERS: Final = (
    "pool",
    "local_pool",
    "backbone",
    "seed",
    "split_seed",
    "out",
    "resumed",
    "check_export",
    "dry_run",
    "as_json",
)
OWN: Final = (
    "pools",
    "local_pools",
    "backbones",
    "seeds",
    "baseline",
    "robustness_samples",
    "export_top",
    "alpha",
    "executor",
    "ray_address",
)


def _settings_of_finetune(command: click.Command) -> click.Command:
    """Adds what decides a run, as `finetune` has it."""
    known = {parameter.name for parameter in command.params}
    command.params += [one for one in finetune.command.params if one.name not in (*OTHERS, *known)]
    return command


@_settings_of_finetune
@click.command()
@click.option(
    "--pool",
    "pools",
    default="avg",
    show_default=True,
    help="Global poolings: all, or such as avg,max,gem:p=2|3|4 with the values of a sweep.",
)
@click.option(
    "--local-pool",
    "local_pools",
    help="Local poolings likewise; none is the backbone's own, subsample and conv are controls.",
)
@click.option("--backbone", "backbones", default="nano/resnet", show_default=True, help="One, or several with commas.")
@click.option(
    "--seeds", type=click.IntRange(1, 1000), default=3, show_default=True, help="Trials of each, from --seed up."
)
@click.option("--seed", default=0, show_default=True, help="The first one, and that of the splits.")
@click.option("--baseline", metavar="NAME", help="What the others are compared with; by default the first.")
@click.option(
    "--robustness-samples",
    type=click.IntRange(0),
    default=500,
    show_default=True,
    metavar="N",
    help="Test images to corrupt and to shift; 0 leaves it out.",
)
@click.option(
    "--export-top",
    type=click.IntRange(0),
    default=10,
    show_default=True,
    metavar="N",
    help="How many of the best are exported and timed under ONNX Runtime; 0 leaves it out.",
)
@click.option(
    "--alpha", type=click.FloatRange(0.0001, 0.5), default=0.05, show_default=True, help="Level of the tests."
)
@click.option(
    "--executor", type=click.Choice(["local", "ray"]), default="local", show_default=True, help="Where trials run."
)
@click.option("--ray-address", metavar="ADDRESS", help="Of an existing Ray cluster.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The comparison; must not exist. [default: a new one in comparisons/]",
)
@click.option(
    "--resume", "resumed", type=click.Path(path_type=Path), metavar="DIR", help="Go on with an interrupted one."
)
@click.option("--dry-run", is_flag=True, help="Show what would be trained, its size, and how long it would take.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(
    context: click.Context, /, out: Path | None, resumed: Path | None, dry_run: bool, as_json: bool, **given: Any
) -> int:
    """Train poolings on the same data from several seeds, and tell which differ beyond chance.

    Every trial is a run of its own, written down when it ends; one that fails is a row. The comparison's directory
    holds compare.json, compare.csv and report.html, a page to look at.
    """
    from poolzoo.common.errors import CHECK_FAILED, OK
    from poolzoo.compare import session

    typed = {name for name in given if context.get_parameter_source(name) is not ParameterSource.DEFAULT}
    executor, address = given.pop("executor"), given.pop("ray_address")
    if executor == "local" and address is not None:
        raise UsageError("--ray-address is for --executor ray", "add --executor ray")
    if resumed is not None:
        if typed - {"executor", "ray_address"} or out or dry_run:
            raise UsageError("--resume takes no other settings", f"poolzoo compare --resume {resumed}")
        result = session.go_on(resumed, _runner(executor, address))
    else:
        plan = _plan(given, typed)
        if dry_run:
            from poolzoo.compare import preview

            return preview.show(plan, as_json)
        place = out or session.new_path()
        result = session.start(plan, place, shlex.join(["poolzoo", *sys.argv[1:]]), _runner(executor, address))
    if as_json:
        output.emit_json(result)
    else:
        show(result)
    return OK if any(row["status"] == "done" for row in result["results"]) else CHECK_FAILED


def _plan(given: dict[str, Any], typed: set[str]) -> Any:
    from poolzoo.compare.session import ComparisonConfig
    from poolzoo.train.recipes import recipe_settings
    from poolzoo.train.settings import Settings, read_toml, with_absolute_paths

    own = {name: given.pop(name) for name in OWN if name in given}
    recipe, config = given.pop("recipe"), given.pop("config")
    for source in (recipe_settings(recipe) if recipe else {}, read_toml(config) if config else {}):
        given.update(
            {key: value for key, value in source.items() if key not in (*typed, "pool", "local_pool", "backbone")}
        )
    files = [str(path.resolve()) for path in loader.settings.files]
    settings = with_absolute_paths(
        Settings(**{**given, "plugins": tuple(dict.fromkeys([*given.get("plugins", ()), *files]))})
    )
    loader.settings.files = [Path(file) for file in settings.plugins]
    return ComparisonConfig(**own, settings=settings)


def _runner(executor: str, address: str | None) -> Any:
    if executor == "local":
        return None
    from poolzoo.compare import cluster

    return cluster.runner(address)


def show(result: dict[str, Any]) -> None:
    """Prints the table, the verdict, and where the page is."""
    several = len({row["backbone"] for row in result["results"]}) > 1
    rows = []
    for row in result["results"]:
        name = f"{row['pool']} + {row['local_pool']}" if row["local_pool"] else row["pool"]
        cells = [f"{row['backbone']}  {name}" if several else name]
        if row["status"] != "done":
            rows.append((*cells, "failed", "", "", "", "", "", row["error"]))
            continue
        accuracy, delta = row["accuracy"], row["delta"]
        cells += ["" if row["rank"] is None else str(row["rank"]), _spread(accuracy)]
        cells += [_delta(delta), _spread(row["f1"])]
        cells += [f"{row['corruption']['mean']:.4f}" if row["corruption"] else ""]
        cells += [f"{row['latency_ms']:.2f}" if row["latency_ms"] else "", _words(delta)]
        rows.append(tuple(cells))
    headers = ("pooling", "rank", "accuracy", "over the baseline, points", "F1", "corrupted", "ms", "")
    output.table(headers, rows, right=(1, 2, 3, 4, 5, 6))
    for sentence in result["verdict"]:
        output.data(sentence)
    output.data(result["report"])


def _spread(figures: dict[str, Any]) -> str:
    return f"{figures['mean']:.4f}" + ("" if figures["sd"] is None else f" ± {figures['sd']:.4f}")


def _delta(delta: dict[str, Any] | None) -> str:
    if delta is None or delta["mean"] is None:
        return ""
    return f"{100 * delta['mean']:+.2f} ({100 * delta['low']:+.2f} to {100 * delta['high']:+.2f})"


def _words(delta: dict[str, Any] | None) -> str:
    if delta is None:
        return "baseline"
    return "better" if delta["better"] else "worse" if delta["worse"] else "within chance"
