"""`poolzoo finetune`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from poolzoo.cli.options import json_option
from poolzoo.common import output
from poolzoo.common.errors import UsageError
from poolzoo.plugin import loader

if TYPE_CHECKING:
    from poolzoo.artifacts.run_report import RunReport
    from poolzoo.train.epoch_metrics import EpochMetrics
    from poolzoo.train.prepare import PreparedRun
    from poolzoo.train.settings import Settings


@click.command()
@click.option(
    "--recipe", metavar="NAME", help="Start from a set of settings: fast, strong, tune, probe; options overrule."
)
@click.option("--data", default="cifar10", show_default=True, help="A data set's name, or folder:PATH.")
@click.option(
    "--backbone", default="nano/resnet", show_default=True, help="Such as nano/plain, timm/resnet18, torchvision/vgg11."
)
@click.option(
    "--pool", default="avg", show_default=True, help="Global pooling, such as gem or gem:p=4,learnable=false."
)
@click.option("--local-pool", help="Local pooling in place of the backbone's own, such as blur or max:window=3.")
@click.option("--epochs", type=int, help="Passes over the training images; by default from their number.")
@click.option("--batch-size", type=int, help="By default one that gives an epoch 40 steps or more, at most 256.")
@click.option("--lr", type=float, help="Peak learning rate; by default from the optimizer and the weights.")
@click.option("--weight-decay", type=float, help="Not applied to norms and biases.")
@click.option("--optimizer", default="adamw", show_default=True, help="adamw, sgd, or any of timm.optim.")
@click.option("--lr-schedule", default="linear", show_default=True, help="Fall of the learning rate: linear or cosine.")
@click.option("--warmup", default=0.15, show_default=True, help="Rank of the steps in which the rate rises.")
@click.option("--label-smoothing", default=0.1, show_default=True, help="Rank of the label spread over all classes.")
@click.option("--seed", default=0, show_default=True, help="Of the weights, the split, the order and the augmentation.")
@click.option(
    "--split-seed", type=int, help="Of what is kept apart to choose the best epoch by, and of --limit; else --seed."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--threads", type=int, help="Of torch on the CPU.")
@click.option(
    "--image-size",
    metavar="N|HxW",
    help="Height and width in pixels at which the network sees the images; others are resized and center-cropped.",
)
@click.option(
    "--skip-broken",
    metavar="N|all",
    help="Leave out at most N images that cannot be read, or all of them; each is told of. By default none.",
)
@click.option(
    "--stem", default="stock", show_default=True, help="small: reduce the stem's stride instead of upscaling."
)
@click.option(
    "--freeze",
    default="none",
    show_default=True,
    help="backbone: train the head only, on features that are computed once; stages:N: keep the first N stages.",
)
@click.option(
    "--unfreeze-every", type=int, metavar="E", help="With stages:N, free one stage more after every E epochs."
)
@click.option(
    "--views", default=0, show_default=True, metavar="K", help="Augmented copies of each image whose features are kept."
)
@click.option(
    "--feature-cache/--no-feature-cache",
    default=True,
    show_default=True,
    help="Whether a frozen backbone runs once an image, or in every epoch.",
)
@click.option("--head", default="linear", show_default=True, help="linear, or mlp:WIDTH for one hidden layer.")
@click.option("--pretrained", is_flag=True, help="Start from the backbone's published weights.")
@click.option("--weights", metavar="FILE", help="Start from a state dict of timm, torchvision or poolzoo.")
@click.option("--head-lr-mult", default=1.0, show_default=True, help="Multiple of --lr for pooling and classifier.")
@click.option(
    "--layer-decay", default=1.0, show_default=True, help="Multiple of --lr from each stage to the one before."
)
@click.option("--shift", type=int, metavar="PX", help="Largest random shift; by default a sixteenth of the image.")
@click.option(
    "--flip",
    default="auto",
    show_default=True,
    help="off, random, alternating; auto: alternating if the data allows it.",
)
@click.option("--cutout", default=0, show_default=True, metavar="PX", help="Side of a square that is painted over.")
@click.option("--mixup", default=0.0, show_default=True, metavar="ALPHA", help="Blend images: weights from Beta(α, α).")
@click.option("--cutmix", default=0.0, show_default=True, metavar="ALPHA", help="Exchange boxes between images.")
@click.option(
    "--ema", default=0.0, show_default=True, metavar="DECAY", help="Keep an average of the weights, as 0.999."
)
@click.option("--clip-grad", type=float, metavar="NORM", help="Largest norm of the gradient.")
@click.option("--grad-accum", default=1, show_default=True, metavar="K", help="Compute each batch in K parts.")
@click.option(
    "--precision", default="auto", show_default=True, help="float32 or bfloat16 (mixed); auto: by the device."
)
@click.option("--compile", default="auto", show_default=True, help="torch.compile: on, off; auto: on GPUs.")
@click.option("--deterministic", is_flag=True, help="Equal bits on a GPU too, where it has slower kernels for that.")
@click.option("--limit", type=int, metavar="N", help="Use at most N training and N test images, for a quick try.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The run directory; must not exist. [default: a new one in runs/]",
)
@click.option(
    "--resume", "resumed", type=click.Path(path_type=Path), metavar="DIR", help="Go on with an interrupted run."
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Take settings from a TOML file; options overrule it.",
)
@click.option(
    "--check-export/--no-check-export",
    default=True,
    show_default=True,
    help="Before training, see that the network can be exported.",
)
@click.option("--dry-run", is_flag=True, help="Show the network and the plan; train nothing, write nothing.")
@json_option
@click.pass_context
def command(
    context: click.Context,
    /,
    out: Path | None,
    resumed: Path | None,
    config: Path | None,
    dry_run: bool,
    check_export: bool,
    recipe: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Train a backbone with a pooling on a data set, and leave a run directory behind.

    The last line printed is the run directory. Ctrl-C saves the state of the step it meets; --resume goes on there.
    On several devices: torchrun --nproc-per-node N -m poolzoo finetune …
    """
    from poolzoo.train.recipes import recipe_settings
    from poolzoo.train.settings import Settings, read_toml, with_absolute_paths

    typed = {name for name in given if context.get_parameter_source(name) is not ParameterSource.DEFAULT}
    if resumed is not None:
        if typed or out or config or recipe or dry_run:
            raise UsageError(
                "--resume takes no other settings: the run has its own", f"poolzoo finetune --resume {resumed}"
            )
        _show_result(_resume(resumed, as_json=as_json), as_json=as_json)
        return
    if recipe is not None:
        given.update({key: value for key, value in recipe_settings(recipe).items() if key not in typed})
    if config is not None:
        given.update({key: value for key, value in read_toml(config).items() if key not in typed})
    files = [str(path.resolve()) for path in loader.settings.files]
    plugins = tuple(dict.fromkeys([*given.get("plugins", ()), *files]))
    settings = with_absolute_paths(Settings(**{**given, "plugins": plugins}))
    loader.settings.files = [Path(file) for file in settings.plugins]
    if dry_run:
        from poolzoo.train import dry_run as dry_runs

        dry_runs.show(settings, as_json)
        return
    report = _finetune(settings, out, check_export=check_export, as_json=as_json)
    _show_result(report, as_json=as_json)


