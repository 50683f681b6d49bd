"""`poolzoo choose`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource

from poolzoo.cli import finetune, numbers, values
from poolzoo.cli.groups import COMPARISON, DATA, HARDWARE, LENGTH, MODEL, GroupedCommand, group_of, option
from poolzoo.cli.options import budget_seconds, json_option, out_option, resume_option
from poolzoo.common import output
from poolzoo.common.errors import UsageError
from poolzoo.plugin import loader

if TYPE_CHECKING:
    from poolzoo.compare.choosing.results import Choice
    from poolzoo.train.settings import Settings

SHOWN: Final = 8  # lines about what was not tried; --json and the page have all


def _settings_of_finetune(command: click.Command) -> click.Command:
    """Adds the options of `finetune` that say which data is seen, and on which device."""
    known = {parameter.name for parameter in command.params}
    shared = [one for one in finetune.command.params if group_of(one) in (DATA, HARDWARE) and one.name not in known]
    command.params += shared
    return command


EXAMPLES: Final = (
    ("Recommend a pooling for a folder of images in five minutes", "poolzoo choose --data folder:photos"),
    (
        "Take half an hour, and compare these poolings only",
        "poolzoo choose --data folder:photos --time-budget 30m --pool avg,gem,map",
    ),
    ("Recommend only what OpenCV computes", "poolzoo choose --data digits --target opencv"),
    ("Resume an interrupted choice", "poolzoo choose --resume choices/NAME"),
)


@_settings_of_finetune
@click.command(cls=GroupedCommand, examples=EXAMPLES)
@option(
    "--backbone",
    "backbones",
    shell_complete=values.several(values.backbone),
    group=MODEL,
    metavar="NAME,…",
    show_default="nano/resnet, and one with pretrained weights on this machine",
    help="Backbones, separated by commas.",
)
@option(
    "--pool",
    "pools",
    shell_complete=values.poolings("global", "all"),
    group=MODEL,
    metavar="NAME,…",
    show_default="a short list",
    help="Global poolings to choose from, separated by commas, or all.",
)
@option(
    "--local-pool",
    "local_pools",
    shell_complete=values.poolings("local", "none", "all"),
    group=MODEL,
    metavar="NAME,…",
    show_default="a short list",
    help="Local poolings to choose from, which are tried in networks trained from scratch. none is the backbone's own.",
)
@option(
    "--time-budget",
    group=LENGTH,
    default="5m",
    show_default=True,
    metavar="25m|1h30m|90s",
    help="Time for everything. It decides the number of images and epochs of the trainings.",
)
@option(
    "--epochs",
    group=LENGTH,
    type=numbers.IntRange(1),
    show_default="from --time-budget",
    help="Number of passes over the training images, in place of what fits into the time.",
)
@option(
    "--seeds",
    group=COMPARISON,
    type=numbers.IntRange(1, 1000),
    default=3,
    show_default=True,
    help="Number of trials of each candidate.",
)
@option(
    "--seed",
    group=COMPARISON,
    type=numbers.Int(),
    default=0,
    show_default=True,
    help="Seed of the first trial and of the validation split.",
)
@option(
    "--alpha",
    group=COMPARISON,
    type=numbers.FloatRange(0.0001, 0.5),
    default=0.05,
    show_default=True,
    help="Level at which all statements hold together.",
)
@option(
    "--target",
    shell_complete=values.runtime,
    group=COMPARISON,
    metavar="NAME",
    show_default="onnxruntime",
    help="Runtime that must compute the recommended network.",
)
@option(
    "--max-latency",
    group=COMPARISON,
    type=numbers.FloatRange(0, min_open=True),
    metavar="MS",
    help="The most milliseconds that one image may take under ONNX Runtime on this machine.",
)
@out_option("Directory of the choice", "a new one in choices/")
@resume_option(values.CHOICE, "Resume the interrupted choice in DIR. No other setting may be given.")
@json_option
@click.pass_context
def command(
    context: click.Context,
    /,
    backbones: str | None,
    pools: str | None,
    local_pools: str | None,
    time_budget: str,
    seeds: int,
    alpha: float,
    target: str | None,
    max_latency: float | None,
    out: Path | None,
    resumed: Path | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Recommend a pooling for a data set from a few minutes of comparisons.

    Heads on a frozen pretrained backbone, and networks that are trained from scratch, are compared with several seeds.
    The recommendation has three sentences, and the commands that train and export the network. The directory of the
    choice holds choice.json, choice.html and the comparisons.
    """
    from poolzoo.compare.choosing import run
    from poolzoo.compare.choosing.candidates import Candidates
    from poolzoo.compare.choosing.plan import Request

    typed = {name for name in context.params if context.get_parameter_source(name) is not ParameterSource.DEFAULT}
    if resumed is not None:
        if typed - {"resumed", "as_json"}:
            raise UsageError("--resume takes no other settings", f"poolzoo choose --resume {resumed}")
        show(run.resume(resumed), as_json)
        return
    request = Request(budget_seconds(time_budget), target, max_latency, alpha)
    settings = _settings(given)
    from poolzoo.compare import writing

    place = out or writing.new_path(Path("choices"))
    line = shlex.join(["poolzoo", *sys.argv[1:]])
    show(run.choose(Candidates(pools, local_pools, backbones), settings, seeds, request, place, line), as_json)


def _settings(given: dict[str, Any]) -> Settings:
    from poolzoo.compare.config import require_one_label
    from poolzoo.train.settings import Settings
    from poolzoo.train.settings_file import with_absolute_paths

    files = [str(path.resolve()) for path in loader.settings.files]
    settings = with_absolute_paths(Settings(**given, plugins=tuple(dict.fromkeys(files))))
    require_one_label(settings)
    return settings


def show(choice: Choice, as_json: bool) -> None:
    """Prints the recommendation, what was not tried, and what to type next."""
    if as_json:
        output.emit_json(choice.to_json())
        return
    for sentence in choice.sentences:
        output.data(sentence)
    for refused in choice.refused:
        output.data(f"Passed over: {refused.variant.name}, because {refused.refusal}.")
    for one in choice.comparisons:
        output.data(one.describe())
    for line in choice.left_out[:SHOWN]:
        output.data(line)
    for words in choice.commands:
        output.data(f"$ {words}")
    output.data(str(choice.page))
