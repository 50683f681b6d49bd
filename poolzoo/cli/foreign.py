"""Options of `verify` and `bench` for an ONNX file from elsewhere, and what they mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from poolzoo.data.sizes import Size
    from poolzoo.runtime.foreign.scaling import Scaling

ENDING = ".onnx"

output_option = click.option(
    "--output",
    "output_name",
    metavar="NAME",
    help="Output of FILE.onnx that holds the scores, where several may be meant.",
)


def image_size_option(default: str) -> Callable[[Any], Any]:
    """`--image-size`; `default` says in words which size is taken without it."""
    return click.option(
        "--image-size",
        metavar="N|HxW",
        show_default=default,
        help="Height and width of images in pixels, where FILE.onnx takes any.",
    )


def is_file(path: Path) -> bool:
    """Whether an argument means an ONNX file, and not the directory of a bundle."""
    return path.is_file() or (path.suffix == ENDING and not path.is_dir())


def require_onnx() -> None:
    """Makes sure that the onnx package is there, which reads files from elsewhere; those of bundles need it not.

    Raises:
        EnvironmentProblem: It is not installed.
    """
    from poolzoo.common.errors import EnvironmentProblem
    from poolzoo.plugin.modules import missing_of

    if missing_of(["onnx"]):
        raise EnvironmentProblem("the onnx package is needed to read an ONNX file from elsewhere", "pip install onnx")


def require_of_file(path: Path, given: Mapping[str, object]) -> None:
    """Makes sure that no option that concerns a file was given for a bundle.

    Raises:
        UsageError: One was.
    """
    from poolzoo.common.errors import UsageError

    for name, value in given.items():
        if value is not None:
            what = "is a directory" if path.is_dir() else "is none"
            raise UsageError(f"{name} concerns an ONNX file, and {path} {what}", "give the .onnx file itself")


def parse_size(text: str | None) -> Size | None:
    """The size that `--image-size` means.

    Raises:
        UsageError: It is none.
    """
    from poolzoo.common.errors import UsageError
    from poolzoo.data import sizes

    try:
        return None if text is None else sizes.parse(text)
    except ValueError:
        raise UsageError(f"--image-size {text!r} is no size", "such as 224, or 224x320 for height and width") from None


def parse_scaling(value_range: str | None, mean: str | None, std: str | None) -> Scaling | None:
    """What `--input-range`, `--mean` and `--std` mean together; None without any.

    Raises:
        UsageError: One of them is something else.
    """
    from poolzoo.common.errors import UsageError
    from poolzoo.runtime.foreign.scaling import Scaling

    if value_range is None and mean is None and std is None:
        return None
    low, high = _numbers("--input-range", value_range, 2) if value_range is not None else (0.0, 1.0)
    means = _numbers("--mean", mean, 3) if mean is not None else (0.0,) * 3
    deviations = _numbers("--std", std, 3) if std is not None else (1.0,) * 3
    if not low < high:
        raise UsageError(f"--input-range {value_range} does not rise", "such as 0,255: what black and white become")
    if min(deviations) <= 0:
        raise UsageError(f"--std {std} is not above zero", "such as 0.229,0.224,0.225")
    scaling = Scaling(low, high, means, deviations)
    if not scaling.is_possible:
        text = "--input-range, --mean and --std make numbers of images that float32 cannot hold"
        raise UsageError(text, "such as --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225")
    return scaling


def _numbers(option: str, text: str, count: int) -> tuple[float, ...]:
    """`0.5,0.5,0.5` as numbers; one number stands for three channels.

    Raises:
        UsageError: They are something else.
    """
    from math import isfinite

    from poolzoo.common import numerals
    from poolzoo.common.errors import UsageError

    try:
        found = tuple(map(numerals.real, text.split(",")))
    except ValueError:
        found = ()
    if len(found) == 1 and count == 3:
        found *= count
    if len(found) != count or not all(map(isfinite, found)):
        example = "0,255" if count == 2 else "0.485,0.456,0.406"
        raise UsageError(f"{option} {text!r} is not {count} numbers", f"such as {option} {example}")
    return found
