"""`poolzoo predict`."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from poolzoo.cli.options import json_option, provider_option, skip_broken_option, threads_option
from poolzoo.common import output, streams

if TYPE_CHECKING:
    from poolzoo.data.paths import Paths
    from poolzoo.data.walk import Tally

HEADERS: Final = ("image", "label", "score", "then")
EXPLAINED: Final = ("explain", "method")  # keys of a row, and headers, where pictures are drawn
Row = dict[str, Any]


@click.command()
@click.argument("bundle", metavar="BUNDLE", type=click.Path(path_type=Path))
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@click.option("--top", default=5, show_default=True, type=click.IntRange(1), help="How many classes to name an image.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV: file, label, score, error.")
@click.option(
    "--saliency",
    is_flag=True,
    help="Draw where the network looked: for each image STEM-explain.png in the current directory, which replaces an "
    "older such picture and nothing else.",
)
@click.option(
    "--saliency-dir",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Draw into DIR, made where there is none; implies --saliency.",
)
@skip_broken_option
@provider_option
@threads_option
@json_option
def command(
    bundle: Path,
    images: tuple[str, ...],
    top: int,
    as_csv: bool,
    saliency: bool,
    saliency_dir: Path | None,
    skip: str | None,
    provider: str,
    threads: int | None,
    as_json: bool,
) -> int:
    """Label images: files, whole folders, or with - those whose names come on stdin, one a line (or NUL-separated).

    One that cannot be read is a row with an error; the rest is done, and the exit code is 1 unless --skip-broken
    allows so many. Of a data set's folder the images are those that training reads.
    """
    from poolzoo.common.errors import CHECK_FAILED, OK, UsageError
    from poolzoo.data.unreadable import most
    from poolzoo.runtime.predict import NOT_FINITE, predict

    if as_csv and as_json:
        raise UsageError("--csv and --json exclude each other", "leave one out")
    allowed = most(skip)
    files = _all_files(images)
    place = saliency_dir or (Path() if saliency else None)
    annotate = None
    if place is not None:
        from poolzoo.explain.saliency import drawing

        annotate = drawing(bundle, files, place, threads)
    rows = predict(bundle, files, top=top, provider=provider, threads=threads, annotate=annotate)
    more = EXPLAINED if place else ()
    broken = _Broken()
    label = "" if as_csv and streams.stdout_is_terminal() else "labeling images"  # a bar among the rows would tear them
    with closing(_watched(rows, label, len(files), broken)) as told:
        if as_json:
            output.emit_json_rows(told)
        elif as_csv:
            for cells in chain([("file", "label", "score", *more, "error")], (_csv_cells(row, more) for row in told)):
                output.csv_row(cells)
        else:
            output.table((*HEADERS, *more), (_cells(row, more) for row in told), right=(2,))
    if broken.unlabeled:
        first = f"first {broken.first_unlabeled}: {NOT_FINITE}"
        output.error(
            f"{broken.unlabeled} of {len(files)} images have no label, {first}",
            "poolzoo verify tells whether the bundle is as it was exported",
        )
    if broken.count:
        text = f"{broken.count} of {len(files)} images cannot be read, first {broken.first}"
        if broken.count <= allowed:
            output.warn(text)
        else:
            output.error(text, "check the files, or allow so many with --skip-broken")
    return CHECK_FAILED if broken.unlabeled or broken.count > allowed else OK


@dataclass
class _Broken:
    """How many images could not be read, and the first with the reason; and the same of those without a label."""

    count: int = 0
    first: str = ""
    unlabeled: int = 0
    first_unlabeled: str = ""

    def add(self, row: Row) -> None:
        from poolzoo.runtime.predict import NOT_FINITE

        if row["error"] == NOT_FINITE:
            self.unlabeled += 1
            self.first_unlabeled = self.first_unlabeled or row["file"]
        else:
            self.count += 1
            self.first = self.first or f"{row['file']}: {row['error']}"


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


def _watched(rows: Generator[Row, None, None], label: str, total: int, broken: _Broken) -> Generator[Row, None, None]:
    """The rows, while a bar tells how far they are; those with an error are also added to `broken`."""
    with output.progress(label, total) as bar, closing(rows):
        for done, row in enumerate(rows, 1):
            for key in {"file", "explain"} & row.keys():
                row[key] = row[key].encode("utf-8", "backslashreplace").decode()  # any bytes may be a file's name
            if "error" in row:
                broken.add(row)
            yield row
            bar.update(done)


def _csv_cells(row: Row, more: Sequence[str]) -> Sequence[str]:
    rest = (row.get(key, "") for key in more)
    return (
        (row["file"], row["label"], f"{row['score']:.6f}", *rest, "")
        if "score" in row
        else (row["file"], "", "", *rest, row["error"])
    )


def _cells(row: Row, more: Sequence[str]) -> Sequence[str]:
    """An image, its label with the score, the classes after the first, each with its score, and `more` keys."""
    if "error" in row:
        from poolzoo.runtime.predict import NOT_FINITE

        text = row["error"] if row["error"] == NOT_FINITE else f"cannot be read: {row['error']}"
        return row["file"], "", "", text, *("" for _ in more)
    rest = "; ".join(f"{one['label']} {one['score']:.4f}" for one in row["top"][1:])
    return row["file"], row["label"], f"{row['score']:.4f}", rest, *(row[key] for key in more)
