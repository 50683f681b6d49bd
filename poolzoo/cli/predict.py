"""`poolzoo predict`."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from poolzoo.cli.options import (
    json_option,
    provider_option,
    runtime_timeout_option,
    skip_broken_option,
    threads_option,
)
from poolzoo.common import output, streams

if TYPE_CHECKING:
    from poolzoo.data.paths import Paths
    from poolzoo.data.walk import Tally
    from poolzoo.runtime.predict import Prediction

HEADERS: Final = ("image", "label", "score", "then")
SALIENCY_HEADERS: Final = ("saliency", "method")  # where pictures are drawn


@click.command()
@click.argument("bundle", metavar="BUNDLE", type=click.Path(path_type=Path))
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@click.option(
    "--top", default=5, show_default=True, type=click.IntRange(1), help="Number of classes to print for each image."
)
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV with the columns file, label, score and error.")
@click.option(
    "--saliency",
    is_flag=True,
    help="Draw a saliency map of each image as STEM-saliency.png in the current directory. An older one is replaced.",
)
@click.option(
    "--saliency-dir",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Directory for the saliency maps; it is created if missing. Implies --saliency.",
)
@skip_broken_option
@click.option(
    "--runtime",
    metavar="NAME",
    show_default="the one that the bundle names, else onnxruntime",
    help="Runtime to run the bundle in.",
)
@provider_option
@threads_option
@runtime_timeout_option
@json_option
def command(
    bundle: Path,
    images: tuple[str, ...],
    top: int,
    as_csv: bool,
    saliency: bool,
    saliency_dir: Path | None,
    skip: str | None,
    runtime: str | None,
    provider: str,
    threads: int | None,
    runtime_timeout: float | None,
    as_json: bool,
) -> int:
    """Label images with a bundle, without torch.

    IMAGE is a file, a folder, or - to read names from stdin, separated by newlines or NUL. An unreadable image becomes
    a row with an error, and the exit code is 1 unless --skip-broken allows it. In the folder of a data set, the
    command reads the images that training reads.
    """
    from poolzoo.common.errors import CHECK_FAILED, OK, UsageError
    from poolzoo.data.unreadable import most
    from poolzoo.runtime.predict import NOT_FINITE, predict

    if as_csv and as_json:
        raise UsageError("--csv and --json exclude each other", "leave one out")
    allowed = most(skip)
    files = _all_files(images)
    folder = saliency_dir or (Path() if saliency else None)
    pictures = None
    if folder is not None:
        from poolzoo.explain.saliency import make_drawer

        pictures = make_drawer(bundle, files, folder, threads)
    predictions = predict(
        bundle,
        files,
        top=top,
        provider=provider,
        threads=threads,
        pictures=pictures,
        runtime=runtime,
        timeout=runtime_timeout,
    )
    headers = SALIENCY_HEADERS if folder else ()
    failures = _Failures()
    label = "" if as_csv and streams.stdout_is_terminal() else "labeling images"  # a bar among the rows would tear them
    with closing(_watched(predictions, label, len(files), failures)) as rows:
        if as_json:
            output.emit_json_rows(row.to_json() for row in rows)
        elif as_csv:
            for cells in chain([("file", "label", "score", *headers, "error")], (_csv_cells(r, headers) for r in rows)):
                output.csv_row(cells)
        else:
            output.table((*HEADERS, *headers), (_cells(row, headers) for row in rows), right=(2,))
    if failures.not_finite:
        first = f"first {failures.first_not_finite}: {NOT_FINITE}"
        output.error(
            f"{failures.not_finite} of {len(files)} images have no label, {first}",
            "poolzoo verify checks that the bundle is as it was exported",
        )
    if failures.unreadable:
        text = f"{failures.unreadable} of {len(files)} images cannot be read, first {failures.first_unreadable}"
        if failures.unreadable <= allowed:
            output.warn(text)
        else:
            output.error(text, "check the files, or allow so many with --skip-broken")
    return CHECK_FAILED if failures.not_finite or failures.unreadable > allowed else OK


@dataclass
class _Failures:
    """Counts images that cannot be read, and images whose outputs are not finite; keeps the first of each."""

    unreadable: int = 0
    first_unreadable: str = ""
    not_finite: int = 0
    first_not_finite: str = ""

    def add(self, prediction: Prediction) -> None:
        from poolzoo.runtime.predict import NOT_FINITE

        if prediction.error == NOT_FINITE:
            self.not_finite += 1
            self.first_not_finite = self.first_not_finite or prediction.file
        else:
            self.unreadable += 1
            self.first_unreadable = self.first_unreadable or f"{prediction.file}: {prediction.error}"


def _all_files(arguments: Sequence[str]) -> Paths:
    """The files that the arguments mean; says what in their folders is ignored."""
    from poolzoo.data.paths import Paths
    from poolzoo.data.walk import Tally

    tally = Tally()
    files = Paths(str(Path(file)) for argument in arguments for file in _files(argument, tally))
    if (line := tally.line()) is not None:
        output.say(line)
    return files


def _files(image: str, tally: Tally) -> Iterable[str]:
    """The files that one argument means: itself, those in a folder, or those that stdin names."""
    from poolzoo.common.errors import UsageError
    from poolzoo.runtime.predict import image_files

    if image != "-":
        return image_files(image, tally) if os.path.isdir(image) else [image]
    given = sys.stdin.buffer.read() if sys.stdin else b""  # None where it was closed
    names = [name for name in (given.split(b"\0") if b"\0" in given else given.splitlines()) if name]
    if not names:
        raise UsageError("stdin names no image", "for example: find photos -print0 | poolzoo predict BUNDLE -")
    return map(os.fsdecode, names)


def _watched(
    predictions: Generator[Prediction, None, None], label: str, total: int, failures: _Failures
) -> Generator[Prediction, None, None]:
    """The predictions, with a progress bar; those with an error are also added to `failures`."""
    with output.progress(label, total) as bar, closing(predictions):
        for done, one in enumerate(predictions, 1):
            prediction = replace(one, file=_printable(one.file))
            if prediction.picture is not None:
                picture = replace(prediction.picture, path=_printable(prediction.picture.path))
                prediction = replace(prediction, picture=picture)
            if prediction.error is not None:
                failures.add(prediction)
            yield prediction
            bar.update(done)


def _printable(path: str) -> str:
    """A path without surrogates: a file's name may be any bytes."""
    return path.encode("utf-8", "backslashreplace").decode()


def _saliency_cells(prediction: Prediction, headers: Sequence[str]) -> Sequence[str]:
    """The picture's path and method; empty cells where there is none."""
    picture = prediction.picture
    return (picture.path, picture.method) if picture is not None else tuple("" for _ in headers)


def _csv_cells(prediction: Prediction, headers: Sequence[str]) -> Sequence[str]:
    more = _saliency_cells(prediction, headers)
    if prediction.error is not None:
        return prediction.file, "", "", *more, prediction.error
    best = prediction.top[0]
    return prediction.file, best.label, f"{best.score:.6f}", *more, ""


def _cells(prediction: Prediction, headers: Sequence[str]) -> Sequence[str]:
    """An image, its label with the score, the next classes with their scores, and the saliency picture."""
    more = _saliency_cells(prediction, headers)
    if prediction.error is not None:
        from poolzoo.runtime.predict import NOT_FINITE

        unread = "" if prediction.error == NOT_FINITE else "cannot be read: "
        return prediction.file, "", "", f"{unread}{prediction.error}", *more
    best, *others = prediction.top
    then = "; ".join(f"{one.label} {one.score:.4f}" for one in others)
    return prediction.file, best.label, f"{best.score:.4f}", then, *more