def _finetune(settings: Settings, out: Path | None, *, check_export: bool, as_json: bool) -> RunReport | None:
    output.detail("loading torch")
    from poolzoo.train import run

    on_prepared = _check_export if check_export else None
    return run.finetune(settings, out, callback=_print_epoch if as_json else None, on_prepared=on_prepared)


def _resume(path: Path, *, as_json: bool) -> RunReport | None:
    output.detail("loading torch")
    from poolzoo.train import run

    return run.resume(path, callback=_print_epoch if as_json else None)


def _print_epoch(metrics: EpochMetrics) -> None:
    output.emit_json(metrics.to_json())


def _check_export(prepared: PreparedRun) -> None:
    output.say("checking that the network can be exported (--no-check-export skips this)")
    from poolzoo.export.graph import check_exportable

    check_exportable(prepared.assembly.network, prepared.preprocess, prepared.data.size)


def _show_result(report: RunReport | None, *, as_json: bool) -> None:
    """Prints the result of a run; None comes from the processes that do not write."""
    if report is None:
        return
    if as_json:
        output.emit_json(report.summary())
        return
    from poolzoo.metrics import classification

    classification.show(report.test)
    if report.test_flip_tta is not None:
        output.data(f"accuracy {report.test_flip_tta:.4f} with mirror images averaged, which is not exported")
    output.data(str(report.path))
