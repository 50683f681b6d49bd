"""`poolzoo finetune`. It is long because it has an option for each setting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource

from poolzoo.cli import numbers, values
from poolzoo.cli.groups import (
    AUGMENTATION,
    DATA,
    FREEZING,
    HARDWARE,
    LENGTH,
    LOSS,
    MODEL,
    OPTIMIZATION,
    OUTPUT,
    TEACHER,
    Decorator,
    GroupedCommand,
    option,
)
from poolzoo.cli.options import json_option, out_option, resume_option
from poolzoo.common import output
from poolzoo.common.errors import UsageError
from poolzoo.plugin import loader
from poolzoo.train.recipes import RECIPES
from poolzoo.train.settings import CHOICES, FREE, Settings, flag

if TYPE_CHECKING:
    from poolzoo.artifacts.run_report import RunReport
    from poolzoo.train.epoch_metrics import EpochMetrics
    from poolzoo.train.prepare import PreparedRun

EXAMPLES: Final = (
    ("Train with GeM pooling on the embedded digits", "poolzoo finetune --data digits --pool gem --out run"),
    (
        "Fine-tune published weights on a folder of images",
        "poolzoo finetune --data folder:photos --backbone timm/resnet18 --pretrained --recipe tune",
    ),
    (
        "Train only the head, on features that are computed once",
        "poolzoo finetune --data folder:photos --backbone timm/resnet18 --pretrained --freeze backbone",
    ),
    ("Show the network and the settings, and train nothing", "poolzoo finetune --data digits --dry-run"),
    ("Resume an interrupted run", "poolzoo finetune --resume run"),
)
VALUES: Final[dict[str, values.Values]] = {
    "data": values.data,
    "backbone": values.backbone,
    "pool": values.global_pooling,
    "local_pool": values.local_pooling,
    "head": values.fixed("linear", "mlp:"),
    "weights": values.files(".safetensors", ".pth", ".pt"),
    "optimizer": values.optimizer,
    "loss": values.fixed("cross-entropy", "focal", "focal:"),
    "class_weights": values.class_weights,
    "distill_from": values.run_or_backbone,
    "freeze": values.fixed("none", "backbone", "stages:"),
    "policy": values.fixed("none", "trivial", "rand", "rand:"),
    "crop_scale": values.fixed("none", "0.08,1"),
    "device": values.fixed("auto", "cpu", "cuda"),
}
FIELDS: Final = {field.name: field for field in fields(Settings)}


def setting(flag: str, group: str, help: str, metavar: str | None = None, *, unset: str | None = None) -> Decorator:
    """The option of a field of `Settings`, with the type, the default and the choices of that field.

    Args:
        flag: The name of the field as a flag.
        group: The group in which the help shows the option.
        help: A text that stands alone.
        metavar: The form of the value, where the type does not say it.
        unset: What happens without the option, for a field whose default is None.
    """
    name = flag.removeprefix("--").replace("-", "_")
    field = FIELDS[name]
    kinds = str(field.type).split(" | ")
    if kinds == ["bool"]:
        flags = f"{flag}/--no-{flag.removeprefix('--')}" if field.default else flag
        return option(flags, group=group, is_flag=True, default=field.default, show_default=flags != flag, help=help)
    allowed = [one for one in CHOICES.get(name, ()) if one is not None]
    plain = str if "str" in kinds else {"int": numbers.Int(), "float": numbers.Float()}[kinds[0]]
    type_ = click.Choice(allowed) if allowed else plain
    return option(
        flag,
        group=group,
        type=type_,
        default=field.default,
        show_default=unset or field.default is not None,
        metavar=metavar,
        help=help,
        shell_complete=VALUES.get(name),
    )


@click.command(cls=GroupedCommand, examples=EXAMPLES)
@setting(
    "--data", DATA, "Data set: a name from `poolzoo list datasets`, or one of its sources such as folder:PATH.", "NAME"
)
@setting("--task", DATA, "Whether an image has one label, or with multilabel any number of them.")
@setting(
    "--image-size",
    DATA,
    "Height and width in pixels of the network's input. Images are resized and center-cropped to it.",
    "N|HxW",
    unset="from the images",
)
@setting("--limit", DATA, "Use at most N training images and N test images, for a quick try.", "N")
@setting(
    "--test-fraction",
    DATA,
    "Hold a share of the training images out as test images, chosen by class, where the data has no test part.",
    "F",
)
@setting(
    "--skip-broken",
    DATA,
    "Skip up to N unreadable images, or all of them, and report each one. The default is to stop at any.",
    "N|all",
)
@setting(
    "--split-seed",
    DATA,
    "Seed of the validation split, of --test-fraction and of the images that --limit keeps.",
    unset="the value of --seed; 0 for --test-fraction",
)
@setting(
    "--crop-pct",
    DATA,
    "Part of the shorter side that evaluation sees: images are resized and the center is cropped, here and in exports.",
    "PART",
    unset="1",
)
@setting(
    "--data-cache",
    DATA,
    "How images are kept: decoded at one size before training, reduced once in the first epoch, or not at all. With "
    "auto, their sizes and POOLZOO_CACHE_LIMIT decide.",
)
@setting("--data-workers", DATA, "Number of threads that read images while the network trains.", "N", unset="the CPUs")
@setting("--backbone", MODEL, "Backbone, such as nano/plain, timm/resnet18 or torchvision/vgg11.", "NAME")
@setting("--pool", MODEL, "Global pooling, such as gem or gem:p=4,learnable=false.", "NAME[:OPTIONS]")
@setting(
    "--local-pool",
    MODEL,
    "Local pooling that replaces the backbone's own pooling layers, such as blur or max:window=3.",
    "NAME[:OPTIONS]",
)
@setting("--head", MODEL, "Classifier: linear, or mlp:WIDTH with one hidden layer.", "linear|mlp:WIDTH")
@setting("--stem", MODEL, "With small, reduce the stride of the stem instead of upscaling small images.")
@setting("--pretrained", MODEL, "Start from the published weights of the backbone.")
@setting("--weights", MODEL, "Start from a state dict of timm, torchvision or poolzoo.", "FILE")
@option(
    "--recipe",
    group=OPTIMIZATION,
    type=click.Choice([recipe.name for recipe in RECIPES]),
    help="Start from a named set of options; `poolzoo show NAME` prints it. Options on the command line override it.",
)
@setting("--epochs", LENGTH, "Number of passes over the training images.", unset="from their number")
@setting(
    "--time-budget",
    LENGTH,
    "Train for this time instead, with validation. The learning rate reaches its end when the time does.",
    "25m|1h30m|90s",
    unset="no limit",
)
@setting(
    "--patience",
    LENGTH,
    "Stop after E epochs without a better validation score. The schedule remains that of --epochs or --time-budget.",
    "E",
    unset="never",
)
@setting("--batch-size", OPTIMIZATION, "Images per step.", unset="at most 256, with at least 40 steps per epoch")
@setting("--optimizer", OPTIMIZATION, "Optimizer: adamw, sgd, or any name in timm.optim.", "NAME")
@setting("--lr", OPTIMIZATION, "Peak learning rate.", unset="from the optimizer and the weights")
@setting("--lr-schedule", OPTIMIZATION, "Decay of the learning rate after the warmup.")
@setting("--warmup", OPTIMIZATION, "Fraction of all steps in which the learning rate rises.")
@setting(
    "--weight-decay", OPTIMIZATION, "Weight decay. It never applies to norms and biases.", unset="from the optimizer"
)
@setting("--head-lr-mult", OPTIMIZATION, "Learning rate of the pooling and the classifier, as a multiple of --lr.")
@setting("--layer-decay", OPTIMIZATION, "Factor on the learning rate from each stage to the stage before it.")
@setting("--clip-grad", OPTIMIZATION, "Maximum norm of the gradient. Larger gradients are scaled down.", "NORM")
@setting("--grad-accum", OPTIMIZATION, "Compute each batch in K parts and sum their gradients, to save memory.", "K")
@setting(
    "--ema", OPTIMIZATION, "Decay of the exponential moving average of the weights, such as 0.999. 0 is off.", "DECAY"
)
@setting(
    "--loss",
    LOSS,
    "Loss: cross-entropy, or focal, which gives easy images less weight; focal:GAMMA sets its exponent (default 2).",
    "NAME[:GAMMA]",
)
@setting(
    "--label-smoothing",
    LOSS,
    "Probability mass of the label that is spread over all classes.",
    unset="0.1, or 0 with several labels",
)
@setting(
    "--class-weights",
    LOSS,
    "Weights of the classes in the loss: balanced for weights that are inversely proportional to their number of "
    "images, or a JSON file that maps each class to its weight.",
    "balanced|FILE",
    unset="all equal",
)
@setting(
    "--sampler",
    LOSS,
    "Images of an epoch: all of them once, or as many with each class equally often.",
)
@setting(
    "--distill-from",
    TEACHER,
    "Train towards the outputs of a teacher as well: a run directory, or a backbone with a published classifier. "
    "It must have the same classes.",
    "RUN|BACKBONE",
    unset="no teacher",
)
@setting("--distill-temperature", TEACHER, "Temperature that softens the outputs of teacher and student.", "T")
@setting("--distill-weight", TEACHER, "Weight of the teacher in the loss, from 0 to 1; the labels have the rest.", "W")
@setting("--seed", OPTIMIZATION, "Seed of the weights, the validation split, the batch order and the augmentation.")
@setting(
    "--augment",
    AUGMENTATION,
    "Level of augmentation, which sets the other options of this group: light has shifts and flips. For photographs, "
    "standard has random crops, flips and color jitter; strong has random crops, flips, TrivialAugment and erasing.",
    unset="standard for images that are reduced or of mixed sizes, else light",
)
@setting(
    "--crop-scale",
    AUGMENTATION,
    "Random resized crops with LOW to HIGH of the image's area, such as 0.08,1.",
    "LOW,HIGH|none",
    unset="from --augment",
)
@setting(
    "--policy",
    AUGMENTATION,
    "TrivialAugment, or RandAugment with N operators of magnitude M out of 30.",
    "none|trivial|rand[:N,M]",
    unset="from --augment",
)
@setting(
    "--color-jitter",
    AUGMENTATION,
    "Maximum random change of brightness, contrast and saturation, as a fraction.",
    "S",
    unset="from --augment",
)
@setting(
    "--erasing",
    AUGMENTATION,
    "Probability that a random box is filled with the mean color.",
    "P",
    unset="from --augment",
)
@setting(
    "--shift",
    AUGMENTATION,
    "Maximum random shift in pixels.",
    "PX",
    unset="a sixteenth of the image, 0 with random crops",
)
@setting(
    "--flip",
    AUGMENTATION,
    "Horizontal flips. With alternating, two epochs show both forms of every image. "
    "With auto, the data set chooses alternating or off.",
)
@setting(
    "--cutout", AUGMENTATION, "Side in pixels of a random square that is filled with the mean color. 0 is off.", "PX"
)
@setting("--mixup", AUGMENTATION, "Blend pairs of images with weights from Beta(ALPHA, ALPHA). 0 is off.", "ALPHA")
@setting(
    "--cutmix",
    AUGMENTATION,
    "Exchange boxes between pairs of images, with areas from Beta(ALPHA, ALPHA). 0 is off.",
    "ALPHA",
)
@setting(
    "--freeze",
    FREEZING,
    "Freeze the whole backbone, or its first N stages. With backbone, features are computed once and only the head "
    "trains.",
    "none|backbone|stages:N",
)
@setting("--unfreeze-every", FREEZING, "With --freeze stages:N, unfreeze one stage after every E epochs.", "E")
@setting("--views", FREEZING, "With a frozen backbone, cache the features of K augmented copies of each image.", "K")
@setting(
    "--feature-cache",
    FREEZING,
    "With --freeze backbone, cache the features, or run the backbone again in every epoch.",
)
@setting("--device", HARDWARE, "Device: auto, cpu, cuda or cuda:N.", "NAME")
@setting("--threads", HARDWARE, "Number of torch threads on the CPU.", unset="the CPUs that this process may use")
@setting("--precision", HARDWARE, "Precision of training. With auto, bfloat16 on GPUs that support it.")
@setting("--compile", HARDWARE, "Whether torch.compile compiles the training step. With auto, only on GPUs.")
@setting(
    "--deterministic", HARDWARE, "Use deterministic GPU kernels, which are slower. The CPU is always deterministic."
)
@setting(
    "--calibration",
    OUTPUT,
    "Fit a map of logits on the validation images, so that probabilities say how often predictions are right.",
)
@out_option("Run directory to write", "a new one in runs/")
@resume_option(values.RUN, "Resume the interrupted run in DIR. --data-workers is the only setting that may change.")
@option(
    "--config",
    shell_complete=values.files(".toml"),
    group=OUTPUT,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Read the settings from a TOML file such as run.toml. Options on the command line override it.",
)
@option(
    "--check-export/--no-check-export",
    group=OUTPUT,
    default=True,
    show_default=True,
    help="Export the untrained network once before training, to find export problems early.",
)
@option(
    "--find-lr",
    group=OUTPUT,
    is_flag=True,
    help="Suggest a learning rate from a short ramp of rates, and write its plot. Nothing is trained.",
)
@option(
    "--dry-run", group=OUTPUT, is_flag=True, help="Show the network and the settings. Nothing is trained or written."
)
@option(
    "--show-batch",
    shell_complete=values.files(".png"),
    group=OUTPUT,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write a PNG of the first training images as they enter the network, augmented. Nothing is trained.",
)
@json_option
@click.pass_context
def command(
    context: click.Context,
    /,
    out: Path | None,
    resumed: Path | None,
    config: Path | None,
    find_lr: bool,
    dry_run: bool,
    show_batch: Path | None,
    check_export: bool,
    recipe: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Train a backbone with a pooling on a data set, and write a run directory.

    The last line of stdout is the run directory. Ctrl-C saves the state of the current step, and --resume continues
    from it. To train on several devices, run torchrun --nproc-per-node N -m poolzoo finetune …
    """
    from poolzoo.train.recipes import recipe_settings
    from poolzoo.train.settings import with_one_end
    from poolzoo.train.settings_file import read_toml, with_absolute_paths

    typed = {name for name in given if context.get_parameter_source(name) is not ParameterSource.DEFAULT}
    if resumed is not None:
        if typed - FREE or out or config or recipe or dry_run or find_lr or show_batch:
            raise UsageError(
                f"--resume takes no setting but {', '.join(map(flag, FREE))}: the run has its own",
                f"poolzoo finetune --resume {resumed}",
            )
        own = {name: given[name] for name in typed}
        _show_result(_resume(resumed, own, as_json=as_json), as_json=as_json)
        return
    if recipe is not None:
        given.update({key: value for key, value in recipe_settings(recipe).items() if key not in typed})
    if config is not None:
        given.update({key: value for key, value in read_toml(config).items() if key not in (*typed, "protocol")})
    files = [str(path.resolve()) for path in loader.settings.files]
    plugins = tuple(dict.fromkeys([*given.get("plugins", ()), *files]))
    settings = with_absolute_paths(Settings(**{**with_one_end(given, typed), "plugins": plugins}))
    loader.settings.files = [Path(file) for file in settings.plugins]
    if find_lr and (dry_run or show_batch is not None):
        raise UsageError("--find-lr trains, and --dry-run and --show-batch do not", "leave one of them out")
    if show_batch is not None:
        _show_batch(settings, show_batch)
    if dry_run:
        from poolzoo.train import dry_run as dry_runs

        dry_runs.show(settings, as_json)
    if dry_run or show_batch is not None:
        return
    if find_lr:
        _find_lr(settings, out, as_json=as_json)
        return
    report = _finetune(settings, out, check_export=check_export, as_json=as_json)
    _show_result(report, as_json=as_json)


