"""`poolzoo predict`."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any, Final

import click

from poolzoo import output, streams
from poolzoo.cli.options import json_option, provider_option, threads_option

HEADERS: Final = ("image", "label", "score", "then")
EXPLAINED: Final = ("explain", "method")  # keys of a row, and headers, where pictures are drawn
Row = dict[str, Any]


@click.command()
@click.argument("bundle", metavar="BUNDLE", type=click.Path(path_type=Path))
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@click.option("--top", default=5, show_default=True, type=click.IntRange(1), help="How many classes to name an image.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV: file, label, score, error.")
@click.option(
    "--explain",
    is_flag=True,
    help="Draw where the network looked: for each image STEM-explain.png in the current directory, which replaces an "
    "older such picture and nothing else.",
)
@click.option(
    "--explain-to",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Draw into DIR, made where there is none; implies --explain.",
)
@provider_option
@threads_option
@json_option
def command(
    bundle: Path,
    images: tuple[str, ...],
    top: int,
    as_csv: bool,
    explain: bool,
    explain_to: Path | None,
    provider: str,
    threads: int | None,
    as_json: bool,
) -> int:
    """Label images: files, whole folders, or with - those whose names come on stdin, one a line (or NUL-separated).

    One that cannot be read is a row with an error; the rest is done, and the exit code is 1.
    """
    from poolzoo.deploy.predict import predict
    from poolzoo.errors import CHECK_FAILED, OK, UsageError

    if as_csv and as_json:
        raise UsageError("--csv and --json exclude each other", "leave one out")
    files = [file for image in images for file in _files(image)]
    place = explain_to or (Path() if explain else None)
    rows = predict(bundle, files, top=top, provider=provider, threads=threads, explain_to=place)
    more = EXPLAINED if place else ()
    broken: list[Row] = []
    label = "" if as_csv and streams.is_terminal() else "labelling images"  # a bar among the rows would tear them
    with closing(_watched(rows, label, len(files), broken)) as told:
        if as_json:
            output.emit_json(list(told))
        elif as_csv:
            for cells in chain([("file", "label", "score", *more, "error")], (_csv_cells(row, more) for row in told)):
                output.csv_row(cells)
        else:
            output.table((*HEADERS, *more), (_cells(row, more) for row in told), right=(2,))
    if broken:
        output.error(
            f"{len(broken)} of {len(files)} images cannot be read, first {broken[0]['file']}: {broken[0]['error']}",
            "check the files",
        )
    return CHECK_FAILED if broken else OK


def _files(image: str) -> list[Path]:
    """The files that one argument means: itself, those in a folder, or those that stdin names."""
    from poolzoo.deploy.predict import image_files
    from poolzoo.errors import UsageError

    if image != "-":
        return image_files(Path(image)) if os.path.isdir(image) else [Path(image)]
    given = sys.stdin.buffer.read() if sys.stdin else b""  # None where it was closed
    names = [name for name in (given.split(b"\0") if b"\0" in given else given.splitlines()) if name]
    if not names:
        raise UsageError("stdin names no image", "for example: find photos -print0 | poolzoo predict BUNDLE -")
    return [Path(os.fsdecode(name)) for name in names]


def _watched(rows: Generator[Row, None, None], label: str, total: int, broken: list[Row]) -> Generator[Row, None, None]:
    """The rows, while a bar tells how far they are; those with an error are also put into `broken`."""
    with output.progress(label, total) as bar, closing(rows):
        for done, row in enumerate(rows, 1):
            for key in {"file", "explain"} & row.keys():
                row[key] = row[key].encode("utf-8", "backslashreplace").decode()  # any bytes may be a file's name
            if "error" in row:
                broken.append(row)
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
        return row["file"], "", "", f"cannot be read: {row['error']}", *("" for _ in more)
    rest = "; ".join(f"{one['label']} {one['score']:.4f}" for one in row["top"][1:])
    return row["file"], row["label"], f"{row['score']:.4f}", rest, *(row[key] for key in more)
