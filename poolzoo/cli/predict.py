"""`poolzoo predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from poolzoo import output
from poolzoo.cli.options import json_option, provider_option, threads_option


@click.command()
@click.argument("bundle", metavar="BUNDLE", type=click.Path(path_type=Path))
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--top", default=5, show_default=True, type=click.IntRange(1), help="How many classes to name an image.")
@provider_option
@threads_option
@json_option
def command(bundle: Path, images: tuple[Path, ...], top: int, provider: str, threads: int | None, as_json: bool) -> int:
    """Label image files. One that cannot be read is a row with an error; the rest is done, and the exit code is 1."""
    from poolzoo.deploy.predict import predict
    from poolzoo.errors import CHECK_FAILED, OK

    rows = list(predict(bundle, images, top=top, provider=provider, threads=threads))
    broken = [row for row in rows if "error" in row]
    if as_json:
        output.emit_json(rows)
    else:
        cells = [
            (row["file"], row["label"], f"{row['score']:.4f}", _runners_up(row))
            if "score" in row
            else (row["file"], "", row["error"], "")
            for row in rows
        ]
        output.table(("image", "label", "score", "then"), cells, right=(2,))
    if broken:
        output.error(
            f"{len(broken)} of {len(rows)} images cannot be read, first {broken[0]['file']}: {broken[0]['error']}",
            "check the files",
        )
    return CHECK_FAILED if broken else OK


def _runners_up(row: dict[str, Any]) -> str:
    """The classes after the first, each with its score."""
    return "; ".join(f"{one['label']} {one['score']:.4f}" for one in row["top"][1:])