def _find_lr(settings: Settings, out: Path | None, *, as_json: bool) -> None:
    output.detail("loading torch")
    from poolzoo.common.errors import CheckFailed
    from poolzoo.train import lr_range

    found = lr_range.find_lr(settings, out)
    if found is None:
        return
    if as_json:
        output.emit_json(found.to_json())
    if found.suggestion is None:
        text = f"there is no learning rate to suggest: {found.problem}"
        raise CheckFailed(text, f"see {found.path / lr_range.PLOT}; another --lr moves the range")
    if not as_json:
        output.data(f"--lr {found.suggestion:.2g}")
        output.data(str(found.path))


def _show_batch(settings: Settings, path: Path) -> None:
    from poolzoo.train import batch_picture

    output.say(f"{path} shows {batch_picture.write(settings, path)} training images")


def _finetune(settings: Settings, out: Path | None, *, check_export: bool, as_json: bool) -> RunReport | None:
    output.detail("loading torch")
    from poolzoo.train import run

    on_prepared = _check_export if check_export else None
    return run.finetune(settings, out, callback=_print_epoch if as_json else None, on_prepared=on_prepared)


def _resume(path: Path, own: Mapping[str, Any], *, as_json: bool) -> RunReport | None:
    output.detail("loading torch")
    from poolzoo.train import run

    return run.resume(path, callback=_print_epoch if as_json else None, **own)


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
    from poolzoo.metrics import evaluation

    evaluation.show(report.test)
    if report.fit is not None:
        output.data(report.fit.describe())
    if report.reliability is not None:
        from poolzoo.metrics import reliability

        reliability.show(report.reliability)
    if report.test_flip_tta is not None:
        output.data(
            f"{report.task.val_score} {report.test_flip_tta:.4f} with mirror images averaged, which is not exported"
        )
    output.data(str(report.path))
